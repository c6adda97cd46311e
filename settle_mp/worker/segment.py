"""One segment of a journal: a file (or anonymous memory) mapped and appended to, never used twice."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Final

from settle_mp import statedir
from settle_mp.core.record import encode_mark, encode_record, segment_seed, whole_records_bytes
from settle_mp.worker import native
from settle_mp.worker.foreign import is_foreign, suppressed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    #: What one append needs, in one tuple so that no thread ever pairs one segment's seed with
    #: another's map: `write(record)`, `tell()` and the checksum seed.
    Appender = tuple[Callable[[bytes], object], Callable[[], int], int]

#: With a GIL `mmap.write` is one step to every thread and signal handler; without one it needs a lock.
HAS_GIL: Final[bool] = getattr(sys, "_is_gil_enabled", lambda: True)()


#: How far ahead of the last record pages are mapped: what a busy worker writes while its courier gathers.
PREFAULT_BYTES: Final = 1024 * 1024
#: MADV_POPULATE_WRITE, Linux 5.14 (madvise(2)); Python has no name for it.
_POPULATE_WRITE: Final = 23
#: What a NoRoomError says of a segment that is another process's.
PARENTS: Final = "the journal is the parent process's"


class NoRoomError(Exception):
    """The segment can't take a record: it belongs to the parent process, or its map says so."""


class Segment:
    """A map that records are appended to until it is full.

    Attributes:
        base: The journal position of the segment's first byte.
        size: Its bytes.
        appender: What `track()` appends with. Raises ValueError or NoRoomError once the segment is full,
            sealed or closed.
    """

    def __init__(self, *, producer: bytes, base: int, size: int, folder: Path | None, mode: int) -> None:
        """Allocate and map a segment, its first record the time it was made.

        Args:
            producer: The id that seeds its checksums.
            base: Its position in the journal.
            size: Its bytes.
            folder: Where its file goes; None for anonymous memory.
            mode: The file's rights.

        Raises:
            OSError: When the disk or the folder does not allow it.
        """
        self.base = base
        self.size = size
        # Before the file's name is made: see `discard`.
        self._pid = os.getpid()
        seed = segment_seed(producer, base)
        # Made before the map: a child forked in the midst of this goes on here as well, and writes the same.
        mark = encode_record(encode_mark(time.time()), seed, 0)
        self.name: str
        self.name, self._map = _new_map(folder, base, size, mode)
        self._end: int | None = None
        self._mapped = 0
        self._successor: dict[int, Segment] = {}
        self._lock = contextlib.nullcontext() if HAS_GIL else native.allocate_rlock()
        self.appender: Appender = (self._choose_write(), self._map.tell, seed)
        self.prefault()
        self._map.write(mark)
        if folder is not None:
            self._give_name(folder)

    def _give_name(self, folder: Path) -> None:
        unborn, born = _unborn(folder, self.name), folder / self.name
        if self._pid != os.getpid():
            # We are a child, forked in the midst of this. Our file would take the place of our parent's.
            raise FileExistsError(errno.EEXIST, PARENTS, str(born))
        try:
            unborn.rename(born)
        except BaseException as error:
            # Gone, when a child that was forked just now was faster: then it was the same file.
            if isinstance(error, FileNotFoundError) and born.exists():
                return
            unborn.unlink(missing_ok=True)
            raise

    def _choose_write(self) -> Callable[[bytes], object]:
        if not HAS_GIL:
            return self._write_locked
        if "uwsgi" in sys.modules:
            return self._write_checked
        return self._map.write

    def _write_locked(self, record: bytes) -> object:
        with self._lock:
            try:
                return self._map.write(record)
            except ValueError as error:
                raise NoRoomError(*error.args) from error

    def _write_checked(self, record: bytes) -> object:
        # uWSGI forks without Python's at-fork hooks, so nothing told a child that this map is its parent's.
        if os.getpid() != self._pid:
            raise NoRoomError(PARENTS)
        return self._map.write(record)

    @property
    def successor(self) -> Segment | None:
        """The segment that was made when this one was full."""
        return self._successor.get(0)

    def succeed(self, made: Segment) -> Segment:
        """Make a segment the successor, unless there is one. Returns the successor.

        Decided in the full segment itself, which whoever asks holds: an index could have come and gone
        meanwhile, and the late one would be taken for a new one.
        """
        return self._successor.setdefault(0, made)

    @property
    def end(self) -> int:
        """The offset behind the last record."""
        if self._end is None:
            try:
                at = self._map.tell()
                # A sealed segment's own position stands at its size; its records tell where they end.
                return at if at < self.size else whole_records_bytes(self._map[:])
            except ValueError:
                if self._end is None:
                    raise
        return self._end  # sealed, and perhaps freed since

    @property
    def last(self) -> int:
        """The journal position behind the last record."""
        return self.base + self.end

    def seal(self) -> int:
        """Let no further record in, and return the offset behind the last one.

        May be interrupted anywhere and called again: each step leaves a state from which it starts over.
        """
        if self._end is None:
            try:
                with self._lock:
                    before = self._map.tell()
                    self._map.seek(0, os.SEEK_END)
                # Another thread may have appended between the two calls above.
                start = before if before < self.size else 0
                self._end = start + whole_records_bytes(self._map[start:])
            except ValueError:
                if self._end is None:
                    raise
        return self._end  # sealed by another, and perhaps freed since

    def read(self, position: int, bytes_max: int) -> bytes:
        """Whole records from a journal position within this segment on.

        None from one that was freed meanwhile.
        """
        start = position - self.base
        with contextlib.suppress(ValueError):
            stop, end = start + bytes_max, self.end
            if stop >= end:
                return self._map[start:end]
            # Walked through only where it was cut: this holds the GIL, and an event loop may wait for it.
            body = self._map[start:stop]
            return body[: whole_records_bytes(body)]
        return b""

    def prefault(self) -> None:
        """Have the kernel map the next pages now, so that `track()` does not pay for each of them."""
        start, at = self._mapped, self._map.tell()
        wanted = min(at + PREFAULT_BYTES, self.size) & -mmap.PAGESIZE
        if start < wanted and start - at < PREFAULT_BYTES // 2:
            self._mapped = wanted
            # Not Linux, or older than 5.14: each page costs its first writer a few microseconds.
            with suppressed(OSError):
                self._map.madvise(_POPULATE_WRITE, start, wanted - start)

    def close(self) -> None:
        """Unmap. A thread that still holds the appender gets ValueError and finds the next segment."""
        self._map.close()

    def discard(self, folder: Path | None) -> None:
        """Unmap, and remove the file, unless it may be our parent's."""
        self.close()
        if folder is not None and self._pid == os.getpid():
            with suppressed(OSError):
                (folder / self.name).unlink()


