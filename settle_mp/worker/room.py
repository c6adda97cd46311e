"""Room for a journal: its own bound, the host's, and the disk's (rule J5)."""

from __future__ import annotations

import contextlib
import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.core.record import HEADER_BYTES

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes of the first segment: processes that track one event and end are common, and each takes one.
SEGMENT_BYTES_MIN: Final = 64 * 1024
#: Bytes of the largest segment; each next one doubles up to it.
SEGMENT_BYTES_MAX: Final = 4 * 1024 * 1024

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


def allowed_bytes(journals: Path, wanted: int, limits: Limits) -> int:
    """How many more bytes disk and host allow a journal: as many as it wants, or fewer.

    Raises:
        JournalFullError: When less is left than the smallest segment takes.
        OSError: When the folder can't be looked at.
    """
    disk = os.statvfs(journals)
    left = disk.f_bavail * disk.f_frsize - RESERVE_BYTES
    if left < SEGMENT_BYTES_MIN:
        msg = f"the disk of {journals} has less than {RESERVE_BYTES + SEGMENT_BYTES_MIN:,} bytes left"
        raise JournalFullError(msg)
    left = min(wanted, left, _left_of_host(journals, limits))
    if left < min(wanted, SEGMENT_BYTES_MIN):
        msg = f"journals_bytes_max ({limits.host_bytes_max:,} bytes) is reached"
        raise JournalFullError(msg)
    return left & -mmap.PAGESIZE


def _left_of_host(journals: Path, limits: Limits) -> int:
    names = os.listdir(journals)  # noqa: PTH208  names are wanted, and this is the fastest way to them
    # Adding up every journal's files is slow on a busy host, and needless while even full ones fit. A full
    # one has a segment more that is committed and not freed.
    full = limits.bytes_max + min(limits.bytes_max, SEGMENT_BYTES_MAX) + HEADER_BYTES
    if len(names) * full <= limits.host_bytes_max:
        return limits.host_bytes_max
    return limits.host_bytes_max - _allocated_bytes(journals, names)


def _allocated_bytes(journals: Path, names: list[str]) -> int:
    total = 0
    for name in names:
        with contextlib.suppress(OSError), os.scandir(journals / name) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    total += entry.stat(follow_symlinks=False).st_size
    return total
