"""Which UTC hour each stretch of the journal belongs to, while the courier is awake.

Frames may be sent long after they could be cut (the collector was away), so the hour is noted when it
changes, in the journal too: a time mark is appended, by which the collector tells what it adopts apart.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from settle_mp.core.window import HOUR_S, hour_of

if TYPE_CHECKING:
    from settle_mp.worker.journal import Journal

_FAR = 2**63
#: How soon after an hour's begin we are sure to have looked for all before it to belong to the old hour.
_PROMPT_S = 0.25


class HourMarks:
    """Positions at which a new hour began, as far back as something is not committed."""

    def __init__(self) -> None:
        self._ends: collections.deque[tuple[int, float]] = collections.deque()
        self._now_s = 0.0
        self._seen = 0

    def look(self, now_s: float, journal: Journal) -> None:
        """Note the time; at a new hour (also of a clock that was set back) end the old stretch.

        It ends where the journal stood at the hour's begin: here, when that is just over; where it was seen
        last, when the courier has slept meanwhile, since whatever came then has woken it.
        """
        tail = journal.tail
        if self._now_s and hour_of(now_s) != hour_of(self._now_s):
            self._ends.append((tail if now_s % HOUR_S < _PROMPT_S else self._seen, self._now_s))
            journal.mark(now_s)
        self._now_s, self._seen = now_s, tail

    @staticmethod
    def left_s(now_s: float) -> float:
        """How long the present hour lasts."""
        return HOUR_S - now_s % HOUR_S

    def next_end(self, position: int) -> int:
        """Where the stretch that `position` is in ends; far away when it is the newest."""
        for end, _ in self._ends:
            if position < end:
                return end
        return _FAR

    def time_of(self, position: int) -> float:
        """A time within the hour that `position` belongs to: now, for the newest stretch."""
        for end, last_s in self._ends:
            if position < end:
                return last_s
        return self._now_s

    def forget(self, position: int) -> None:
        """Everything before `position` is committed."""
        while self._ends and self._ends[0][0] <= position:
            self._ends.popleft()
