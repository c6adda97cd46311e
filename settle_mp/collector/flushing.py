"""Flushes: who waits for what, and when they are answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.collector.state import State

#: Flushes that wait at once; the oldest one makes room. Each courier asks again for its own.
TICKETS_MAX: Final = 10_000
#: How long a host-wide flush waits for workers to say how far their journals go, in seconds.
ASK_S: Final = 1.0

Answers = list[tuple[bytes, wire.Message]]


@dataclass(slots=True)
class Ticket:
    """One producer's flush up to a position, until a time (monotonic)."""

    producer: bytes
    number: int
    position: int
    deadline_s: float


@dataclass(slots=True)
class HostTicket:
    """A flush of everything on this host; `positions` are those of the workers that have answered."""

    identity: bytes
    number: int
    asked_s: float
    deadline_s: float
    confirmed_before: int
    failed_before: int
    asked: set[bytes] = field(default_factory=set)
    positions: dict[bytes, int] = field(default_factory=dict)
    is_read: bool = False
    seal_wanted: int | None = None


class Flushing:
    """The tickets of all flushes under way."""

    def __init__(self, state: State, reason: Callable[[], str]) -> None:
        """`reason` says what the upstream's trouble is, if any."""
        self._state = state
        self._reason = reason
        self._tickets: dict[tuple[bytes, int], Ticket] = {}
        self._hosts: dict[tuple[bytes, int], HostTicket] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether open windows should be sealed at once."""
        return bool(self._tickets) or bool(self._hosts)

    @property
    def is_host_waiting(self) -> bool:
        """Whether all journals should be read at once."""
        return bool(self._hosts)

    def left_s(self, now_s: float) -> float:
        """How long until the first deadline."""
        deadlines = [each.deadline_s for each in self._tickets.values()]
        deadlines += [each.deadline_s for each in self._hosts.values()]
        return max(0.0, min(deadlines, default=float("inf")) - now_s)

    def ask(self, flush: wire.Flush, now_s: float) -> None:
        """A courier asks, perhaps again."""
        key = (flush.producer, flush.ticket)
        if len(self._tickets) >= TICKETS_MAX:
            self._tickets.pop(next(iter(self._tickets)))
        self._tickets[key] = Ticket(flush.producer, flush.ticket, flush.position, now_s + flush.timeout_s)

    def ask_host(self, identity: bytes, flush: wire.HostFlush, couriers: set[bytes], now_s: float) -> Answers:
        """A command asks for everything; returns the questions to the workers."""
        key = (identity, flush.ticket)
        if key in self._hosts or len(self._hosts) >= TICKETS_MAX:
            return []
        confirmed, failed = self._totals()
        self._hosts[key] = HostTicket(
            identity,
            flush.ticket,
            now_s,
            now_s + flush.timeout_s,
            confirmed_before=confirmed,
            failed_before=failed,
            asked=set(couriers),
        )
        return [(courier, wire.AskPosition(flush.ticket)) for courier in couriers]

    def hear(self, answer: wire.Position) -> None:
        """A worker says how far its journal goes."""
        for ticket in self._hosts.values():
            if ticket.number == answer.request:
                ticket.positions[answer.producer] = answer.position

    def turn(self, now_s: float, *, are_journals_read: bool) -> Answers:
        """Answer whom nothing more can be told by waiting.

        Raises:
            LedgerError: Nothing was answered.
        """
        answers: Answers = []
        for key, ticket in list(self._tickets.items()):
            answer = self._judge(ticket, now_s)
            if answer is not None:
                del self._tickets[key]
                answers.append((ticket.producer, answer))
        for key, host in list(self._hosts.items()):
            host.is_read = host.is_read or are_journals_read
            host_answer = self._judge_host(host, now_s)
            if host_answer is not None:
                del self._hosts[key]
                answers.append((host.identity, host_answer))
        return answers

    def _judge(self, ticket: Ticket, now_s: float) -> wire.Flushed | None:
        member = self._state.members.get(ticket.producer)
        if member is None or member.position < ticket.position:
            if now_s < ticket.deadline_s:
                return None
            unsettled = 0 if member is None else member.open_events_count
            return wire.Flushed(
                ticket.number, 0, max(1, unsettled), 0, "the collector has not read it all yet"
            )
        standing = self._state.seals.standing(
            ticket.producer,
            ticket.position,
            sealed=member.sealed_position,
            open_events_count=member.open_events_count,
        )
        if not standing.is_final and now_s < ticket.deadline_s:
            return None
        if standing.failed_count:
            self._state.ledger.take_trouble(ticket.producer)
            self._state.seals.take_trouble(ticket.producer)
        reason = standing.reason
        if standing.unconfirmed_count and not reason:
            reason = self._reason() or "the upstream has not answered yet"
        return wire.Flushed(ticket.number, 0, standing.unconfirmed_count, standing.failed_count, reason)

    def _judge_host(self, ticket: HostTicket, now_s: float) -> wire.Flushed | None:
        is_done = self._is_gathered(ticket, now_s) and self._is_settled(ticket)
        if not is_done and now_s < ticket.deadline_s:
            return None
        confirmed, failed = self._totals()
        totals = self._state.ledger.totals()
        failed_count = max(0, failed - ticket.failed_before)
        waiting = 0 if is_done else totals["pending"].events + totals["in_doubt"].events
        reason = ""
        if failed_count:
            reason = f"{failed_count} events were refused or are held"
        elif not is_done:
            reason = self._reason() or "not everything was read and confirmed in time"
        return wire.Flushed(
            ticket.number,
            max(0, confirmed - ticket.confirmed_before),
            waiting + failed_count,
            failed_count,
            reason,
        )

    def _is_gathered(self, ticket: HostTicket, now_s: float) -> bool:
        has_heard_all = ticket.asked <= ticket.positions.keys() or now_s - ticket.asked_s >= ASK_S
        return has_heard_all and ticket.is_read

    def _is_settled(self, ticket: HostTicket) -> bool:
        """Whether all that was gathered is confirmed; what came since is not waited for."""
        state = self._state
        if ticket.seal_wanted is None:
            ticket.seal_wanted = state.seal_number + (1 if state.windows else 0)
        behind = [
            producer
            for producer, position in ticket.positions.items()
            if (member := state.members.get(producer)) is None or member.sealed_position < position
        ]
        return (
            not behind
            and state.seal_number >= ticket.seal_wanted
            and not state.seals.is_waiting(ticket.seal_wanted)
        )

    def _totals(self) -> tuple[int, int]:
        totals = self._state.ledger.totals()
        held = self._state.ledger.outbox.amounts().get("held")
        failed = totals["dead_lettered"].events + (held[1].events if held else 0)
        return totals["confirmed"].events, failed
