"""One process life: a journal, its courier, and what flushes have reported of it so far."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from settle_mp.worker.flushes import FlushRequest
from settle_mp.worker.report import FlushReport
from settle_mp.worker.waiter import Waiter

if TYPE_CHECKING:
    from settle_mp.core.wire import Flushed
    from settle_mp.worker.courier import Courier
    from settle_mp.worker.journal import Journal


#: Stands for "all of them": how many are in a flush's scope is known only when it is reported.
ALL_COUNT: Final = 2**53
#: A flush with less time than this still waits so long for an answer that is ready, in seconds.
ASK_S_MIN: Final = 0.05

_tickets: Final = itertools.count(1)

#: Lives that take the place of every producer's, the last one first: none but in tests of our users'; see
#: `recording`.
stand_ins: Final[list[Life]] = []


def stand_in() -> Life | None:
    """What all producers take for their life at present, if anything."""
    return next(reversed(stand_ins), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one flush is about.

    `count` events before `position`, where `census` events stand in all, and `drops_count` new ones of the
    `drops_census` that were dropped in all.
    """

    position: int
    census: int
    count: int
    drops_census: int
    drops_count: int


class Life:
    """What belongs to this process and to no child of it."""

    def __init__(self, journal: Journal, courier: Courier | None) -> None:
        self.journal = journal
        self.courier = courier
        self._reported = 0
        self._reported_drops = 0
        self._is_waiting = False
        self._late: list[Flushed] = []

    @property
    def is_ours(self) -> bool:
        """False in a child of the process that began it."""
        return self.journal.is_ours

    def scope(self) -> Scope:
        """Everything tracked so far that no flush has reported as confirmed or failed."""
        reported, reported_drops = self._reported, self._reported_drops
        position, census = self.journal.census()
        drops_census = self.journal.header.dropped.dropped_count
        return Scope(
            position=position,
            census=census,
            count=max(0, census - reported),
            drops_census=drops_census,
            drops_count=max(0, drops_census - reported_drops),
        )

    def must_ask(self, scope: Scope) -> bool:
        """Whether only the collector can say how a flush stands."""
        # It may have counted failed events of others as ours, so that none of ours seems to be left.
        return scope.count > 0 or self._is_waiting

    def ask(self, courier: Courier, position: int, timeout_s: float) -> Flushed | None:
        """Wait for the collector's answer to a flush up to a position; None when it does not come in time.

        Raises:
            OSError: When there is nothing to wait with.
        """
        # One step decides between the answer and the end of the time, whichever thread comes first.
        decided: dict[str, Flushed | None] = {}
        with Waiter() as waiter:

            def answered(answer: Flushed) -> None:
                if decided.setdefault("answer", answer) is answer:
                    waiter.notify()
                else:
                    self.hear_late(answer)

            flush = FlushRequest(
                ticket=next(_tickets),
                position=position,
                deadline_s=time.monotonic() + timeout_s,
                answered=answered,
            )
            courier.request(flush)
            waiter.wait(max(timeout_s, ASK_S_MIN))
            return decided.setdefault("answer", None)

    def hear_late(self, answer: Flushed) -> None:
        """An answer came when its flush had given up: what it says has failed is for the next one to tell."""
        if answer.failed_count:
            self._late.append(answer)

    def take_late(self) -> Flushed | None:
        """What answers that came too late have to say, if anything."""
        late, self._late = self._late, []
        if not late:
            return None
        failed_count = sum(answer.failed_count for answer in late)
        return replace(late[-1], unconfirmed_count=ALL_COUNT, failed_count=failed_count)

    def report(self, scope: Scope, answer: Flushed | None, reason: str) -> FlushReport:
        """What to tell the caller of a flush; later flushes leave out what it reports.

        Flushes of other threads may have been answered meanwhile, hence the larger of both words.
        """
        unconfirmed = scope.count if answer is None else min(answer.unconfirmed_count, scope.count)
        failed = 0 if answer is None else min(answer.failed_count, unconfirmed)
        self._is_waiting = answer is None or answer.unconfirmed_count > answer.failed_count
        self._reported = max(self._reported, scope.census - unconfirmed + failed)
        self._reported_drops = max(self._reported_drops, scope.drops_census)
        if scope.drops_count:
            reason = "; ".join(filter(None, [reason, f"{scope.drops_count} events were dropped"]))
        return FlushReport(
            confirmed_count=scope.count - unconfirmed,
            unconfirmed_count=unconfirmed + scope.drops_count,
            reason=reason or None,
        )

    def let_go(self) -> None:
        """Close what a child has inherited; the parent's files and sockets are not touched."""
        self.journal.close()
        if self.courier is not None:
            self.courier.let_go()

    def discard(self) -> None:
        """Remove a life that another one, made at the same moment, has taken the place of."""
        self.journal.discard()
        if self.courier is not None:
            self.courier.let_go()
