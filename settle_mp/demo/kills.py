"""The kills: what dies while requests are served, and how the collector comes back.

Rule 1: only a process that is in gunicorn's group now is killed as a worker; a number may have passed on to
somebody else's process.
Rule 2: nothing here waits: requests go on, and `turn` is called again.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.demo.house import House
    from settle_mp.demo.load import Load
    from settle_mp.demo.screen import Screen

#: When a worker, the collector and another worker are killed, in parts of all requests.
WORKER_AT: Final = 0.25
COLLECTOR_AT: Final = 0.45
OTHER_WORKER_AT: Final = 0.75
#: How long the collector stays dead, in seconds: long enough for events to pile up.
DEAD_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Killed:
    """A collector that was killed, and how many requests had ended by then."""

    at_s: float
    ended_count: int
    is_next_started: bool = False


class Kills:
    """Kills as the requests go on.

    Args:
        house: Where everything runs.
        load: Tells how far the requests are, and which workers answer them.
        screen: Gets a line for each kill.
        requests_count: How many requests there are.
    """

    def __init__(self, house: House, load: Load, screen: Screen, requests_count: int) -> None:
        self._house = house
        self._load = load
        self._screen = screen
        self._strikes: deque[tuple[float, Callable[[], bool]]] = deque(
            [
                (WORKER_AT * requests_count, self._kill_worker),
                (COLLECTOR_AT * requests_count, self._kill_collector),
                (OTHER_WORKER_AT * requests_count, self._kill_worker),
            ]
        )
        self._killed_workers: set[int] = set()
        #: None while a collector collects.
        self._killed_collector: _Killed | None = None

    def turn(self) -> bool:
        """Kill what is due; gives whether all kills are done and a collector collects."""
        if self._strikes:
            at_count, strike = self._strikes[0]
            if self._load.ended_count >= at_count and strike():
                self._strikes.popleft()
        return self._is_collector_back() and not self._strikes

    @property
    def state(self) -> object:
        """Something that changes whenever anything happens here."""
        return len(self._strikes), self._killed_collector

    def _kill_worker(self) -> bool:
        """Kill a worker; gives whether there was one."""
        gunicorn = self._house.gunicorn
        seen = self._load.busy_workers
        # When all requests have ended, those who answered the last of them may have been recycled already.
        candidates = [*seen, self._load.ask_worker()] if self._load.is_done else seen
        unharmed = (pid for pid in candidates if pid not in self._killed_workers)
        victim = next((pid for pid in unharmed if gunicorn.has_member(pid)), None)
        if victim is None:
            return False
        os.kill(victim, signal.SIGKILL)
        self._killed_workers.add(victim)
        self._screen.note(f"kill -9 {victim}: a worker, amid its requests", "red")
        return True

    def _kill_collector(self) -> bool:
        pid = self._house.kill_collector()
        self._killed_collector = _Killed(at_s=time.monotonic(), ended_count=self._load.ended_count)
        self._screen.note(f"kill -9 {pid}: the collector; events wait in mapped files", "red")
        return True

    def _is_collector_back(self) -> bool:
        """Start the next collector when it is time; gives whether one collects."""
        killed, house = self._killed_collector, self._house
        if killed is None:
            return True
        if not killed.is_next_started:
            if time.monotonic() > killed.at_s + DEAD_S:
                house.start_collector()
                self._killed_collector = replace(killed, is_next_started=True)
            return False
        if not house.is_collecting:
            return False
        self._killed_collector = None
        later = f"{self._load.ended_count - killed.ended_count:,} requests later"
        self._screen.note(f"the collector is back (pid {house.collector.pid}), {later}", "green")
        return True
