"""The journal: what `track()` appends to, durable against the death of any process once it returns.

One journal a process life. Any step here may be interrupted by a signal handler, a finalizer or an
exception and be entered again; two that make the same thing settle it with one atomic `dict.setdefault`,
and the loser's is thrown away. `track()` never waits for a lock.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from settle_mp import statedir
from settle_mp.core.record import (
    PRODUCER_ID_BYTES,
    Identity,
    count_events,
    encode_mark,
    encode_record,
    whole_records_bytes,
)
from settle_mp.worker import birth, native
from settle_mp.worker.header import Header
from settle_mp.worker.room import JournalFullError, Limits, check_room
from settle_mp.worker.segment import NoRoomError, Segment, is_foreign

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.core.event import Quantity
    from settle_mp.worker.segment import Appender

#: Bytes of the first segment: processes that track one event and end are common, and each takes one.
SEGMENT_BYTES_MIN: Final = 64 * 1024
#: Bytes of the largest segment; each next one doubles up to it.
SEGMENT_BYTES_MAX: Final = 4 * 1024 * 1024
#: Bytes that unshipped events may take in memory where the folder can't be written.
VOLATILE_BYTES_MAX: Final = 4 * 1024 * 1024


def _closed(*_: object) -> int:
    raise NoRoomError


#: The appender where no journal is open: `track()` takes the slow path and opens one.
CLOSED: Final[Appender] = (_closed, _closed, 0)


class Journal:
    """This process life's events on their way to the collector.

    Attributes:
        producer: 16 random bytes that name this process life.
        slot: A list of one: what `track()` appends with now. The caller owns it; closing lets go of it.
        is_volatile: True when there is no folder and events live in memory only.
    """

    def __init__(
        self,
        slot: list[Appender],
        *,
        identity: Identity,
        folder: Path | None,
        lock: int | None,
        limits: Limits,
    ) -> None:
        """Make header and first segment in a folder; see `build` and `in_memory`.

        Raises:
            OSError, JournalFullError: When there is no room or no right for it.
        """
        self.producer = identity.producer
        self.slot = slot
        self.is_volatile = folder is None
        self._folder = folder
        self._lock = lock
        self._limits = limits
        self._committing = native.allocate_lock()
        self._counted = (0, 0)
        self._is_closed = False
        self._segments: dict[int, Segment] = {}
        self._check_host(SEGMENT_BYTES_MIN)
        self.header = Header(folder, identity, limits.mode)
        self._segments[0] = self._make_segment(0, SEGMENT_BYTES_MIN)

    @classmethod
    def build(cls, slot: list[Appender], journals: Path, *, identity: Identity, limits: Limits) -> Journal:
        """Make a journal's folder and all in it, and only then its name.

        Raises:
            OSError, JournalFullError: When there is no room or no right for it.
        """
        for tries_left in reversed(range(birth.BUILD_TRIES)):
            try:
                home = birth.make_home(journals, limits.mode)
                return cls._move_in(slot, home, identity, limits)
            except birth.HomeLostError:
                if not tries_left:
                    raise
        raise AssertionError  # pragma: no cover  the loop returns or raises

    @classmethod
    def _move_in(cls, slot: list[Appender], home: birth.Home, identity: Identity, limits: Limits) -> Journal:
        try:
            identity = replace(identity, producer=home.producer)
            journal = cls(slot, identity=identity, folder=home.folder, lock=home.lock, limits=limits)
            journal.rename(birth.move_in(home))
        except FileNotFoundError as error:
            birth.abandon(home)
            raise birth.HomeLostError(str(home.folder)) from error
        except BaseException:
            birth.abandon(home)
            raise
        return journal

    def rename(self, folder: Path) -> None:
        """The folder has got its real name."""
        self._folder = folder

    @classmethod
    def in_memory(cls, slot: list[Appender], *, identity: Identity) -> Journal:
        """A bounded journal that dies with the process, for where the folder can't be written."""
        identity = replace(identity, producer=os.urandom(PRODUCER_ID_BYTES))
        limits = Limits(bytes_max=VOLATILE_BYTES_MAX, host_bytes_max=VOLATILE_BYTES_MAX, mode=0)
        return cls(slot, identity=identity, folder=None, lock=None, limits=limits)

    # --- Appending ---

    @property
    def newest(self) -> Segment:
        """The segment that is appended to."""
        segments = self._segments
        return segments[max(segments)]

    def append(self, payload: bytes) -> None:
        """Append one record, on a new segment if need be.

        Raises:
            JournalFullError: When a bound or the disk does not allow it.
            NoRoomError: When the journal is closed, as in a forked child.
        """
        while True:
            write, tell, seed = self.slot[0]
            try:
                offset = tell()
            except (ValueError, NoRoomError):
                offset = 0  # closed: what follows fails as well
            record = encode_record(payload, seed, offset)
            try:
                write(record)
            except (ValueError, NoRoomError) as error:
                if is_foreign(error):
                    raise
                if self._is_closed:
                    raise NoRoomError from error
                self.advance()
            else:
                return

    def mark(self, at_s: float) -> None:
        """Note the time in the journal; what follows was tracked then or later."""
        with contextlib.suppress(JournalFullError, NoRoomError):
            self.append(encode_mark(at_s))

    def advance(self) -> None:
        """Make a segment with room the current one.

        Raises:
            JournalFullError: When a bound or the disk does not allow another one.
        """
        index = max(self._segments)
        full = self._segments[index]
        if self.slot[0] is not full.appender:
            # Somebody else has changed segments since the caller's append failed.
            self.slot[0] = full.appender
            return
        base = full.base + full.seal()
        made = self._make_segment(base, self._next_size(full.size))
        winner = self._segments.setdefault(index + 1, made)
        if winner is not made:
            made.discard(self._folder)
        # A late store by an interrupted caller may point back to a segment that is full by now: the next
        # append fails there, comes here again, and finds the newest. After a fork in a signal handler
        # `self.slot` is nobody's: it is read after all calls, so no handler runs between it and the store.
        self.slot[0] = winner.appender

    def _make_segment(self, base: int, size: int) -> Segment:
        try:
            return Segment(
                producer=self.producer, base=base, size=size, folder=self._folder, mode=self._limits.mode
            )
        except OSError as error:
            if not self._segments:
                raise
            msg = f"no new journal segment: {error.strerror or error}"
            raise JournalFullError(msg) from None

    def _next_size(self, size: int) -> int:
        self._hear_collector()
        taken = sum(part.size for part in list(self._segments.values()) if part.last > self.committed)
        wanted = min(2 * size, SEGMENT_BYTES_MAX, self._limits.bytes_max - taken)
        if wanted < SEGMENT_BYTES_MIN:
            msg = f"journal_bytes_max ({self._limits.bytes_max:,} bytes) is reached"
            raise JournalFullError(msg)
        self._check_host(wanted)
        return wanted

    def _check_host(self, wanted: int) -> None:
        if self._folder is None:
            return
        try:
            check_room(self._folder.parent, wanted, self._limits)
        except OSError as error:
            msg = f"{self._folder.parent}: {error.strerror or error}"
            raise JournalFullError(msg) from None

    # --- Reading ---

    @property
    def tail(self) -> int:
        """The position behind the last record."""
        return self.newest.last

    def read(self, position: int, bytes_max: int) -> tuple[int, bytes]:
        """Whole records from a position on, all of one segment.

        Returns:
            The segment's base, and the bytes; none when nothing more is there.
        """
        for _, segment in sorted(self._segments.items()):
            if segment.base <= position < segment.last:
                body = segment.read(position, bytes_max)
                return segment.base, body[: whole_records_bytes(body)]
        return position, b""

    def pieces(self, start: int, end: int) -> Iterator[bytes]:
        """The records between two positions, in pieces."""
        while start < end:
            _, body = self.read(start, min(end - start, SEGMENT_BYTES_MAX))
            if not body:
                return
            yield body
            start += len(body)

    def count_to(self, position: int) -> int:
        """How many events stand before a position at or after the committed one."""
        counted_to, count = self._counted
        return count + sum(count_events(body) for body in self.pieces(counted_to, position))

    # --- What the collector has committed ---

    @property
    def committed(self) -> int:
        """Up to where the collector has committed, as far as this process knows."""
        return self.header.committed.position

    @property
    def pending_count(self) -> int:
        """How many events stand behind the committed position."""
        counted = self._counted[1]
        try:
            return self.count_to(self.tail) - counted
        except ValueError:  # the courier freed a segment under our eyes
            return self.count_to(self.tail) - self._counted[1]

    def prefault(self) -> None:
        """Map the pages that are written next; for the courier, which has the time."""
        with contextlib.suppress(ValueError):  # just closed
            self.newest.prefault()

    def commit(self, ledger: bytes, position: int, *, is_waiting: bool = True) -> bool:
        """The collector has committed up to `position`: note it, and free what is not needed.

        Args:
            ledger: The ledger's id.
            position: Up to where.
            is_waiting: False gives up when another thread is just doing the same.

        Returns:
            Whether the position is one of this journal's.
        """
        if position > self.tail:
            return False
        if not self._committing.acquire(is_waiting):
            return True
        try:
            known = self.header.committed
            if position > known.position or ledger != known.ledger:
                self._commit(ledger, max(position, known.position))
        finally:
            self._committing.release()
        return True

    def _commit(self, ledger: bytes, position: int) -> None:
        events_count = self.count_to(position)
        self._counted = (position, events_count)
        self.header.commit(ledger, position, events_count)
        for index in sorted(self._segments)[:-1]:
            segment = self._segments[index]
            if segment.last > position:
                break
            del self._segments[index]
            segment.discard(self._folder)

    def _hear_collector(self) -> None:
        """Where no courier hears acks, the collector's slot in the header says what it has read itself."""
        theirs = self.header.collectors
        if theirs.position > self.committed:
            self.commit(theirs.ledger, theirs.position, is_waiting=False)

    def drop(self, quantity: Quantity) -> None:
        """Count one event that was not taken, where the count survives."""
        self.header.drop(quantity)

    def close(self) -> None:
        """Let go of slot, maps and lock; the collector takes what is left.

        Touches no file: a forked child calls it on its parent's journal, whose lock must stay the parent's.
        """
        self.slot = [CLOSED]
        self._is_closed = True
        for segment in list(self._segments.values()):
            segment.close()
        self.header.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def discard(self) -> None:
        """Close a journal that nothing was appended to, and remove its folder."""
        self.close()
        if self._folder is not None:
            with contextlib.suppress(OSError):
                statedir.remove_folder(self._folder)
