"""The books: the buckets an event can be in, and the equations that must hold between them.

Every bucket is kept twice, as rows (one for each thing in it) and as a running total that each change
carries over. A row that goes missing leaves its total behind, so the bucket can be named.

Rule 1: committed = confirmed + pending + in doubt + dead-lettered + discarded, in events and in quantity.
Rule 2: per producer, tracked (counted from its journal) = committed + journaled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from settle_mp.core.fold import add, number_text, subtract

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from settle_mp.core.event import Quantity

#: Where a committed event can be. `discarded` is what an operator moved out of the ledger for good.
BUCKETS: Final = ("confirmed", "pending", "in_doubt", "dead_lettered", "discarded")


@dataclass(frozen=True, slots=True)
class Amount:
    """Events and their quantity."""

    events: int = 0
    quantity: Quantity = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.events + other.events, add(self.quantity, other.quantity))

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.events - other.events, subtract(self.quantity, other.quantity))

    def __str__(self) -> str:
        return f"{self.events} events (quantity {number_text(self.quantity)})"


def amount_of(amounts: Iterable[Amount]) -> Amount:
    """The sum of many."""
    result = Amount()
    for amount in amounts:
        result += amount
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One producer, counted twice: by itself, and by the ledger."""

    name: str
    tracked_events: int
    committed_events: int
    journaled_events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """All that the equations need, each figure from its own rows."""

    rows: Mapping[str, Amount]
    totals: Mapping[str, Amount]
    tallies: tuple[Tally, ...] = ()
    residues: tuple[str, ...] = ()
    journaled: Amount = field(default_factory=Amount)
    dropped: Amount = field(default_factory=Amount)

    def faults(self) -> list[str]:
        """What does not balance, each named; empty when the books balance."""
        return [*self._bucket_faults(), *self._equation_faults(), *self._tally_faults(), *self.residues]

    def _bucket_faults(self) -> Iterable[str]:
        for bucket in ("committed", *BUCKETS):
            total, rows = self.totals.get(bucket), self.rows.get(bucket)
            if total is None:
                yield f"{bucket}: its total is missing"
            if rows is None:
                yield f"{bucket}: its rows are missing"
            if total is not None and rows is not None and total != rows:
                yield f"{bucket}: rows hold {rows}, the total says {total}"

    def _equation_faults(self) -> Iterable[str]:
        inside = amount_of(self.rows.get(bucket, Amount()) for bucket in BUCKETS)
        if inside != self.rows.get("committed", Amount()):
            yield f"committed: {self.rows.get('committed', Amount())} came in, {inside} are accounted for"

    def _tally_faults(self) -> Iterable[str]:
        for tally in self.tallies:
            counted = tally.committed_events + tally.journaled_events
            if counted != tally.tracked_events:
                yield (
                    f"producer {tally.name}: tracked {tally.tracked_events}, committed "
                    f"{tally.committed_events} and journaled {tally.journaled_events}"
                )

    @property
    def tracked(self) -> Amount:
        """Everything whose `track()` returned, dropped events included."""
        return self.rows["committed"] + self.journaled + self.dropped