def _unborn(folder: Path, name: str) -> Path:
    """What a segment is called until it has its size and its first record.

    A reader would take a shorter file for one that was cut off.
    """
    return folder / (name + statedir.UNBORN_SUFFIX)


def _new_map(folder: Path | None, base: int, size: int, mode: int) -> tuple[str, mmap.mmap]:
    # A name of its own for each: two makers of the same segment (a signal handler within a thread's change
    # of segments) must not meet in one file.
    name = statedir.segment_name(base, size, secrets.token_hex(4))
    if folder is None:
        # Private: a child's copy must never be the parent's memory.
        return name, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        return name, _file_map(_unborn(folder, name), size, mode)
    except FileExistsError as error:
        if is_foreign(error):
            raise
        return _new_map(folder, base, size, mode)  # a child, forked in the midst of this, was faster


def _file_map(path: Path, size: int, mode: int) -> mmap.mmap:
    pid = os.getpid()
    descriptor = statedir.open_new(path, mode)
    try:
        # A write to a mapped page that the disk can't back is SIGBUS, so the blocks are taken first.
        _allocate(descriptor, size)
        return mmap.mmap(descriptor, size)
    except BaseException:
        if os.getpid() == pid:
            path.unlink(missing_ok=True)
        raise
    finally:
        # The map keeps a duplicate of its own.
        os.close(descriptor)


def _allocate(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    block = bytes(64 * 1024)  # macOS has no posix_fallocate; written zeros take the blocks too
    for at in range(0, size, len(block)):
        os.pwrite(descriptor, block[: size - at], at)
