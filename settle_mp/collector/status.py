"""The books as they stand, read from the files, whether a collector runs or not.

Journals are held open, then the ledger is read in one snapshot, then the journals behind the positions in
it: each event is counted once, wherever it was at the moment of the snapshot. `inventory` has the rules.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from settle_mp import control, statedir, transport
from settle_mp.collector import sidefile
from settle_mp.collector.admission import House, Refusal, admit
from settle_mp.collector.advice import advise
from settle_mp.collector.checkup import is_there
from settle_mp.collector.inventory import HeldJournal
from settle_mp.collector.ledger import LEDGER_NAME, Ledger, LedgerError
from settle_mp.core import wire
from settle_mp.core.books import BUCKETS, Amount, Books, Tally, amount_of
from settle_mp.core.fold import number_text, parse_number
from settle_mp.core.record import NO_LEDGER, PRODUCER_ID_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.collector.residues import Residue
    from settle_mp.collector.roster import ProducerRow
    from settle_mp.config import Settings

#: How often everything is read again when a journal lost a segment between being listed and being opened.
READS_MAX: Final = 5
#: How long the running collector gets to say how it does, in seconds.
ASK_S: Final = 1.0
SCHEMA: Final = 1
#: How many workers are named.
NAMES_MAX: Final = 100
#: Buckets of the ledger that `status` shows under their own names.
BUCKETS_OF_JSON: Final = ("confirmed", "pending", "in_doubt", "dead_lettered")
_EVENTS_ORDER: Final = ("tracked", *BUCKETS_OF_JSON, "dropped")


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
    """Read ledger and journals, and hold them against each other. Never raises for what it finds there."""
    transport.raise_descriptor_limit()
    state_dir = statedir.StateDir(settings.state_dir)
    is_up = control.is_collector_up(settings)
    snapshot = Snapshot(state_dir)
    for _ in range(READS_MAX - 1):
        if not snapshot.is_torn:
            break
        snapshot = Snapshot(state_dir)
    live = _ask_collector(settings) if is_up else {}
    advice = advise(live.get("unfolded"), settings.rules)
    return snapshot.report(live, advice, is_up=is_up)


def _ask_collector(settings: Settings) -> dict[str, Any]:
    """What only the running collector knows; nothing when it is too busy to answer."""
    with contextlib.suppress(ValueError, TypeError):
        answer = control.ask(settings, lambda _: wire.Ping(), wire.Pong, timeout_s=ASK_S)
        if answer is not None:
            report: dict[str, Any] = json.loads(answer.report)
            return report
    return {}


class Snapshot:
    """One reading of everything.

    Attributes:
        is_torn: Whether a journal could not be read as a whole; it may be when it is read again.
    """

    def __init__(self, state_dir: statedir.StateDir) -> None:
        """Read it."""
        self.is_torn: bool = False
        self.read_s: float = time.time()
        self._ledger_faults: list[str] = []
        self._rows = self._totals = {name: Amount() for name in ("committed", *BUCKETS)}
        self._residues: list[str] = []
        self._named: list[Residue] = []
        self._in_doubt_ever = Amount()
        self._counters: dict[str, int] = {}
        self._held = (0, Amount())
        self._oldest_s: list[float] = []
        self._dropped = self._journaled = Amount()
        self._tallies: list[Tally] = []
        self._notes: list[str] = []
        self._live_count = self._volatile_count = self._unseen_count = 0
        self._names: list[str] = []
        held = {folder.name: HeldJournal(folder) for folder in _journals(state_dir)}
        try:
            self._known = self._read_ledger(state_dir)
            for folder in _journals(state_dir):
                if folder.name not in held:
                    held[folder.name] = HeldJournal(folder)
            for journal in held.values():
                journal.settle()
            there = [journal for journal in held.values() if not journal.is_lost]
            for journal in there:
                self._add(journal)
        finally:
            for journal in held.values():
                journal.close()
        self._add_others({journal.producer for journal in there})

    # --- The ledger ---

    def _read_ledger(self, state_dir: statedir.StateDir) -> dict[bytes, ProducerRow]:
        folder = state_dir.ledger
        self._house = House(ledger=NO_LEDGER, put_aside=frozenset(), key_mode="")
        try:
            self._house = replace(self._house, put_aside=sidefile.aside_ids(folder))
            if not is_there(folder / LEDGER_NAME):
                self._note_lost(folder)
                return {}
            ledger = Ledger.open_read_only(folder)
        except (LedgerError, ValueError, OSError) as error:
            self._ledger_faults.append(f"ledger: it can't be read: {error}")
            return {}
        try:
            return self._read_tables(ledger)
        except (LedgerError, ValueError) as error:
            self._ledger_faults.append(f"ledger: it can't be read: {error}")
            return {}
        finally:
            ledger.close()

    def _note_lost(self, folder: Path) -> None:
        mark = sidefile.read_mark(folder)
        if mark is not None and mark.ledger not in self._house.put_aside:
            self._ledger_faults.append(f"ledger: the file of ledger {mark.ledger.hex()} is gone")

    def _read_tables(self, ledger: Ledger) -> dict[bytes, ProducerRow]:
        # What names a missing row first: what it was needed for may fail below.
        self._residues += ledger.residues()
        self._named = ledger.named_residues()
        self._house = House(ledger=ledger.id, put_aside=self._house.put_aside, key_mode=ledger.key_mode)
        self._totals = ledger.totals()
        self._rows = ledger.books_rows()
        with contextlib.suppress(KeyError):  # its row is missing, which is a residue
            self._in_doubt_ever = ledger.in_doubt_ever()
        self._counters = ledger.counters()
        self._held = ledger.outbox.amounts().get("held", self._held)
        oldest_s = ledger.oldest_pending_s()
        self._oldest_s += [] if oldest_s is None else [oldest_s]
        self._dropped += ledger.departed()[2]
        return ledger.producers()

    # --- The journals ---

    def _add(self, journal: HeldJournal) -> None:
        row, header = self._known.get(journal.producer), journal.header
        self._live_count += journal.is_live
        if journal.is_live and header.identity is not None:
            self._names.append(header.identity.name)
        self._dropped += Amount(header.drops.dropped_count, parse_number(header.drops.dropped_quantity))
        position = self._first_uncommitted(journal) if row is None else row.position
        stretch = journal.behind(position)
        self._journaled += stretch.amount
        self._oldest_s += [] if stretch.oldest_s is None else [stretch.oldest_s]
        self._residues += [f"journal {journal.producer.hex()}: {damage}" for damage in stretch.damages]
        self.is_torn = self.is_torn or not stretch.is_whole
        # Without a ledger here, the collector may be on another host, and the journals are its to judge.
        if row is None and not self._ledger_faults and self._house.ledger != NO_LEDGER:
            decision = admit(journal.producer, header, self._house, is_volatile=False)
            self._notes += [decision.reason] if isinstance(decision, Refusal) else []
        elif row is not None and header.courier.ledger != NO_LEDGER and not journal.is_gone:
            self._count_twice(journal, row, stretch.amount.events)

    def _first_uncommitted(self, journal: HeldJournal) -> int:
        """Where a journal begins for a ledger that did not know it."""
        bond = journal.first_header.bond
        # Bound to this ledger, it was so after the ledger was read: by then it began at its beginning.
        return 0 if bond.ledger == self._house.ledger else bond.position

    def _count_twice(self, journal: HeldJournal, row: ProducerRow, journaled_events: int) -> None:
        """Hold the producer's own count up to what was acked, and from there on its records, against ours."""
        acked = journal.header.courier
        behind_events, is_whole = journal.events_behind(acked.position)
        if is_whole:
            tally = Tally(
                name=f"{row.name} ({journal.producer.hex()[:8]})",
                tracked_events=acked.events_count + behind_events,
                committed_events=row.events_before + row.events.events,
                journaled_events=journaled_events,
            )
            self._tallies.append(tally)

    def _add_others(self, visible: set[bytes]) -> None:
        for row in self._known.values():
            if row.id not in visible:
                self._dropped += row.dropped
                if row.is_volatile and row.gone_s is None:
                    self._volatile_count += 1
                if row.is_unseen and row.gone_s is None:
                    self._unseen_count += 1
                    self._names.append(row.name)

    # --- What it shows ---

    def report(self, live: dict[str, Any], advice: list[dict[str, Any]], *, is_up: bool) -> Report:
        """Everything in the form that users see."""
        books = Books(
            rows=self._rows,
            totals=self._totals,
            tallies=tuple(self._tallies),
            residues=(*self._ledger_faults, *self._residues),
            journaled=self._journaled,
            dropped=self._dropped,
        )
        faults = books.faults()
        notes = list(dict.fromkeys([*self._notes, *(live.get("refusals") or [])]))
        if live.get("trouble"):
            notes.insert(0, live["trouble"])
        status = {
            "balanced": not faults,
            **self._amounts(books),
            "in_doubt_ever": {
                "events": self._in_doubt_ever.events,
                "quantity": number_text(self._in_doubt_ever.quantity),
            },
            "held": {"batches": self._held[0], "events": self._held[1].events},
            "confirmed_by_hand": {"events": self._counters.get("confirmed_by_hand_events", 0)},
            "residues": {
                "open": sum(residue.is_open for residue in self._named),
                "acknowledged": sum(not residue.is_open for residue in self._named),
            },
            "oldest_pending_age_s": self._oldest_age_s(),
            "producers_count": self._live_count + self._unseen_count,
            "workers": sorted(self._names)[:NAMES_MAX],
            "durable": self._volatile_count == 0,
            "schema": SCHEMA,
            "collector": {"state": "up" if is_up else "down"},
            "upstream": {
                "state": live.get("state", "unknown"),
                "last_error": live.get("last_error"),
                "requests_count": self._counters.get("requests_count", 0),
                "retries_count": self._counters.get("retries_count", 0),
            },
            "refused_count": self._counters.get("refused_count", 0),
            "unfolded": advice,
            "waiting": notes,
            "faults": faults,
        }
        return Report(status, faults, notes)

    def _amounts(self, books: Books) -> dict[str, dict[str, Any]]:
        amounts = {name: self._rows[name] for name in BUCKETS_OF_JSON}
        amounts["pending"] += self._journaled
        # What an operator discarded left the ledger for good, as a dropped event did before it came in.
        amounts["dropped"] = self._dropped + self._rows["discarded"]
        amounts["tracked"] = amount_of([books.tracked])
        return {
            "events": {name: amounts[name].events for name in _EVENTS_ORDER},
            "quantity": {name: number_text(amounts[name].quantity) for name in _EVENTS_ORDER},
        }

    def _oldest_age_s(self) -> float:
        return round(max(0.0, self.read_s - min(self._oldest_s, default=self.read_s)), 3)


def _journals(state_dir: statedir.StateDir) -> list[Path]:
    found = []
    for folder in statedir.producer_folders(state_dir.journals):
        with contextlib.suppress(ValueError):
            if len(bytes.fromhex(folder.name)) == PRODUCER_ID_BYTES:
                found.append(folder)
    return found
