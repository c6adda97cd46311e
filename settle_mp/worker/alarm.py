"""What ends the courier's sleep: a pipe, since that is what ZeroMQ's poll can wait for."""

from __future__ import annotations

import contextlib
import os

from settle_mp.worker.foreign import suppressed


class Alarm:
    """A byte in a pipe wakes whoever polls `descriptor`, which is -1 until `open` was called."""

    def __init__(self) -> None:
        self.descriptor: int = -1
        self._ring = -1

    def open(self) -> None:
        """Make the pipe, unless it is there.

        Raises:
            OSError: When descriptors have run out.
        """
        if self.descriptor < 0:
            descriptor, ring = os.pipe()
            os.set_blocking(descriptor, False)
            os.set_blocking(ring, False)
            self.descriptor, self._ring = descriptor, ring

    def ring(self) -> None:
        """Wake the sleeper, if there is one; one system call."""
        with suppressed(OSError):  # a full pipe has woken it already
            if self._ring >= 0:
                os.write(self._ring, b"r")

    def silence(self) -> None:
        """Forget the rings so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def let_go(self) -> None:
        """In a forked child: close our copies of the parent's pipe."""
        descriptors = self.descriptor, self._ring
        # The numbers may soon be somebody else's files.
        self.descriptor = self._ring = -1
        for descriptor in descriptors:
            if descriptor >= 0:
                os.close(descriptor)
