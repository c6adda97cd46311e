"""The tally: how many `track()` calls have returned in each thread, where no death of a process reaches it.

One file, mapped by everybody: two bytes a slot that command, and eight bytes a stream that count. A store to
the map is one step of the processor and stays in the page cache when its process is killed right after.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: Streams (threads of workers) that one file has room for.
STREAMS_MAX: Final = 524_288
_STORMS_AT: Final = 2_048
_COUNTS_AT: Final = 4_096
_BYTES: Final = _COUNTS_AT + 8 * STREAMS_MAX


class Tally:
    """The file as one process sees it."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.truncate(descriptor, _BYTES)
            self._map = mmap.mmap(descriptor, _BYTES)
        finally:
            os.close(descriptor)
        #: How many calls have returned, by stream. To be stored right after `track()`.
        self.returned = memoryview(self._map)[_COUNTS_AT:].cast("Q")

    def stop(self, slot: int) -> None:
        """Tell the worker in a slot to end in good order."""
        self._map[slot] = 1

    def start(self, slot: int) -> None:
        """Let a slot work as usual."""
        self._map[slot] = self._map[_STORMS_AT + slot] = 0

    def storm(self, slot: int) -> None:
        """Have the worker in a slot track so much that its segments fill."""
        self._map[_STORMS_AT + slot] = 1

    def calm(self, slot: int) -> None:
        """Let it track as usual again."""
        self._map[_STORMS_AT + slot] = 0

    def is_stormy(self, slot: int) -> bool:
        """Whether the worker in a slot is to track a lot."""
        return self._map[_STORMS_AT + slot] != 0

    def is_stopped(self, slot: int) -> bool:
        """Whether the worker in a slot is to end."""
        return self._map[slot] != 0

    def close(self) -> None:
        """Unmap."""
        self.returned.release()
        self._map.close()
