"""Windows: what is open, when it is due, and the batches it is sealed into.

Rule 1: a window never spans two UTC hours; each hour that is not yet sealed has one window of its own.
Rule 2: a sealed batch's bytes never change; what a batch holds is told by its `lots` alone.
Rule 3: no clock, socket, file, thread, environment or log; callers pass the time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from settle_mp.core.fold import Entry, number_text, parse_number, row_text, total

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from settle_mp.core.event import Quantity
    from settle_mp.core.fold import Folded, Key, Repeats

HOUR_S: Final = 3600
#: Repeats that wait to be added to a window's sums at most: what waits can't be forgotten.
WAITING_MAX: Final = 300_000
#: Bytes of a batch's body at most; 50 rows of usual size are 10 KiB, and API servers commonly refuse 1 MiB.
BODY_BYTES_MAX: Final = 512 * 1024

_OPEN: Final = b'{"events":['
_CLOSE: Final = b"]}"


def hour_of(at_s: float) -> int:
    """The UTC hour of a Unix time, counted from 1970."""
    return int(at_s // HOUR_S)


@dataclass(slots=True, eq=False)
class Window:
    """The open sums of one UTC hour."""

    hour: int
    events_count: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    #: Tells this window from any other, for those who remember an entry of it.
    token: object = field(default_factory=object, repr=False)
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _waiting: list[Repeats] = field(default_factory=list, repr=False)

    def add(self, events: Iterable[tuple[Folded, int]]) -> None:
        """Add events, each with how often it came."""
        for folded, count in events:
            self._entry(folded.key).add(folded, count)
            self.events_count += count

    def count(self, events: list[Repeats]) -> None:
        """Count events that came once each; their sums are made when somebody looks.

        With many keys an entry is seldom in the processor's cache, and looking for it takes longer than all
        else that is done here.
        """
        self.events_count += len(events)
        token, waiting = self.token, self._waiting
        for repeats in events:
            if repeats.window is not token:
                self._take(repeats)
            if not repeats.count:
                waiting.append(repeats)
            repeats.count += 1
        if len(waiting) > WAITING_MAX:
            self._pour()

    @property
    def entries(self) -> dict[Key, Entry]:
        """The sums, with all that was counted."""
        self._pour()
        return self._entries

    @property
    def rows_count(self) -> int:
        """How many sums there are."""
        return len(self._entries)

    def _take(self, repeats: Repeats) -> None:
        """Have repeats that counted for another window, or none, count for this one."""
        repeats.pour()
        repeats.window, repeats.entry = self.token, self._entry(repeats.key)

    def _pour(self) -> None:
        for repeats in self._waiting:
            repeats.pour()
        self._waiting.clear()

    def _entry(self, key: Key) -> Entry:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = Entry()
        return entry

    def reach(self, at_s: float) -> None:
        """Stretch the window over a time of its hour."""
        if not self.first_s or at_s < self.first_s:
            self.first_s = at_s
        self.last_s = max(self.last_s, at_s)

    @property
    def quantity(self) -> Quantity:
        """The exact sum over all keys."""
        return total(entry.quantity for entry in self.entries.values())


class Windows:
    """All open windows, by hour: more than one only around an hour's end or while the upstream is away."""

    def __init__(self) -> None:
        self._by_hour: dict[int, Window] = {}
        self.opened_s: float | None = None

    def __iter__(self) -> Iterator[Window]:
        return iter([self._by_hour[hour] for hour in sorted(self._by_hour)])

    def __bool__(self) -> bool:
        return bool(self._by_hour)

    @property
    def rows_count(self) -> int:
        """How many sums are open."""
        return sum(window.rows_count for window in self._by_hour.values())

    def at(self, hour: int, now_s: float) -> Window:
        """The window of an hour, opened if need be."""
        window = self._by_hour.get(hour)
        if window is None:
            window = self._by_hour[hour] = Window(hour)
            if self.opened_s is None:
                self.opened_s = now_s
        return window

    def is_due(self, now_s: float, *, interval_s: float, rows_max: int) -> bool:
        """Whether the open windows should be sealed, if the upstream is ready.

        A clock that was set back makes them due at once rather than late.
        """
        if self.opened_s is None:
            return False
        is_old = not 0 <= now_s - self.opened_s < interval_s
        return is_old or self.rows_count >= rows_max

    def clear(self) -> None:
        """Forget everything, after it was sealed or before it is loaded again."""
        self._by_hour.clear()
        self.opened_s = None


