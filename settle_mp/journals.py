"""Producers' journals as others see them, collector and heirs: files to be read, a header slot to be written.

Reading needs no lock, because positions make it idempotent. It is done with `pread`, never through a map: a
file that somebody truncates would be SIGBUS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp import statedir
from settle_mp.core.record import (
    HEADER_BYTES,
    NO_LEDGER,
    POSITION_MAX,
    Identity,
    Slot,
    decode_identity,
    decode_slot,
    encode_slot,
    whole_records_bytes,
)

if TYPE_CHECKING:
    from pathlib import Path

#: Bytes read of one segment at most; segments are a few MiB.
SEGMENT_BYTES_MAX: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a journal's header says; `identity` is None when it can't be read."""

    identity: Identity | None
    courier: Slot
    drops: Slot
    collector: Slot

    @property
    def bond(self) -> Slot:
        """The last word on how far which ledger has committed, whoever wrote it."""
        theirs, ours = self.courier, self.collector
        if ours.ledger == NO_LEDGER or (theirs.ledger != NO_LEDGER and theirs.position > ours.position):
            return theirs
        return ours


def parse_header(image: bytes) -> Header:
    """Read a header's bytes; whatever is damaged comes back empty."""
    return Header(
        identity=decode_identity(image),
        courier=decode_slot("courier", image),
        drops=decode_slot("drops", image),
        collector=decode_slot("collector", image),
    )


def read_header(folder: Path) -> Header:
    """Read a journal's header.

    Raises:
        OSError: When there is none that can be read.
    """
    return parse_header(_read(folder / statedir.HEADER_NAME, HEADER_BYTES))


def read_image(folder: Path) -> bytes:
    """A header's bytes, zeros for what is not there.

    Raises:
        OSError: When there is none that can be read.
    """
    return _read(folder / statedir.HEADER_NAME, HEADER_BYTES).ljust(HEADER_BYTES, b"\0")


def write_committed(folder: Path, slot: Slot, writer: str = "collector") -> None:
    """Say in a journal's header how far its ledger has committed.

    Args:
        folder: The journal's.
        slot: What to say.
        writer: Whose word it is: an heir's is the dead courier's.

    Raises:
        OSError: When the header can't be written; a folder that is gone is a FileNotFoundError.
    """
    at, data = encode_slot(writer, slot)
    descriptor = os.open(folder / statedir.HEADER_NAME, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, data, at)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """One segment on disk: the position at which it begins, and the size that it was made with."""

    base: int
    size: int
    path: Path

    def read(self) -> bytes:
        """All its bytes, zeros behind the last record included; fewer than `size` when it was cut off."""
        return _read(self.path, self.size)

    def read_range(self, start: int, end: int) -> bytes:
        """The bytes between two journal positions, as far as they are in this segment."""
        descriptor = _open(self.path)
        try:
            return os.pread(descriptor, max(0, end - max(start, self.base)), max(0, start - self.base))
        finally:
            os.close(descriptor)


def segments(folder: Path) -> list[SegmentFile]:
    """A journal's segments by position.

    Two files of one position come of a change of segments that was interrupted: only the one with more
    records was ever published.
    """
    by_base: dict[int, list[SegmentFile]] = {}
    for file in all_segments(folder):
        by_base.setdefault(file.base, []).append(file)
    return [_fullest(by_base[base]) for base in sorted(by_base)]


def all_segments(folder: Path) -> list[SegmentFile]:
    """The files of all segments, in no order."""
    files = []
    for name in os.listdir(folder):  # noqa: PTH208  names are wanted
        parsed = statedir.parse_segment_name(name)
        if parsed is not None and sum(parsed) <= POSITION_MAX:
            base, size = parsed
            files.append(SegmentFile(base, min(size, SEGMENT_BYTES_MAX), folder / name))
    return files


def is_empty(rest: bytes) -> bool:
    """Whether nothing but zeros is there: looking for records in megabytes of them takes long."""
    return rest == bytes(len(rest))


def is_fuller(body: bytes, other: bytes) -> bool:
    """Whether the one of two files of the same position was published, and not the other."""
    return whole_records_bytes(body) > whole_records_bytes(other)


def _fullest(files: list[SegmentFile]) -> SegmentFile:
    if len(files) == 1:
        return files[0]
    return max(files, key=lambda file: whole_records_bytes(file.read()))


def has_record_at(files: list[SegmentFile], position: int) -> bool:
    """Whether something stands at a position: a cheap look, without reading the segment."""
    for file in reversed(files):
        if file.base <= position:
            descriptor = _open(file.path)
            try:
                if os.pread(descriptor, 2, position - file.base).strip(b"\0"):
                    return True
            finally:
                os.close(descriptor)
            return file is not files[-1]
    return bool(files)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _read(path: Path, bytes_max: int) -> bytes:
    descriptor = _open(path)
    try:
        return read_descriptor(descriptor, bytes_max)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, bytes_max: int) -> bytes:
    """A file's first bytes, by an open descriptor.

    Raises:
        OSError: When it can't be read.
    """
    size = min(os.fstat(descriptor).st_size, bytes_max)
    parts: list[bytes] = []
    at = 0
    while at < size:
        part = os.pread(descriptor, size - at, at)
        if not part:
            break
        parts.append(part)
        at += len(part)
    return b"".join(parts)
