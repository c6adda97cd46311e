"""The producers that the ledger knows: how far each is committed and sealed, and what each must be told.

Rule L3: a producer begins at the position that its header gives, and nothing before it is taken.
Rule L4: it is forgotten only when it went long ago and everything of it is sealed; what it committed stays
in the one row of the departed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

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
        is_volatile: Whether it has no folder that anybody sees.
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
    dropped: Amount = field(default_factory=Amount)
    seen_s: float = 0.0
    gone_s: float | None = None

    @property
    def open_events_count(self) -> int:
        """Committed events that no seal holds yet."""
        return self.events.events - self.sealed_events_count


class _Advance:
    """How far the runs of one commit bring one producer."""

    def __init__(self, row: ProducerRow) -> None:
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

    def result(self, now_s: float) -> ProducerRow:
        return replace(
            self._row,
            position=self._position,
            events=self._row.events + self.amount,
            sealed_events_count=self._row.sealed_events_count + self._invalid_count,
            seen_s=now_s,
            gone_s=None,
        )


class Roster:
    """The tables of producers and of what they must be told."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> dict[bytes, ProducerRow]:
        """Every producer that is not forgotten."""
        return {row[0]: _read(row) for row in self._database.select(schema.PRODUCERS)}

    def introduce(self, producers: Iterable[NewProducer], now_s: float) -> None:
        """Make rows for those that have none; take back that the others went."""
        with self._database.transaction(is_intake=True):
            for new in producers:
                known = self._find(new.id)
                if known is None:
                    self._database.insert(schema.PRODUCERS, [_written(_first_row(new, now_s))])
                elif known.gone_s is not None:
                    self._write([replace(known, gone_s=None)])

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

    def seal(self) -> None:
        """Everything that is committed is sealed."""
        rows = self._database.select(schema.PRODUCERS, "WHERE sealed_position < position")
        open_rows = [_read(row) for row in rows]
        self._write(
            replace(row, sealed_position=row.position, sealed_events_count=row.events.events)
            for row in open_rows
        )

    def mark_gone(self, producers: Iterable[bytes], now_s: float) -> None:
        """Note when they went; the first time counts."""
        with self._database.transaction():
            known = self._find_all(set(producers))
            self._write(replace(row, gone_s=now_s) for row in known if row.gone_s is None)

    def record_dropped(self, dropped: Mapping[bytes, Amount]) -> None:
        """Take over cumulative drops of those that are known."""
        with self._database.transaction():
            known = self._find_all(dropped)
            self._write(
                replace(row, dropped=dropped[row.id]) for row in known if row.dropped != dropped[row.id]
            )

    def forget(self, gone_before_s: float) -> list[bytes]:
        """Merge those that went before then, and are sealed to their end, into the departed."""
        where = "gone_s < ? AND sealed_position = position"
        with self._database.transaction():
            found = self._database.select(schema.PRODUCERS, f"WHERE {where}", (gone_before_s,))
            rows = [_read(row) for row in found]
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

    def _depart(self, rows: list[ProducerRow]) -> None:
        count, events, dropped = self.departed()
        events += amount_of(row.events for row in rows)
        dropped += amount_of(row.dropped for row in rows)
        row = (
            1,
            count + len(rows),
            events.events,
            number_text(events.quantity),
            dropped.events,
            number_text(dropped.quantity),
        )
        if count:
            self._database.replace(schema.DEPARTED, [row])
        else:
            self._database.insert(schema.DEPARTED, [row])

    def _find(self, producer: bytes) -> ProducerRow | None:
        rows = self._database.select(schema.PRODUCERS, "WHERE id = ?", (producer,))
        return _read(rows[0]) if rows else None

    def _find_all(self, producers: Iterable[bytes]) -> list[ProducerRow]:
        rows = (self._find(producer) for producer in producers)
        return [row for row in rows if row is not None]

    def _write(self, rows: Iterable[ProducerRow]) -> None:
        self._database.replace(schema.PRODUCERS, [_written(row) for row in rows])


def _first_row(new: NewProducer, now_s: float) -> ProducerRow:
    return ProducerRow(
        id=new.id,
        position=new.position,
        sealed_position=new.position,
        start_position=new.position,
        events_before=new.events_before,
        name=schema.plain_text(new.name),
        host=schema.plain_text(new.host),
        key_mode=schema.plain_text(new.key_mode),
        is_volatile=new.is_volatile,
        seen_s=now_s,
    )


def _written(row: ProducerRow) -> tuple[Any, ...]:
    return (
        row.id,
        row.position,
        row.sealed_position,
        row.start_position,
        row.events_before,
        row.events.events,
        number_text(row.events.quantity),
        row.sealed_events_count,
        row.name,
        row.host,
        row.key_mode,
        int(row.is_volatile),
        row.dropped.events,
        number_text(row.dropped.quantity),
        row.seen_s,
        row.gone_s,
    )


def _read(row: tuple[Any, ...]) -> ProducerRow:
    return ProducerRow(
        id=row[0],
        position=row[1],
        sealed_position=row[2],
        start_position=row[3],
        events_before=row[4],
        events=Amount(row[5], parse_number(row[6])),
        sealed_events_count=row[7],
        name=row[8],
        host=row[9],
        key_mode=row[10],
        is_volatile=bool(row[11]),
        dropped=Amount(row[12], parse_number(row[13])),
        seen_s=row[14],
        gone_s=row[15],
    )
