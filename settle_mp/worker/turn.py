"""A critical section that nobody waits for, and that no exception leaves taken for ever.

A lock will not do: a signal handler may raise between its `acquire` and the `try` behind that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Turn:
    """One caller at a time; the others are told so and go on."""

    def __init__(self) -> None:
        self._holder: dict[str, object] = {}

    def run(self, work: Callable[[], None]) -> bool:
        """Do some work, unless somebody is at it. Returns whether it was done."""
        mine, holder = object(), self._holder
        try:
            if holder.setdefault("", mine) is not mine:
                return False
            work()
        finally:
            # No call in here, so no signal handler can come in between.
            try:
                if holder[""] is mine:
                    del holder[""]
            except KeyError:
                pass
        return True
