"""Flushes on their way: asked for again and again, until they are answered or their time is up.

A collector that heard one may be gone; the next one hears it within `ASK_AGAIN_S`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How often a flush is asked for, in seconds.
ASK_AGAIN_S: Final = 0.5
#: What the collector's answer gets of a flush's time to arrive in, and at most, in seconds: on a busy host
#: each of the threads that it goes through waits for its turn, and late it could not say why.
ARRIVAL_SHARE: Final = 0.1
ARRIVAL_S_MAX: Final = 0.2


@dataclass(slots=True)
class FlushRequest:
    """A flush; `answered` is called once with the collector's answer. Times are monotonic."""

    ticket: int
    position: int
    deadline_s: float
    answered: Callable[[wire.Flushed], None]
    asked_s: float = float("-inf")


class Flushes:
    """The flushes of one producer that wait for an answer."""

    def __init__(self, producer: bytes) -> None:
        self._producer = producer
        self._waiting: dict[int, FlushRequest] = {}

    def add(self, flush: FlushRequest) -> None:
        """Begin to ask for a flush."""
        self._waiting[flush.ticket] = flush

    def questions(self, now_s: float) -> Iterator[wire.Flush]:
        """What is to be asked now. A flush whose time is up is asked for no more."""
        for flush in list(self._waiting.values()):
            left_s = flush.deadline_s - now_s
            if left_s <= -ASK_AGAIN_S:
                del self._waiting[flush.ticket]
            elif now_s - flush.asked_s >= ASK_AGAIN_S:
                flush.asked_s = now_s
                yield wire.Flush(self._producer, flush.ticket, flush.position, _earlier(left_s))

    def left_s(self, now_s: float) -> float:
        """How long nothing is to be asked."""
        return (
            min((each.asked_s + ASK_AGAIN_S for each in self._waiting.values()), default=float("inf")) - now_s
        )

    def answer(self, answer: wire.Flushed) -> None:
        """Tell whoever waits, if anybody does."""
        flush = self._waiting.pop(answer.ticket, None)
        if flush is not None:
            flush.answered(answer)


def _earlier(left_s: float) -> float:
    """A deadline for the collector that leaves its answer time to arrive before ours."""
    return max(0.0, left_s - min(ARRIVAL_S_MAX, ARRIVAL_SHARE * left_s))
