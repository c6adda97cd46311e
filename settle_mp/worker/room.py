"""Room for a journal: its own bound, the host's, and the disk's (rule J5)."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes left free on the disk: the ledger must be able to shrink on a disk that the journals have filled.
RESERVE_BYTES: Final = 16 * 1024 * 1024


class JournalFullError(Exception):
    """A bound was reached; the message names it. The event at hand is dropped and counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a journal may take: bytes of its own, bytes of all on the host, and its files' rights."""

    bytes_max: int
    host_bytes_max: int
    mode: int


def check_room(journals: Path, wanted: int, limits: Limits) -> None:
    """Check a disk and a host's journals for `wanted` more bytes.

    Raises:
        JournalFullError: When there is no room.
    """
    free = os.statvfs(journals)
    if free.f_bavail * free.f_frsize < wanted + RESERVE_BYTES:
        msg = f"the disk of {journals} has less than {wanted + RESERVE_BYTES:,} bytes left"
        raise JournalFullError(msg)
    names = os.listdir(journals)  # noqa: PTH208  names are wanted, and this is the fastest way to them
    # Adding up every journal's files is slow on a busy host, and needless while even full ones fit.
    if len(names) * limits.bytes_max <= limits.host_bytes_max:
        return
    if wanted + _allocated_bytes(journals, names) > limits.host_bytes_max:
        msg = f"journals_bytes_max ({limits.host_bytes_max:,} bytes) is reached"
        raise JournalFullError(msg)


def _allocated_bytes(journals: Path, names: list[str]) -> int:
    total = 0
    for name in names:
        with contextlib.suppress(OSError), os.scandir(journals / name) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
