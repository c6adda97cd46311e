"""The books as they stand, read from the files, whether a collector runs or not.

The ledger is read in one snapshot, then the journals behind the positions that it names. A collector that
runs meanwhile moves both; when a journal has moved on, both are read again.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from settle_mp import control, statedir
from settle_mp.collector import journals
from settle_mp.collector.ledger import Ledger, LedgerError
from settle_mp.core import wire
from settle_mp.core.books import Amount, Books, Tally, amount_of
from settle_mp.core.event import InvalidEventError, unpack_event
from settle_mp.core.fold import number_text, parse_number, total
from settle_mp.core.record import NO_LEDGER, mark_s, read_records, segment_seed

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.collector.journals import SegmentFile
    from settle_mp.collector.roster import ProducerRow
    from settle_mp.config import Settings

#: How often everything is read again while a running collector moves it.
READS_MAX: Final = 5
#: How long the running collector gets to say how it does, in seconds.
ASK_S: Final = 1.0
SCHEMA: Final = 1


@dataclass(slots=True)
class JournalView:
    """One journal as it stands: what is not committed, what was dropped, and its own count of all."""

    journaled: Amount
    dropped: Amount
    tally: Tally | None
    residues: list[str] = field(default_factory=list)
    is_moved: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What `settle-mp status` shows."""

    json: dict[str, Any]
    faults: list[str]
    notes: list[str]

    @property
    def is_balanced(self) -> bool:
        """Whether the books balance."""
        return not self.faults


def read_status(settings: Settings) -> Report:
    """Read ledger and journals, and hold them against each other.

    Raises:
        LedgerError: The ledger can't be read.
    """
    state_dir = statedir.StateDir(settings.state_dir)
    is_up = control.is_collector_up(settings)
    snapshot = _Snapshot(state_dir)
    for _ in range(READS_MAX):
        if not is_up or not snapshot.is_moved:
            break
        snapshot = _Snapshot(state_dir)
    return snapshot.report(_live_report(settings) if is_up else None, is_up=is_up)


def _live_report(settings: Settings) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError, TypeError):
        answer = control.ask(settings, lambda _: wire.Ping(), wire.Pong, timeout_s=ASK_S)
        if answer is not None:
            report: dict[str, Any] = json.loads(answer.report)
            return report
    return None


class _Snapshot:
    """One reading of everything."""

    def __init__(self, state_dir: statedir.StateDir) -> None:
        self.is_moved = False
        self.read_s = time.time()
        self.rows: dict[str, Amount] = {}
        self.totals: dict[str, Amount] = {}
        self.residues: list[str] = []
        self.in_doubt_ever = Amount()
        self.counters: dict[str, int] = {}
        self.oldest_s: float | None = None
        self.dropped = Amount()
        self.tallies: list[Tally] = []
        self.journaled = Amount()
        self.live_count = 0
        self.volatile_count = 0
        self.waiting: list[str] = []
        self.has_ledger = (state_dir.ledger / "ledger.db").exists()
        known = self._read_ledger(state_dir.ledger) if self.has_ledger else {}
        self._read_journals(state_dir, known)

    def _read_ledger(self, folder: Path) -> dict[bytes, ProducerRow]:
        ledger = Ledger.open_read_only(folder)
        try:
            self.ledger_id = ledger.id
            self.rows, self.totals = ledger.books_rows(), ledger.totals()
            self.residues = ledger.residues()
            self.in_doubt_ever = ledger.in_doubt_ever()
            self.counters = ledger.counters()
            self.oldest_s = ledger.oldest_pending_s()
            self.dropped = ledger.departed()[2]
            return ledger.producers()
        finally:
            ledger.close()

    def _read_journals(self, state_dir: statedir.StateDir, known: dict[bytes, ProducerRow]) -> None:
        seen: set[bytes] = set()
        for folder in statedir.producer_folders(state_dir.journals):
            with contextlib.suppress(ValueError, FileNotFoundError):
                producer = bytes.fromhex(folder.name)
                view = _read_journal(folder, producer, known.get(producer))
                seen.add(producer)
                self._add(view, is_live=statedir.is_locked(folder / statedir.LOCK_NAME))
        for row in known.values():
            if row.id not in seen:
                self.dropped += row.dropped
                self.volatile_count += row.is_volatile and row.gone_s is None
                if not row.is_volatile and row.gone_s is None:
                    # Gone between the two readings: what it still held was committed meanwhile.
                    self.is_moved = True

    def _add(self, view: JournalView, *, is_live: bool) -> None:
        self.live_count += is_live
        self.journaled += view.journaled
        self.dropped += view.dropped
        self.residues += view.residues
        self.is_moved = self.is_moved or view.is_moved
        if view.tally is not None:
            self.tallies.append(view.tally)

    @property
    def books(self) -> Books:
        """The equations' figures."""
        nothing = {name: Amount() for name in ("committed", *BUCKETS_OF_JSON, "discarded")}
        return Books(
            rows=self.rows or nothing,
            totals=self.totals if self.has_ledger else nothing,
            tallies=tuple(self.tallies),
            residues=tuple(self.residues),
            journaled=self.journaled,
            dropped=self.dropped,
        )

    def report(self, live: dict[str, Any] | None, *, is_up: bool) -> Report:
        """Everything in the form that users see."""
        books = self.books
        faults = books.faults()
        buckets = {name: books.rows[name] for name in BUCKETS_OF_JSON}
        buckets["pending"] += books.journaled
        # What an operator discarded left the ledger for good, as a dropped event did before it came in.
        buckets["dropped"] = books.dropped + books.rows["discarded"]
        amounts = {"tracked": amount_of([books.tracked]), **buckets}
        order = ("tracked", "confirmed", "pending", "in_doubt", "dead_lettered", "dropped")
        is_pending = buckets["pending"].events > 0 or buckets["in_doubt"].events > 0
        oldest_s = self.oldest_s if self.oldest_s is not None else self.read_s
        status = {
            "balanced": not faults,
            "events": {name: amounts[name].events for name in order},
            "quantity": {name: number_text(amounts[name].quantity) for name in order},
            "in_doubt_ever": {
                "events": self.in_doubt_ever.events,
                "quantity": number_text(self.in_doubt_ever.quantity),
            },
            "oldest_pending_age_s": round(max(0.0, self.read_s - oldest_s), 3) if is_pending else 0.0,
            "producers_count": self.live_count + self.volatile_count,
            "durable": self.volatile_count == 0,
            "schema": SCHEMA,
            "collector": {"state": "up" if is_up else "down"},
            "upstream": {
                "state": (live or {}).get("state", "unknown"),
                "last_error": (live or {}).get("last_error"),
                "requests_count": self.counters.get("requests_count", 0),
                "retries_count": self.counters.get("retries_count", 0),
            },
            "faults": faults,
        }
        return Report(status, faults, list((live or {}).get("refusals", [])))


