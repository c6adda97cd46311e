"""Seals and families: which batches belong together, and how much of them is still open.

Rule 1: a seal's row goes with its last batch; held ones keep it, since a person may still settle them.
Rule 2: a family has a row only once it was divided, suspected, held or regrouped; it goes with its last
member. A batch without one is a family of its own of which nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgpack

from settle_mp.collector import schema
from settle_mp.core.family import Family
from settle_mp.core.ticket import Reach, Seal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from settle_mp.collector.batches import BatchRow
    from settle_mp.collector.database import Database


class Seals:
    """The table of seals."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, number: int, batches_count: int, reaches: Mapping[bytes, Reach]) -> None:
        """Write a new seal."""
        packed = msgpack.packb(
            [(producer, reach.start, reach.end, reach.events_count) for producer, reach in reaches.items()]
        )
        self._database.insert(schema.SEALS, [(number, batches_count, 0, packed)])

    def change(self, number: int, *, by: int = 0, failed_count: int = 0) -> None:
        """Count batches that came or went, and events of it that failed."""
        rows = self._database.select(schema.SEALS, "WHERE number = ?", (number,))
        if not rows:
            return  # by other hands than ours; `row_counts` tells
        _, batches_count, failed_before, reaches = rows[0]
        if batches_count + by > 0:
            row = (number, batches_count + by, failed_before + failed_count, reaches)
            self._database.replace(schema.SEALS, [row])
        else:
            self._database.delete(schema.SEALS, "number = ?", (number,))

    def select(self, rest: str, values: Iterable[object], unsettled: Mapping[int, set[int]]) -> list[Seal]:
        """Seals by the rest of a query; `unsettled` are the batches of each that a flush waits for."""
        return [
            Seal(number, _reaches(reaches), set(unsettled.get(number, ())), failed_count)
            for number, _, failed_count, reaches in self._database.select(schema.SEALS, rest, values)
        ]


def _reaches(packed: bytes) -> dict[bytes, Reach]:
    return {producer: Reach(start, end, count) for producer, start, end, count in msgpack.unpackb(packed)}


class FamilyRow(NamedTuple):
    """A row of `families`, in the order of its columns.

    `settled_mark` is how many batches had ever been settled when its rows were regrouped.
    """

    root: int
    rows_count: int
    accepted_count: int = 0
    refused_count: int = 0
    held_count: int = 0
    rounds_count: int = 0
    settled_mark: int = 0
    members_count: int = 1


class Families:
    """The table of families."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, root: int) -> Family:
        """What is known of a family; all zeros when there is no row of it."""
        row = self._find(root) or FamilyRow(root, 0)
        return Family(
            rows_count=row.rows_count,
            accepted_count=row.accepted_count,
            refused_count=row.refused_count,
            held_count=row.held_count,
            rounds_count=row.rounds_count,
            is_upstream_accepting=self.settled_count > row.settled_mark,
        )

    @property
    def settled_count(self) -> int:
        """How many batches were ever settled."""
        return int(self._database.meta("settled_count"))

    def settle(self, batch: BatchRow) -> None:
        """A member was accepted, and goes."""
        self._database.next_number("settled_count")
        row = self._find(batch.root)
        if row is not None:
            accepted_count = row.accepted_count + batch.rows_count
            self._write(row._replace(accepted_count=accepted_count, members_count=row.members_count - 1))

    def suspect(self, batch: BatchRow) -> None:
        """A member is put aside."""
        row = self._take_up(batch)
        self._write(row._replace(refused_count=row.refused_count + batch.rows_count))

    def hold(self, batch: BatchRow) -> None:
        """A member is held."""
        row = self._take_up(batch)
        self._write(row._replace(held_count=row.held_count + batch.rows_count))

    def order(self, batch: BatchRow) -> None:
        """A held member is to be sent again."""
        row = self._take_up(batch)
        self._write(row._replace(held_count=row.held_count - batch.rows_count))

    def discard(self, batch: BatchRow) -> None:
        """A held member goes, and nobody knows whether it was accepted."""
        self._leave(batch.root, 1, 0)

    def divide(self, batch: BatchRow, children_count: int) -> None:
        """A member is replaced by several."""
        row = self._take_up(batch)
        self._write(row._replace(members_count=row.members_count - 1 + children_count))

    def bury(self, batch: BatchRow) -> None:
        """A member becomes a dead letter."""
        self._leave(batch.root, 1, batch.rows_count if batch.state == "suspect" else 0)

    def regroup(self, root: int, new: BatchRow) -> None:
        """Suspects of a family become a new one, which remembers how often."""
        before = self._find(root)
        rounds_count = (before.rounds_count if before else 0) + 1
        row = FamilyRow(new.root, new.rows_count, rounds_count=rounds_count, settled_mark=self.settled_count)
        self._database.insert(schema.FAMILIES, [row])
        # A suspect is a single row.
        self._leave(root, new.rows_count, new.rows_count)

    def _leave(self, root: int, members_count: int, suspects_count: int) -> None:
        row = self._find(root)
        if row is not None:
            self._write(
                row._replace(
                    refused_count=row.refused_count - suspects_count,
                    members_count=row.members_count - members_count,
                )
            )

    def _find(self, root: int) -> FamilyRow | None:
        rows = self._database.select(schema.FAMILIES, "WHERE root = ?", (root,))
        return FamilyRow(*rows[0]) if rows else None

    def _take_up(self, batch: BatchRow) -> FamilyRow:
        row = self._find(batch.root)
        if row is None:
            row = FamilyRow(batch.root, batch.rows_count)
            self._database.insert(schema.FAMILIES, [row])
        return row

    def _write(self, row: FamilyRow) -> None:
        if row.members_count > 0:
            self._database.replace(schema.FAMILIES, [row])
        else:
            self._database.delete(schema.FAMILIES, "root = ?", (row.root,))
