"""Flush tickets: which sealed batches a producer's flush still waits for, and what went wrong for it.

Rule 1: a ticket waits for the seals that hold something from before its position, and for no later one,
so that a busy host starves nobody.
Rule 2: what was refused or is held is told to each producer that the batch covers once, then forgotten.
Rule 3: who tracked which event of a sum is not kept: a flush may count too many as failed or waiting, never
too few; what one flush was told has failed, later ones count no more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Reach:
    """What a seal holds of one producer: its positions from `start` to `end`, and how many events."""

    start: int
    end: int
    events_count: int


@dataclass(slots=True)
class Seal:
    """One sealing of the open windows: whom it covers, and which of its batches are not settled yet."""

    number: int
    reaches: Mapping[bytes, Reach]
    batches: set[int] = field(default_factory=set)
    #: Events of its batches that were dead-lettered or are held.
    failed_count: int = 0

    def waiting_count(self, producer: bytes) -> int:
        """The events of a producer that may be in the unsettled batches, those told as failed left out."""
        reach = self.reaches.get(producer)
        if reach is None or not reach.events_count:
            return 0
        # At least one: those that failed may have been another producer's.
        return max(1, reach.events_count - self.failed_count)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a producer's next flush must say: some of its events failed, and why."""

    start: int
    events_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How a flush stands: settled when nothing is unconfirmed, final when waiting can't change it."""

    unconfirmed_count: int
    failed_count: int
    reason: str

    @property
    def is_final(self) -> bool:
        """Whether the flush can be answered before its deadline."""
        return self.failed_count > 0 or not (self.unconfirmed_count or self.reason)


class SealBook:
    """The seals with unsettled batches, and the troubles not yet told."""

    def __init__(self) -> None:
        self._seals: dict[int, Seal] = {}
        self.troubles: dict[bytes, Trouble] = {}

    def add(self, seal: Seal) -> None:
        """Take up a seal that was just written, or read back at start."""
        if seal.batches:
            self._seals[seal.number] = seal

    def replace_batch(self, number: int, batch: int, children: set[int]) -> None:
        """A batch was split, bisected or given a new key: its children stand for it."""
        seal = self._seals.get(number)
        if seal is not None and batch in seal.batches:
            seal.batches |= children
            self.settle(number, batch)

    def settle(self, number: int, batch: int, *, failed_count: int = 0) -> bool:
        """A batch needs no more waiting for. Returns whether its whole seal is done.

        Args:
            number: Of the batch's seal.
            batch: Which one.
            failed_count: How many events it held, when it was dead-lettered or is held.
        """
        seal = self._seals.get(number)
        if seal is None:
            return True
        seal.batches.discard(batch)
        seal.failed_count += failed_count
        if seal.batches:
            return False
        del self._seals[number]
        return True

    def troubled_by(self, number: int, events_count: int, reason: str) -> dict[bytes, Trouble]:
        """The troubles that a failed batch of a seal makes, one for each producer that the seal covers.

        Ask before the batch is settled, and put the answer into `troubles` before asking for the next batch:
        it holds what a producer was to be told already.
        """
        seal = self._seals.get(number)
        if seal is None:
            return {}
        troubles: dict[bytes, Trouble] = {}
        for producer, reach in seal.reaches.items():
            count = min(events_count, seal.waiting_count(producer))
            if count:
                known = self.troubles.get(producer, Trouble(reach.start, 0, reason))
                start = min(reach.start, known.start)
                troubles[producer] = Trouble(start, known.events_count + count, reason)
        return troubles

    def standing(self, producer: bytes, position: int, *, sealed: int, open_events_count: int) -> Standing:
        """How a flush up to `position` stands, when all of that is committed.

        Args:
            producer: Who flushes.
            position: Up to where.
            sealed: Up to which position the producer's events are sealed.
            open_events_count: Its committed events that are not sealed.
        """
        trouble = self.troubles.get(producer)
        failed_count = trouble.events_count if trouble and trouble.start < position else 0
        waiting = sum(seal.waiting_count(producer) for seal in self._waited_for(producer, position))
        if sealed < position:
            waiting += open_events_count
        reason = trouble.reason if trouble and failed_count else ""
        return Standing(waiting + failed_count, failed_count, reason)

    def take_trouble(self, producer: bytes) -> None:
        """The producer was told; later flushes are about later events."""
        self.troubles.pop(producer, None)

    def is_waiting(self, numbers_up_to: int) -> bool:
        """Whether any seal up to a number still has unsettled batches."""
        return any(number <= numbers_up_to for number in self._seals)

    def _waited_for(self, producer: bytes, position: int) -> list[Seal]:
        return [
            seal
            for seal in self._seals.values()
            if producer in seal.reaches and seal.reaches[producer].start < position
        ]
