"""When the courier says hello: at once, and then after growing pauses until the collector answers."""

from __future__ import annotations

import random
from typing import Final

#: The first and the longest pause before another hello, in seconds.
HELLO_S: Final = 1.0
HELLO_S_MAX: Final = 15.0
#: Hellos without any answer after which the connection itself is doubted. When somebody else connects to a
#: ROUTER under our name, libzmq lets go of ours there and closes it nowhere.
UNHEARD_MAX: Final = 5


class Hellos:
    """Times are monotonic seconds.

    Attributes:
        next_s: When the next hello is due, if nothing is heard until then.
    """

    def __init__(self) -> None:
        self.next_s = 0.0
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

    def said(self, now_s: float) -> None:
        """One was sent."""
        # Jitter, or every worker of a host would greet a new collector in the same moment.
        self.next_s = now_s + self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311
        self._pause_s = min(2 * self._pause_s, HELLO_S_MAX)
        self._unheard_count += 1

    def heard(self, now_s: float) -> None:
        """The collector is there: only when it falls silent is it greeted again."""
        self._pause_s = HELLO_S
        self.next_s = now_s + HELLO_S

    def hurry(self, now_s: float) -> None:
        """Somebody wants to know now whether the collector is there."""
        self._pause_s = HELLO_S
        self.next_s = min(self.next_s, now_s)
