"""Dead letters: what was refused for good, kept until a person has looked at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from settle_mp.collector import accounts, schema
from settle_mp.core.books import Amount
from settle_mp.core.fold import parse_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from settle_mp.collector.batches import BatchRow
    from settle_mp.collector.database import Database
    from settle_mp.collector.frames import Intake
    from settle_mp.core.event import Quantity


#: The counter of the highest id that was taken away.
_LAST_ID: Final = "last_dead_letter_taken"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What was refused for good: one event at intake, or a batch (of one row) by the upstream.

    `payload` is the packed event, or the batch's body. `producer` is empty for a batch.
    """

    id: int
    origin: Literal["event", "batch"]
    producer: bytes
    hour: int
    reason: str
    at_s: float
    events_count: int
    quantity: Quantity
    payload: bytes

    @property
    def amount(self) -> Amount:
        """What it holds; the quantity of a single event is not known, and counted as 0."""
        return Amount(self.events_count, self.quantity)


class DeadLetters:
    """The table of dead letters."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def last_id(self) -> int:
        """The highest id that any ever had: what a person has written down must not become another's."""
        there = self._database.value("SELECT COALESCE(MAX(id), 0) FROM dead_letters")
        return max(int(there), accounts.counters(self._database).get(_LAST_ID, 0))

    def add_invalid(self, intakes: Iterable[Intake], now_s: float) -> None:
        """Keep the events that were refused at intake; nobody knows their quantities."""
        rows = [
            ("event", intake.producer, intake.hour, schema.plain_text(reason), now_s, 1, "0", payload)
            for intake in intakes
            for _, payload, reason in intake.invalid
        ]
        if rows:
            self._database.insert_numbered(schema.DEAD_LETTERS, self.last_id + 1, rows)
            accounts.carry(self._database, "dead_lettered", Amount(len(rows)))

    def add_batch(self, batch: BatchRow, body: bytes, reason: str, now_s: float) -> None:
        """Keep a batch that the upstream refused."""
        text = schema.plain_text(reason)
        row = ("batch", b"", batch.hour, text, now_s, batch.events, batch.quantity, body)
        self._database.insert_numbered(schema.DEAD_LETTERS, self.last_id + 1, [row])
        accounts.move(self._database, batch.bucket, "dead_lettered", batch.amount)

    def find(self, letter_id: int) -> DeadLetter:
        """One dead letter.

        Raises:
            LookupError: There is none.
        """
        rows = self._database.select(schema.DEAD_LETTERS, "WHERE id = ?", (letter_id,))
        if not rows:
            msg = f"there is no dead letter {letter_id}"
            raise LookupError(msg)
        return _read(rows[0])

    def take(self, letter: DeadLetter, target: str) -> None:
        """Take one away; what it holds goes to another bucket."""
        accounts.move(self._database, "dead_lettered", target, letter.amount)
        if letter.id == self.last_id:
            accounts.set_counter(self._database, _LAST_ID, letter.id)
        self._database.delete(schema.DEAD_LETTERS, "id = ?", (letter.id,))

    def read(self, limit: int, after: int) -> list[DeadLetter]:
        """Dead letters in the order in which they came."""
        rows = self._database.select(schema.DEAD_LETTERS, "WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        return [_read(row) for row in rows]


def _read(row: tuple[Any, ...]) -> DeadLetter:
    return DeadLetter(
        id=row[0],
        origin=row[1],
        producer=row[2],
        hour=row[3],
        reason=row[4],
        at_s=row[5],
        events_count=row[6],
        quantity=parse_number(row[7]),
        payload=row[8],
    )
