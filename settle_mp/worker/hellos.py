"""What the courier says of its journal, and when: at once, then after growing pauses until it is answered."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from settle_mp.core import wire

if TYPE_CHECKING:
    from settle_mp.worker.journal import Journal

#: The first and the longest pause before another hello, in seconds.
HELLO_S: Final = 1.0
HELLO_S_MAX: Final = 15.0
#: Hellos without any answer after which the connection itself is doubted. When somebody else connects to a
#: ROUTER under our name, libzmq lets go of ours there and closes it nowhere.
UNHEARD_MAX: Final = 5
#: How often an idle producer says hello all the same, in seconds: one that is silent for weeks is forgotten.
REMIND_S: Final = 12 * 3600.0


def hello(journal: Journal) -> wire.Hello:
    """Here I am, and this is my header."""
    return wire.Hello(journal.producer, journal.tail, journal.header.image, journal.is_volatile)


def goodbye(journal: Journal) -> wire.Goodbye:
    """I end; what was in memory ends with me."""
    dropped = journal.header.dropped
    return wire.Goodbye(
        journal.producer,
        journal.tail,
        dropped.dropped_count,
        dropped.dropped_quantity,
        is_over=journal.is_volatile,
    )


class Hellos:
    """Times are monotonic seconds.

    Attributes:
        next_s: When the next hello is due, if nothing is heard until then.
    """

    def __init__(self) -> None:
        self.next_s: float = 0.0
        self._said_s = 0.0
        self._drops_said = self._drops_told = 0
        self._pause_s = HELLO_S
        self._unheard_count = 0

    @property
    def is_unheard(self) -> bool:
        """Whether a new connection should be tried."""
        return self._unheard_count >= UNHEARD_MAX

    def connected(self) -> None:
        """There is a new connection: say hello at once, and then as often as before."""
        self.next_s = 0.0
        self._unheard_count = 0

    def answered(self) -> None:
        """Something came from the collector, be it a refusal."""
        self._unheard_count = 0

    def said(self, now_s: float, drops_count: int = 0) -> None:
        """One was sent, with so many drops in its header."""
        self._said_s, self._drops_said = now_s, drops_count
        # Jitter, or every worker of a host would greet a new collector in the same moment.
        self.next_s = now_s + self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311
        self._pause_s = min(2 * self._pause_s, HELLO_S_MAX)
        self._unheard_count += 1

    def welcomed(self) -> None:
        """It was answered, so its header was read."""
        self._drops_told = self._drops_said

    def has_news(self, now_s: float, drops_count: int) -> bool:
        """Whether a producer that the collector can't see has something to tell, if only that it lives."""
        return drops_count != self._drops_told or now_s - self._said_s > REMIND_S

    def heard(self, now_s: float) -> None:
        """The collector is there: only when it falls silent is it greeted again."""
        self._pause_s = HELLO_S
        self.next_s = now_s + HELLO_S

    def hurry(self, now_s: float) -> None:
        """Somebody wants to know now whether the collector is there."""
        self._pause_s = HELLO_S
        self.next_s = min(self.next_s, now_s)
