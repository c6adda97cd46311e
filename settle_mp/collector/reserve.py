"""A file that holds disk space for the day on which the disk is full.

What empties the ledger needs room in SQLite's log first; without any, a full disk would stop the very thing
that frees it. What fills the ledger never gets this room.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: Enough for a seal of a hundred thousand sums, and for thousands of answers.
RESERVE_BYTES: Final = 16 * 1024 * 1024

#: With less than this on the disk, a start needs the reserve.
_LOW_BYTES: Final = 1024 * 1024


class Reserve:
    """The reserve of one ledger.

    Args:
        path: Where it is.
        size_bytes: How much.

    Attributes:
        is_lent: Whether there was no room to keep it when that was last seen: `keep` is to be called again.
    """

    def __init__(self, path: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self.is_lent: bool = False

    def is_whole(self) -> bool:
        """Whether it is there in full."""
        try:
            return self._path.stat().st_blocks * 512 >= self._size_bytes
        except OSError:
            return False

    def keep(self) -> None:
        """Make it, or make it whole again, while there is twice as much room; else later."""
        self.is_lent = False
        if self.is_whole():
            return
        with contextlib.suppress(OSError):
            self.is_lent = self._free_bytes() < 2 * self._size_bytes
            if not self.is_lent:
                self._allocate()

    def lend(self) -> None:
        """Give the room away when there is next to none: even opening a database takes some."""
        with contextlib.suppress(OSError):
            if self._free_bytes() < _LOW_BYTES:
                self.release()

    def release(self) -> None:
        """Give the room to whoever writes next."""
        self.is_lent = True
        with contextlib.suppress(OSError):
            os.truncate(self._path, 0)

    def _free_bytes(self) -> int:
        space = os.statvfs(self._path.parent)
        return space.f_bavail * space.f_frsize

    def _allocate(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, self._size_bytes)
            else:  # macOS
                _write_zeros(descriptor, self._size_bytes)
        finally:
            os.close(descriptor)


def _write_zeros(descriptor: int, size_bytes: int) -> None:
    zeros = bytes(64 * 1024)
    for at in range(0, size_bytes, len(zeros)):
        os.pwrite(descriptor, zeros[: size_bytes - at], at)
