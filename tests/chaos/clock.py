"""The clock of a house: what `time.time()` says in its collector, workers and commands, stepped from outside.

The kernel gives a process no wall clock of its own (time namespaces shift the monotonic ones only), so the
function is replaced in the processes of the tests. Files keep the real time.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: The environment variable with the path of the clock's file; without it time is what it is.
VARIABLE: Final = "CHAOS_CLOCK"
#: What a fault has in its settings so that its house has such a clock.
SETTINGS: Final = {VARIABLE: "a file of the house's own"}
_OFFSET: Final = struct.Struct("<d")


class Clock:
    """How far the clock is ahead of the real time, in seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset_s = 0.0
        self.step(0.0)

    def step(self, by_s: float) -> None:
        """Set it forward, or back."""
        self._offset_s += by_s
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(_OFFSET.pack(self._offset_s))

    def to_next_hour(self) -> float:
        """How many seconds its hour has left."""
        return 3600 - (time.time() + self._offset_s) % 3600


def obey() -> None:
    """Have this process go by the clock that its environment names, if any."""
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    shown, real = mmap.mmap(descriptor, _OFFSET.size, prot=mmap.PROT_READ), time.time
    os.close(descriptor)
    time.time = lambda: real() + _OFFSET.unpack_from(shown)[0]