#: Buckets of the ledger that `status` shows under their own names.
BUCKETS_OF_JSON: Final = ("confirmed", "pending", "in_doubt", "dead_lettered")


def _read_journal(folder: Path, producer: bytes, row: ProducerRow | None) -> JournalView:
    header = journals.read_header(folder)
    files = journals.segments(folder)
    dropped = Amount(header.drops.dropped_count, parse_number(header.drops.dropped_quantity))
    position = row.position if row is not None else header.bond.position
    view = JournalView(Amount(), dropped, None)
    if header.bond.position > position:
        view.is_moved = True
    view.journaled, _ = _amount_behind(producer, files, position, view)
    if row is None or header.courier.ledger == NO_LEDGER:
        return view
    # The courier's own count up to what was acked, and from there on the journal's records.
    behind, is_whole = _amount_behind(producer, files, header.courier.position, view)
    if is_whole:
        view.tally = Tally(
            name=f"{row.name} ({producer.hex()[:8]})",
            tracked_events=header.courier.events_count + behind.events,
            committed_events=row.events_before + row.events.events,
            journaled_events=view.journaled.events,
        )
    return view


def _amount_behind(
    producer: bytes, files: list[SegmentFile], position: int, view: JournalView
) -> tuple[Amount, bool]:
    """What stands behind a position, and whether the journal still reaches back to it."""
    amount = Amount()
    is_whole = bool(files) and files[0].base <= position
    for index, file in enumerate(files):
        end = files[index + 1].base if index + 1 < len(files) else None
        if end is not None and end <= position:
            continue
        start = max(position, file.base)
        body = file.read()[start - file.base : None if end is None else end - file.base]
        payloads, used = read_records(body, segment_seed(producer, file.base), start - file.base)
        amount += _amount_of(payloads)
        has_more = used < len(body) if end is not None else bool(body[used:].strip(b"\0"))
        if has_more:
            view.residues.append(
                f"journal {producer.hex()}: no record can be read at position {start + used}"
            )
    return amount, is_whole


def _amount_of(payloads: list[bytes]) -> Amount:
    events = [payload for payload in payloads if mark_s(payload) is None]
    quantities = []
    for payload in events:
        with contextlib.suppress(InvalidEventError):  # it will be dead-lettered with a quantity of 0
            quantities.append(unpack_event(payload).quantity)
    return Amount(len(events), total(quantities))


__all__ = ["LedgerError", "Report", "read_status"]
