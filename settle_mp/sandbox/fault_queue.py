"""The fault queue: which request meets which fault, and the requests that a fault holds.

Rule 1: a request meets at most one fault, the first of the queue that matches it.
Rule 2: a fault is counted down when it is met, so `times=3` spoils exactly three requests.
Rule 3: a held request goes on as soon as it is released; nothing else of it changes.
Rule 4: all of it belongs to the event loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection

    from settle_mp.sandbox.faults import Fault

#: Faults standing at once at most.
FAULTS_MAX: Final = 1_000


@dataclass(slots=True)
class _Standing:
    number: int
    fault: Fault
    left: int | None


class FaultQueue:
    """The faults that stand, in order, and the requests that they hold."""

    def __init__(self) -> None:
        self._standing: list[_Standing] = []
        self._numbers = itertools.count(1)
        self._gate = asyncio.Event()
        self._closing = asyncio.Event()
        self.held_count: int = 0

    @property
    def is_closing(self) -> bool:
        """Whether the sandbox is ending, so that who waited must not go on as if nothing were."""
        return self._closing.is_set()

    def add(self, faults: Collection[Fault]) -> list[int]:
        """Put faults at the end of the queue; returns their numbers.

        Raises:
            ValueError: When more would stand than are allowed.
        """
        if len(self._standing) + len(faults) > FAULTS_MAX:
            raise ValueError(f"at most {FAULTS_MAX} faults can stand at once")
        added = [_Standing(next(self._numbers), fault, fault.times) for fault in faults]
        self._standing += added
        return [each.number for each in added]

    def take(self, path: str, user_ids: Collection[str], event_types: Collection[str]) -> Fault | None:
        """Give the fault that a request meets, if any, and count it down."""
        for standing in self._standing:
            if standing.fault.matches(path, user_ids, event_types):
                if standing.left is not None:
                    standing.left -= 1
                    if standing.left == 0:
                        self._standing.remove(standing)
                return standing.fault
        return None

    async def pause(self, delay_s: float) -> None:
        """Let the caller wait, or until the sandbox ends."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closing.wait(), delay_s)

    async def wait_released(self) -> None:
        """Hold the caller until the next release."""
        gate = self._gate
        self.held_count += 1
        try:
            await gate.wait()
        finally:
            self.held_count -= 1

    def release(self) -> int:
        """Let all held requests go on and remove the faults that hold; returns how many were held."""
        released = self.held_count
        self._standing = [each for each in self._standing if each.fault.action != "hold"]
        self._gate.set()
        self._gate = asyncio.Event()
        return released

    def clear(self) -> None:
        """Remove all faults and let all held requests go on."""
        self.release()
        self._standing.clear()

    def close(self) -> None:
        """Wake everyone who waits, for good."""
        self._closing.set()
        self.clear()

    def standing(self) -> list[dict[str, Any]]:
        """Describe what stands, for people and tests."""
        return [
            {"number": each.number, "left": each.left, "fault": each.fault.to_json()}
            for each in self._standing
        ]
