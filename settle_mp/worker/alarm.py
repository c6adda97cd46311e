"""What ends the courier's sleep: a pipe, since that is what ZeroMQ's poll can wait for."""

from __future__ import annotations

import contextlib
import os


class Alarm:
    """A byte in a pipe wakes whoever polls `descriptor`."""

    def __init__(self) -> None:
        self.descriptor, self._ring = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._ring, False)

    def ring(self) -> None:
        """Wake the sleeper; one system call."""
        with contextlib.suppress(OSError):  # a full pipe has woken it already
            os.write(self._ring, b"r")

    def silence(self) -> None:
        """Forget the rings so far."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def let_go(self) -> None:
        """In a forked child: close our copies of the parent's pipe."""
        for descriptor in (self.descriptor, self._ring):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        # The numbers may soon be somebody else's files.
        self.descriptor = self._ring = -1
