"""A critical section that nobody must wait for, and that no exception leaves taken for ever.

A lock will not do: a signal handler may raise between its `acquire` and the `try` behind that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.worker import native

if TYPE_CHECKING:
    from collections.abc import Callable


class Turn:
    """One caller at a time; the others are told so and go on."""

    def __init__(self) -> None:
        self._get_ident = native.original("_thread", "get_ident")
        self._holder: dict[str, list[int]] = {}

    @property
    def is_held_here(self) -> bool:
        """Whether this very thread is at it: the caller is a signal handler in the midst of the work."""
        return self._holder.get("") == [self._get_ident()]

    def run(self, work: Callable[[], None]) -> bool:
        """Do some work, unless somebody is at it. Returns whether it was done."""
        mine, holder = [self._get_ident()], self._holder
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
