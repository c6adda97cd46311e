"""Host-wide flushes: everything that any worker has tracked, live or dead, heard or silent.

Each live worker is asked how far its journal goes, all journals are read once more, and then it waits until
what that brought is settled. What comes later is not waited for.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.collector.flushing import Answers
    from settle_mp.collector.state import State

#: Commands that wait at once; more are not heard until one has ended, and ask again.
TICKETS_MAX: Final = 100
#: How long workers get to say how far their journals go, in seconds.
ASK_S: Final = 1.0


@dataclass(slots=True)
class HostTicket:
    """A command's flush.

    Attributes:
        request: Ours, by which workers answer: a command's own number may be another's as well.
        scan: Which scan of the journals sees all that was tracked before it.
        positions: How far the journals of the workers go that have answered.
        seal_wanted: The seal that holds the last of it; None until all of it is known.
    """

    identity: bytes
    number: int
    request: int
    scan: int
    asked_s: float
    deadline_s: float
    confirmed_before: int
    failed_before: int
    asked: set[bytes]
    positions: dict[bytes, int] = field(default_factory=dict)
    seal_wanted: int | None = None


class HostFlushing:
    """The host-wide flushes under way."""

    def __init__(
        self, state: State, upstream_reason: Callable[[], str], waiting: Callable[[], list[str]]
    ) -> None:
        """Begin with none.

        Args:
            state: Where producers stand.
            upstream_reason: Says what the upstream's trouble is, if any.
            waiting: Says which journals wait for a person, or can't be read, and why.
        """
        self._state = state
        self._upstream_reason = upstream_reason
        self._waiting = waiting
        self._tickets: dict[tuple[bytes, int], HostTicket] = {}
        self._requests = itertools.count(1)

    @property
    def is_waiting(self) -> bool:
        """Whether any is under way: all journals are read, and all windows sealed at once."""
        return bool(self._tickets)

    def left_s(self, now_s: float) -> float:
        """How long until something is to be decided though nothing came."""
        times = [each.deadline_s for each in self._tickets.values()]
        times += [each.asked_s + ASK_S for each in self._tickets.values() if now_s < each.asked_s + ASK_S]
        return max(0.0, min(times, default=float("inf")) - now_s)

    def ask(
        self, identity: bytes, flush: wire.HostFlush, *, couriers: set[bytes], scan: int, now_s: float
    ) -> Answers:
        """A command asks for everything, perhaps again; returns the questions to the workers.

        Raises:
            LedgerError: It is not taken up.
        """
        key = (identity, flush.ticket)
        if key in self._tickets or len(self._tickets) >= TICKETS_MAX:
            return []
        confirmed, failed = self._totals()
        request = next(self._requests)
        self._tickets[key] = HostTicket(
            identity,
            flush.ticket,
            request,
            scan,
            now_s,
            now_s + flush.timeout_s,
            confirmed_before=confirmed,
            failed_before=failed,
            asked=couriers,
        )
        return [(courier, wire.AskPosition(request)) for courier in couriers]

    def hear(self, answer: wire.Position) -> None:
        """A worker says how far its journal goes."""
        for ticket in self._tickets.values():
            if ticket.request == answer.request:
                ticket.positions[answer.producer] = answer.position

    def look_anew(self) -> None:
        """A seal was written that holds no window: which one holds the last of it is to be found again."""
        for ticket in self._tickets.values():
            ticket.seal_wanted = None

    def turn(self, now_s: float, *, scans_done: int) -> Answers:
        """Answer whom nothing more can be told by waiting.

        Raises:
            LedgerError: Nobody was answered.
        """
        answers: Answers = []
        for key, ticket in list(self._tickets.items()):
            answer = self._judge(ticket, now_s, scans_done)
            if answer is not None:
                del self._tickets[key]
                answers.append((ticket.identity, answer))
        return answers

    def _judge(self, ticket: HostTicket, now_s: float, scans_done: int) -> wire.Flushed | None:
        is_done = self._is_gathered(ticket, now_s, scans_done) and self._is_settled(ticket)
        if not is_done and now_s < ticket.deadline_s:
            return None
        confirmed, failed = self._totals()
        totals = self._state.ledger.totals()
        failed_count = max(0, failed - ticket.failed_before)
        waiting = 0 if is_done else totals["pending"].events + totals["in_doubt"].events
        reasons = []
        if failed_count:
            reasons.append(f"{failed_count} events were refused or are held")
        if not is_done:
            reasons.append(self._upstream_reason() or "not everything was read and confirmed in time")
        reasons += self._waiting()[:3]
        return wire.Flushed(
            ticket.number,
            max(0, confirmed - ticket.confirmed_before),
            max(waiting + failed_count, 1 if reasons else 0),
            failed_count,
            "; ".join(reasons),
        )

    def _is_gathered(self, ticket: HostTicket, now_s: float, scans_done: int) -> bool:
        if scans_done < ticket.scan:
            return False
        members = self._state.members
        silent = [
            courier
            for courier in ticket.asked - ticket.positions.keys()
            if (member := members.get(courier)) is not None and not member.is_gone
        ]
        return not silent or now_s - ticket.asked_s >= ASK_S

    def _is_settled(self, ticket: HostTicket) -> bool:
        """Whether all that was gathered is confirmed; what came since is not waited for."""
        state = self._state
        if ticket.seal_wanted is None:
            ticket.seal_wanted = state.seal_number + (1 if state.windows else 0)
        if any(self._is_behind(producer, position) for producer, position in ticket.positions.items()):
            # What is still to come is in a later seal.
            ticket.seal_wanted = None
            return False
        return state.seal_number >= ticket.seal_wanted and not state.seals.is_waiting(ticket.seal_wanted)

    def _is_behind(self, producer: bytes, position: int) -> bool:
        member = self._state.members.get(producer)
        if member is None or member.position < position:
            return True
        # Records that are no events, time marks, are in no seal.
        return member.sealed_position < position and member.open_events_count > 0

    def _totals(self) -> tuple[int, int]:
        totals = self._state.ledger.totals()
        held = self._state.ledger.outbox.amounts().get("held")
        failed = totals["dead_lettered"].events + (held[1].events if held else 0)
        return totals["confirmed"].events, failed
