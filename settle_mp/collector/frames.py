"""What is committed and not sealed: frames as they came, and the sums that replaced older ones.

Rule L2: frames are stored whole and not event by event; past a bound of bytes the sums of their windows take
their place, so that the ledger grows with the keys and not with the events.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgpack

from settle_mp.collector import schema
from settle_mp.collector.accounts import amount_in
from settle_mp.collector.ledger_error import LedgerError
from settle_mp.core.books import Amount, amount_of
from settle_mp.core.fold import Entry, Key, number_text, parse_number, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from settle_mp.collector.database import Database
    from settle_mp.core.event import Quantity
    from settle_mp.core.window import Window, Windows

#: Sums in one row. A row each would be ten times the work at a quarter of a million keys.
SUMS_PER_ROW: Final = 512
#: Rows that are read at once when all is loaded.
_ROWS_PER_READ: Final = 64
_INT64_MAX: Final = 2**63 - 1
#: Where a row of sums has its events and its quantity.
_EVENTS_AT: Final = schema.SUMS.columns.index("events")
_QUANTITY_AT: Final = schema.SUMS.columns.index("quantity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """One accepted run of bytes of one producer: a frame, or what is left of one behind its counted part.

    `last` may lie beyond `first + len(body)`: what adoption steps over in a damaged journal is in no body.

    Attributes:
        producer: Who tracked it; it must have been introduced.
        first: Its first position; equal to the producer's committed position.
        last: The position that is committed with it.
        base: Where its segment begins.
        hour: The UTC hour of the one window that it belongs to.
        cut_s: When it was cut (Unix seconds).
        body: Whole records.
        events_count: How many valid events are in it.
        quantity: Their exact sum.
        invalid: (index among the body's events, payload, reason) of each event that was refused: it is
            dead-lettered in the same transaction, with a quantity of 0, and skipped at a reload.
    """

    producer: bytes
    first: int
    last: int
    base: int
    hour: int
    cut_s: float
    body: bytes
    events_count: int
    quantity: Quantity
    invalid: tuple[tuple[int, bytes, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFrame:
    """An intake read back; `skipped` are the indices of the events that were dead-lettered."""

    producer: bytes
    first: int
    last: int
    base: int
    hour: int
    cut_s: float
    body: bytes
    skipped: frozenset[int]
    events_count: int
    quantity: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSum:
    """One sum of an open window, and the times that the window reached (Unix seconds)."""

    hour: int
    key: Key
    entry: Entry
    first_s: float
    last_s: float


class Frames:
    """The tables of stored frames and sums."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, intakes: Sequence[Intake]) -> Amount:
        """Store what holds valid events. Returns what that is."""
        kept = [intake for intake in intakes if intake.events_count]
        self._database.insert(schema.FRAMES, [_written(intake) for intake in kept])
        raw_bytes = self.raw_bytes + sum(len(intake.body) for intake in kept)
        self._database.set_meta("raw_bytes", str(raw_bytes))
        return Amount(sum(intake.events_count for intake in kept), total(intake.quantity for intake in kept))

    @property
    def raw_bytes(self) -> int:
        """Bytes of the stored frames' bodies."""
        return int(self._database.meta("raw_bytes"))

    def stored(self) -> Iterator[StoredFrame | StoredSum]:
        """All sums, then all frames in the order in which they came."""
        for row in self._read_all(schema.SUMS):
            yield from _read_sums(row)
        for row in self._read_all(schema.FRAMES):
            yield _read_frame(row)

    def amount(self) -> Amount:
        """What frames and sums hold together."""
        return amount_in(self._database, schema.FRAMES) + amount_in(self._database, schema.SUMS)

    def oldest_s(self) -> float | None:
        """When the oldest of it was cut."""
        times = [
            self._database.value("SELECT MIN(cut_s) FROM frames"),
            self._database.value("SELECT MIN(first_s) FROM sums"),
        ]
        return min((at_s for at_s in times if at_s is not None), default=None)

    def compact(self, windows: Windows) -> None:
        """Let the windows' sums take the place of all frames, hour by hour."""
        hours = {hour for (hour,) in self._database.rows("SELECT DISTINCT hour FROM frames")}
        windows_by_hour = {window.hour: window for window in windows}
        for hour in sorted(hours):
            self._compact_hour(hour, windows_by_hour.get(hour))
        self._database.set_meta("raw_bytes", "0")

    def clear(self) -> None:
        """Take all of it away, because it was sealed."""
        self._database.delete(schema.FRAMES)
        self._database.delete(schema.SUMS)
        self._database.set_meta("raw_bytes", "0")

    def _compact_hour(self, hour: int, window: Window | None) -> None:
        where = f"hour = {hour:d}"
        held = amount_in(self._database, schema.FRAMES, where) + amount_in(self._database, schema.SUMS, where)
        rows = list(_sum_rows(window)) if window else []
        known = amount_of(Amount(row[_EVENTS_AT], parse_number(row[_QUANTITY_AT])) for row in rows)
        refuse_difference(f"the window of hour {hour}", known, held)
        # First away, then anew: the pages are used again, also when the disk is full.
        self._database.delete(schema.FRAMES, where)
        self._database.delete(schema.SUMS, where)
        self._database.insert(schema.SUMS, rows)

    def _read_all(self, table: schema.Table) -> Iterator[tuple[Any, ...]]:
        # A cursor left open over a commit would read what is not there any more.
        last_id = -1
        while True:
            rest = f"WHERE id > ? ORDER BY id LIMIT {_ROWS_PER_READ}"
            rows = self._database.select(table, rest, (last_id,))
            if not rows:
                return
            yield from rows
            last_id = rows[-1][0]


def refuse_difference(what: str, known: Amount, held: Amount) -> None:
    """Stop before what memory holds takes the place of rows that hold something else (rule L1)."""
    if known != held:
        msg = f"{what}: memory holds {known}, the ledger {held}"
        raise LedgerError(msg)


def _written(intake: Intake) -> tuple[Any, ...]:
    return (
        intake.producer,
        intake.first,
        intake.last,
        intake.base,
        intake.hour,
        intake.cut_s,
        intake.events_count,
        number_text(intake.quantity),
        msgpack.packb([index for index, _, _ in intake.invalid]),
        intake.body,
    )


def _read_frame(row: tuple[Any, ...]) -> StoredFrame:
    _, producer, first, last, base, hour, cut_s, events_count, quantity, skipped, body = row
    return StoredFrame(
        producer=producer,
        first=first,
        last=last,
        base=base,
        hour=hour,
        cut_s=cut_s,
        body=body,
        skipped=frozenset(msgpack.unpackb(skipped)),
        events_count=events_count,
        quantity=parse_number(quantity),
    )


def _sum_rows(window: Window) -> Iterator[tuple[Any, ...]]:
    items = iter(window.entries.items())
    while chunk := list(islice(items, SUMS_PER_ROW)):
        entries: list[tuple[Key, int, int | str, list[tuple[str, int | str]] | None]] = []
        whole, others, events_count = 0, [], 0
        for key, entry in chunk:
            quantity = entry.quantity
            if type(quantity) is int and quantity <= _INT64_MAX:
                whole += quantity
                packed: int | str = quantity
            else:
                others.append(quantity)
                packed = number_text(quantity)
            events_count += entry.count
            entries.append((key, entry.count, packed, _packed_sums(entry.sums) if entry.sums else None))
        quantity_text = number_text(total([whole, *others]))
        yield window.hour, window.first_s, window.last_s, events_count, quantity_text, msgpack.packb(entries)


def _read_sums(row: tuple[Any, ...]) -> Iterable[StoredSum]:
    _, hour, first_s, last_s, _, _, entries = row
    for key, count, quantity, sums in msgpack.unpackb(entries):
        yield StoredSum(
            hour=hour,
            key=Key(*key),
            entry=Entry(count, _unpacked(quantity), {name: _unpacked(value) for name, value in sums or ()}),
            first_s=first_s,
            last_s=last_s,
        )


def _packed(quantity: Quantity) -> int | str:
    """A number as msgpack has it, or as text where that would not be exact."""
    if type(quantity) is int and -_INT64_MAX <= quantity <= _INT64_MAX:
        return quantity
    return number_text(quantity)


def _unpacked(value: int | str) -> Quantity:
    return value if isinstance(value, int) else parse_number(value)


def _packed_sums(sums: Mapping[str, Quantity]) -> list[tuple[str, int | str]]:
    return [(name, _packed(value)) for name, value in sums.items()]
