"""The producers that the ledger knows: how far each is committed and sealed, and what each must be told.

Rule L3: a producer begins at the position that its header gives, and nothing before it is taken.
Rule L4: it is forgotten only when it went long ago and everything of it is sealed; what it committed stays
in the one row of the departed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from settle_mp.collector import schema
from settle_mp.collector.ledger_error import LedgerError
from settle_mp.core.books import Amount, amount_of
from settle_mp.core.fold import add, number_text, parse_number
from settle_mp.core.ticket import Trouble

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from settle_mp.collector.database import Database
    from settle_mp.collector.frames import Intake
    from settle_mp.core.event import Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProducer:
    """A producer heard of for the first time.

    `position` is its header's committed position (rule L3), `events_before` the events up to there, which
    another ledger took.
    """

    id: bytes
    position: int
    events_before: int = 0
    name: str = ""
    host: str = ""
    key_mode: str = ""
    is_volatile: bool = False
    is_unseen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerRow:
    """One producer as the ledger knows it.

    Attributes:
        id: Its 16 bytes.
        position: Committed up to here.
        sealed_position: Sealed up to here.
        start_position: Where it stood when it was introduced.
        events_before: Its events before `start_position`, which are in no count of this ledger.
        events: Committed events, those dead-lettered at intake included, and their quantity.
        sealed_events_count: Of these, the events that are sealed or were dead-lettered at intake.
        name: What it calls itself.
        host: Where it runs.
        key_mode: The mode of its API key.
        is_volatile: Whether its journal is in memory.
        is_unseen: Whether it has no folder in this collector's state folder.
        dropped: What it dropped, by its own cumulative count.
        seen_s: When something of it was last committed (Unix seconds).
        gone_s: When its folder went or it said goodbye; None while it may come back.
    """

    id: bytes
    position: int
    sealed_position: int
    start_position: int
    events_before: int
    events: Amount = field(default_factory=Amount)
    sealed_events_count: int = 0
    name: str = ""
    host: str = ""
    key_mode: str = ""
    is_volatile: bool = False
    is_unseen: bool = False
    dropped: Amount = field(default_factory=Amount)
    seen_s: float = 0.0
    gone_s: float | None = None

    @property
    def open_events_count(self) -> int:
        """Committed events that no seal holds yet."""
        return self.events.events - self.sealed_events_count


class _Row(NamedTuple):
    """A row of `producers`, in the order of its columns."""

    id: bytes
    position: int
    sealed_position: int
    start_position: int
    events_before: int
    events: int = 0
    quantity: str = "0"
    sealed_events_count: int = 0
    name: str = ""
    host: str = ""
    key_mode: str = ""
    is_volatile: int = 0
    is_unseen: int = 0
    dropped_events: int = 0
    dropped_quantity: str = "0"
    seen_s: float = 0.0
    gone_s: float | None = None

    @property
    def amount(self) -> Amount:
        return Amount(self.events, parse_number(self.quantity))

    @property
    def dropped(self) -> Amount:
        return Amount(self.dropped_events, parse_number(self.dropped_quantity))


class _Advance:
    """How far the runs of one commit bring one producer."""

    def __init__(self, row: _Row) -> None:
        self._row = row
        self._position = row.position
        self._invalid_count = self._events_count = 0
        self._quantity: Quantity = 0

    def add(self, intake: Intake) -> None:
        if self._position != intake.first or intake.last < intake.first:
            msg = f"a run from {intake.first} to {intake.last} of a producer that stands at {self._position}"
            raise LedgerError(msg)
        self._position = intake.last
        self._invalid_count += len(intake.invalid)
        self._events_count += intake.events_count
        self._quantity = add(self._quantity, intake.quantity)

    @property
    def amount(self) -> Amount:
        return Amount(self._events_count + self._invalid_count, self._quantity)

    def result(self, now_s: float) -> _Row:
        row = self._row
        return row._replace(
            position=self._position,
            events=row.events + self._events_count + self._invalid_count,
            quantity=number_text(add(parse_number(row.quantity), self._quantity)),
            sealed_events_count=row.sealed_events_count + self._invalid_count,
            seen_s=now_s,
            gone_s=None,
        )


class Roster:
    """The tables of producers and of what they must be told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[bytes, ProducerRow]:
        """Every producer that is not forgotten."""
        return {row.id: _public(row) for row in self._select("")}

    def introduce(self, producers: Iterable[NewProducer], now_s: float) -> None:
        """Make rows for those that have none; take back that the others went."""
        with self._database.transaction(is_intake=True):
            for new in producers:
                known = self._find(new.id)
                if known is None:
                    self._database.insert(schema.PRODUCERS, [_first_row(new, now_s)])
                elif known.gone_s is not None:
                    self._write([known._replace(gone_s=None)])

    def advance(self, intakes: Sequence[Intake], now_s: float) -> Amount:
        """Move producers to the ends of their intakes. Returns what was committed with it."""
        producers = {intake.producer for intake in intakes}
        advances = {row.id: _Advance(row) for row in self._find_all(producers)}
        for intake in intakes:
            if intake.producer not in advances:
                raise LedgerError("a run of a producer that was not introduced")
            advances[intake.producer].add(intake)
        self._write(advance.result(now_s) for advance in advances.values())
        return amount_of(advance.amount for advance in advances.values())

    def appraise(self, producer: bytes, quantity: Quantity) -> None:
        """Add the quantity of an event that was committed as one without any."""
        row = self._find(producer)
        if row is None:
            self._depart([], Amount(0, quantity))  # it was forgotten
        else:
            self._write([row._replace(quantity=number_text(add(parse_number(row.quantity), quantity)))])

    def seal(self) -> None:
        """Everything that is committed is sealed."""
        self._write(
            row._replace(sealed_position=row.position, sealed_events_count=row.events)
            for row in self._select("WHERE sealed_position < position")
        )

    def mark_gone(self, producers: Iterable[bytes], now_s: float) -> None:
        """Note when they went; the first time counts."""
        with self._database.transaction():
            known = self._find_all(set(producers))
            self._write(row._replace(gone_s=now_s) for row in known if row.gone_s is None)

    def record_dropped(self, dropped: Mapping[bytes, Amount]) -> None:
        """Take over cumulative drops of those that are known."""
        with self._database.transaction():
            for row in self._find_all(dropped):
                amount = dropped[row.id]
                if row.dropped != amount:
                    text = number_text(amount.quantity)
                    self._write([row._replace(dropped_events=amount.events, dropped_quantity=text)])

    def forget(self, gone_before_s: float) -> list[bytes]:
        """Merge those that went before then, and are sealed to their end, into the departed."""
        where = "gone_s < ? AND sealed_position = position"
        with self._database.transaction():
            rows = self._select(f"WHERE {where}", (gone_before_s,))
            if rows:
                self._database.delete(schema.PRODUCERS, where, (gone_before_s,))
                self._depart(rows)
            for row in rows:
                self.take_trouble(row.id)
        return [row.id for row in rows]

    def departed(self) -> tuple[int, Amount, Amount]:
        """How many were forgotten, what they committed, what they dropped."""
        rows = self._database.select(schema.DEPARTED)
        if not rows:
            return 0, Amount(), Amount()
        _, count, events, quantity, dropped_events, dropped_quantity = rows[0]
        return (
            count,
            Amount(events, parse_number(quantity)),
            Amount(dropped_events, parse_number(dropped_quantity)),
        )

    def troubles(self) -> dict[bytes, Trouble]:
        """What producers must be told."""
        rows = self._database.select(schema.TROUBLES)
        return {producer: Trouble(start, count, reason) for producer, start, count, reason in rows}

    def put_troubles(self, troubles: Mapping[bytes, Trouble]) -> None:
        """Set what these must be told."""
        with self._database.transaction():
            for producer, trouble in troubles.items():
                self.take_trouble(producer)
                reason = schema.plain_text(trouble.reason)
                self._database.insert(
                    schema.TROUBLES, [(producer, trouble.start, trouble.events_count, reason)]
                )

    def take_trouble(self, producer: bytes) -> None:
        """It was told, or is forgotten."""
        with self._database.transaction():
            self._database.delete(schema.TROUBLES, "producer = ?", (producer,))

    def _depart(self, rows: list[_Row], more: Amount | None = None) -> None:
        count, events, dropped = self.departed()
        events += amount_of([*(row.amount for row in rows), more or Amount()])
        dropped += amount_of(row.dropped for row in rows)
        row = (
            1,
            count + len(rows),
            events.events,
            number_text(events.quantity),
            dropped.events,
            number_text(dropped.quantity),
        )
        self._database.delete(schema.DEPARTED)
        self._database.insert(schema.DEPARTED, [row])

    def _select(self, rest: str, values: Iterable[object] = ()) -> list[_Row]:
        return [_Row(*row) for row in self._database.select(schema.PRODUCERS, rest, values)]

    def _find(self, producer: bytes) -> _Row | None:
        rows = self._select("WHERE id = ?", (producer,))
        return rows[0] if rows else None

    def _find_all(self, producers: Iterable[bytes]) -> list[_Row]:
        rows = (self._find(producer) for producer in producers)
        return [row for row in rows if row is not None]

    def _write(self, rows: Iterable[_Row]) -> None:
        self._database.replace(schema.PRODUCERS, rows)


def _first_row(new: NewProducer, now_s: float) -> _Row:
    return _Row(
        id=new.id,
        position=new.position,
        sealed_position=new.position,
        start_position=new.position,
        events_before=new.events_before,
        name=schema.plain_text(new.name),
        host=schema.plain_text(new.host),
        key_mode=schema.plain_text(new.key_mode),
        is_volatile=int(new.is_volatile),
        is_unseen=int(new.is_unseen),
        seen_s=now_s,
    )


def _public(row: _Row) -> ProducerRow:
    return ProducerRow(
        id=row.id,
        position=row.position,
        sealed_position=row.sealed_position,
        start_position=row.start_position,
        events_before=row.events_before,
        events=row.amount,
        sealed_events_count=row.sealed_events_count,
        name=row.name,
        host=row.host,
        key_mode=row.key_mode,
        is_volatile=bool(row.is_volatile),
        is_unseen=bool(row.is_unseen),
        dropped=row.dropped,
        seen_s=row.seen_s,
        gone_s=row.gone_s,
    )