@dataclass(frozen=True, slots=True)
class Lot:
    """One row of a batch: the bytes it takes in the body, its events and its quantity."""

    bytes_count: int
    events_count: int
    quantity: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A batch about to be written: exact body and what it holds."""

    hour: int
    body: bytes
    lots: tuple[Lot, ...]

    @property
    def events_count(self) -> int:
        """The events in it."""
        return sum(lot.events_count for lot in self.lots)

    @property
    def quantity(self) -> Quantity:
        """The exact sum of its rows' quantities."""
        return total(lot.quantity for lot in self.lots)


def draft_batches(window: Window, *, rows_max: int, is_annotated: bool) -> Iterator[Draft]:
    """Cut a window into batches of at most `rows_max` rows and BODY_BYTES_MAX bytes.

    A single row of more than that makes a batch of its own.
    """
    rows: list[tuple[bytes, Lot]] = []
    size = len(_OPEN) + len(_CLOSE)
    # Once and not for each row: a window may have a million of them.
    span = _span(window)
    for key, entry in window.entries.items():
        annotation = f'{{"count":{entry.count},{span}}}' if is_annotated else None
        text = row_text(key, entry, annotation).encode()
        if rows and (len(rows) == rows_max or size + len(text) > BODY_BYTES_MAX):
            yield join_rows(window.hour, rows)
            rows, size = [], len(_OPEN) + len(_CLOSE)
        rows.append((text, Lot(len(text), entry.count, entry.quantity)))
        size += len(text) + 1
    if rows:
        yield join_rows(window.hour, rows)


def rows_of(draft: Draft) -> list[tuple[bytes, Lot]]:
    """The rows of a batch as they stand in its body."""
    rows: list[tuple[bytes, Lot]] = []
    start = len(_OPEN)
    for lot in draft.lots:
        rows.append((draft.body[start : start + lot.bytes_count], lot))
        start += lot.bytes_count + 1
    return rows


def encode_lots(lots: Iterable[Lot]) -> list[list[int | str]]:
    """Lots as plain values, for the ledger."""
    return [[lot.bytes_count, lot.events_count, number_text(lot.quantity)] for lot in lots]


def decode_lots(values: Iterable[tuple[int, int, str]]) -> tuple[Lot, ...]:
    """The inverse of `encode_lots`."""
    return tuple(Lot(size, count, parse_number(quantity)) for size, count, quantity in values)


def join_rows(hour: int, rows: list[tuple[bytes, Lot]]) -> Draft:
    """A batch of rows, each row's bytes unchanged; the inverse of `rows_of`."""
    body = _OPEN + b",".join(text for text, _ in rows) + _CLOSE
    return Draft(hour=hour, body=body, lots=tuple(lot for _, lot in rows))


def draft_of_body(hour: int, body: bytes, *, events_count: int, quantity: Quantity) -> Draft:
    """A batch of a body whose rows are not told apart any more: it is sent and judged as one row."""
    lot = Lot(len(body) - len(_OPEN) - len(_CLOSE), events_count, quantity)
    return Draft(hour=hour, body=body, lots=(lot,))


def _span(window: Window) -> str:
    start_s = window.hour * HOUR_S
    first = min(max(int(window.first_s), start_s), start_s + HOUR_S - 1)
    last = min(max(int(window.last_s) + 1, first), start_s + HOUR_S)
    return f'"window_start":"{_utc(first)}","window_end":"{_utc(last)}"'


def _utc(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
