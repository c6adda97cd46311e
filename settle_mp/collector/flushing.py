"""Flushes of single workers: who waits for what, and when they are answered.

Rule 1: a flush waits until everything before its position is settled, or until its deadline.
Rule 2: what failed is told at once, and forgotten only after the answer was sent; the same question again
gets the same answer, so that no failure is told to nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.collector.state import State

#: Flushes that wait at once; the oldest one makes room. Each courier asks again for its own.
TICKETS_MAX: Final = 10_000
#: Answers that are kept for couriers that ask again because the answer crossed their question, or was lost.
ANSWERS_MAX: Final = 10_000
#: What stands for "all of them" where events can't be counted: the worker knows how many it asked about.
ALL_COUNT: Final = 2**53

Answers = list[tuple[bytes, wire.Message]]


@dataclass(slots=True)
class Ticket:
    """One producer's flush up to a position, until a time (monotonic)."""

    producer: bytes
    number: int
    position: int
    deadline_s: float


class Flushing:
    """The tickets of all workers' flushes under way."""

    def __init__(
        self, state: State, upstream_reason: Callable[[], str], intake_reason: Callable[[bytes], str]
    ) -> None:
        """Begin with none.

        Args:
            state: Where producers stand.
            upstream_reason: Says what the upstream's trouble is, if any.
            intake_reason: Says why nothing of a producer is taken, if so.
        """
        self._state = state
        self._upstream_reason = upstream_reason
        self._intake_reason = intake_reason
        self._tickets: dict[tuple[bytes, int], Ticket] = {}
        self._answered: dict[tuple[bytes, int], wire.Flushed] = {}
        self._told: list[bytes] = []

    @property
    def wants_commit(self) -> bool:
        """Whether a flush waits for events that are not committed."""
        return any(self._position(each) < each.position for each in self._tickets.values())

    @property
    def wants_seal(self) -> bool:
        """Whether a flush waits for events that are committed and not sealed."""
        members = self._state.members
        return any(
            (member := members.get(each.producer)) is not None
            and member.open_events_count
            and member.sealed_position < each.position
            for each in self._tickets.values()
        )

    def left_s(self, now_s: float) -> float:
        """How long until the first deadline."""
        deadlines = (each.deadline_s for each in self._tickets.values())
        return max(0.0, min(deadlines, default=float("inf")) - now_s)

    def ask(self, flush: wire.Flush, now_s: float) -> Answers:
        """A courier asks, perhaps again."""
        key = (flush.producer, flush.ticket)
        if key in self._answered:
            return [(flush.producer, self._answered[key])]
        if key not in self._tickets and len(self._tickets) >= TICKETS_MAX:
            self._tickets.pop(next(iter(self._tickets)))
        self._tickets[key] = Ticket(flush.producer, flush.ticket, flush.position, now_s + flush.timeout_s)
        return []

    def turn(self, now_s: float) -> Answers:
        """Answer whom nothing more can be told by waiting; call `sent` once the answers are on their way."""
        answers: Answers = []
        for key, ticket in list(self._tickets.items()):
            answer = self._judge(ticket, now_s)
            if answer is not None:
                del self._tickets[key]
                self._keep(key, answer)
                answers.append((ticket.producer, answer))
        return answers

    def sent(self) -> None:
        """Forget the failures that were told.

        Raises:
            LedgerError: They are told again by later flushes: once too often rather than never.
        """
        if not self._told:
            return
        told, self._told = self._told, []
        with self._state.ledger.transaction():
            for producer in told:
                self._state.ledger.take_trouble(producer)

    def _keep(self, key: tuple[bytes, int], answer: wire.Flushed) -> None:
        if len(self._answered) >= ANSWERS_MAX:
            self._answered.pop(next(iter(self._answered)))
        self._answered[key] = answer

    def _position(self, ticket: Ticket) -> int:
        member = self._state.members.get(ticket.producer)
        return -1 if member is None else member.position

    def _judge(self, ticket: Ticket, now_s: float) -> wire.Flushed | None:
        is_over = now_s >= ticket.deadline_s
        member = self._state.members.get(ticket.producer)
        if member is None or member.position < ticket.position:
            reason = self._intake_reason(ticket.producer) or "the collector has not read it all yet"
            return wire.Flushed(ticket.number, 0, ALL_COUNT, 0, reason) if is_over else None
        standing = self._state.seals.standing(
            ticket.producer,
            ticket.position,
            sealed=member.sealed_position,
            open_events_count=member.open_events_count,
        )
        if not standing.is_final and not is_over:
            return None
        if standing.failed_count:
            # No later flush of this turn shall tell it as well.
            self._state.seals.take_trouble(ticket.producer)
            self._told.append(ticket.producer)
        reason = standing.reason
        if standing.unconfirmed_count and not reason:
            reason = self._upstream_reason() or "the upstream has not answered yet"
        return wire.Flushed(ticket.number, 0, standing.unconfirmed_count, standing.failed_count, reason)
