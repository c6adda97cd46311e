"""The journal: what `track()` appends to, durable against the death of any process once it returns.

One journal a process life. Any step here may be interrupted by a signal handler, a finalizer or an
exception and be entered again; two that make the same thing settle it with one atomic `dict.setdefault`,
and the loser's is thrown away. `track()` never waits for a lock.

A handler may also fork: the child then goes on in the interrupted step with a journal that is closed, which
takes no store and no record any more, so that the step ends in NoRoomError and begins again with a new one.
"""

from __future__ import annotations

import collections
import contextlib
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from settle_mp import statedir
from settle_mp.core.record import (
    PRODUCER_ID_BYTES,
    Identity,
    encode_mark,
    encode_record,
)
from settle_mp.worker import birth
from settle_mp.worker.chain import Chain
from settle_mp.worker.foreign import is_foreign, suppressed
from settle_mp.worker.header import Header
from settle_mp.worker.room import (
    SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN,
    JournalFullError,
    Limits,
    allowed_bytes,
)
from settle_mp.worker.segment import PARENTS, NoRoomError, Segment
from settle_mp.worker.turn import Turn

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.core.event import Quantity
    from settle_mp.worker.segment import Appender

#: Bytes that unshipped events may take in memory where the folder can't be written.
VOLATILE_BYTES_MAX: Final = 4 * 1024 * 1024
#: How long a host or a disk that had no room is not asked again, in seconds: each dropped event would cost
#: its caller a look through all journals.
ASK_AGAIN_S: Final = 0.1


def _closed(*_: object) -> int:
    raise NoRoomError(PARENTS)


#: The appender where no journal is open: `track()` takes the slow path and opens one.
CLOSED: Final[Appender] = (_closed, _closed, 0)


class _ClosedSlot(list["Appender"]):
    """The slot of a closed journal. A late store by an interrupted caller must not open it again."""

    def __setitem__(self, *_: object) -> None:
        pass


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
        limits: Limits,
    ) -> None:
        """Make header and first segment in a folder; see `build` and `in_memory`.

        Raises:
            OSError, JournalFullError: When there is no room or no right for it.
        """
        self.producer: bytes = identity.producer
        self.slot: list[Appender] = slot
        self.is_volatile: bool = folder is None
        self._folder = folder
        self._limits = limits
        self._pid = os.getpid()
        self._acked: collections.deque[tuple[bytes, int]] = collections.deque()
        self._turn = Turn()
        self._counted = (0, 0)
        self._is_closed = False
        self._refusal = ("", 0, 0.0)
        self._allowed(SEGMENT_BYTES_MIN)
        self.header: Header = Header(folder, identity, limits.mode)
        self._chain = Chain(self._map_segment(0, SEGMENT_BYTES_MIN))

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
            except birth.HomeLostError as error:
                if not tries_left or is_foreign(error):
                    raise
        raise AssertionError  # pragma: no cover  the loop returns or raises

    @classmethod
    def _move_in(cls, slot: list[Appender], home: birth.Home, identity: Identity, limits: Limits) -> Journal:
        try:
            identity = replace(identity, producer=home.producer)
            journal = cls(slot, identity=identity, folder=home.folder, limits=limits)
            journal.rename(birth.move_in(home))
        except BaseException as error:
            birth.abandon(home)
            # Gone: the collector took it for abandoned. There already: so did a child, forked in here.
            if isinstance(error, FileNotFoundError | FileExistsError) and not is_foreign(error):
                raise birth.HomeLostError(str(home.folder)) from error
            raise
        return journal

    @property
    def folder(self) -> Path | None:
        """Where it is; None for one in memory."""
        return self._folder

    def rename(self, folder: Path) -> None:
        """The folder has got its real name."""
        self._folder = folder

    @classmethod
    def in_memory(cls, slot: list[Appender], *, identity: Identity) -> Journal:
        """A bounded journal that dies with the process, for where the folder can't be written."""
        identity = replace(identity, producer=os.urandom(PRODUCER_ID_BYTES))
        limits = Limits(bytes_max=VOLATILE_BYTES_MAX, host_bytes_max=VOLATILE_BYTES_MAX, mode=0)
        return cls(slot, identity=identity, folder=None, limits=limits)

    # --- Appending ---

    @property
    def appender(self) -> Appender:
        """What to append with now."""
        return self._chain.newest.appender

    def append(self, payload: bytes) -> None:
        """Append one record, on a new segment if need be.

        Raises:
            JournalFullError: When a bound or the disk does not allow it.
            NoRoomError: When the journal is closed, or the parent's, as in a forked child.
        """
        while True:
            try:
                write, tell, seed = self.slot[0]
                write(encode_record(payload, seed, tell()))
            except (ValueError, NoRoomError) as error:
                if is_foreign(error):
                    raise
            else:
                return
            self.advance()

    @property
    def is_ours(self) -> bool:
        """Whether this process may append: a forked child may not."""
        return not self._is_closed and os.getpid() == self._pid

    def mark(self, at_s: float) -> None:
        """Note the time in the journal; what follows was tracked then or later."""
        with suppressed(JournalFullError, NoRoomError):
            self.append(encode_mark(at_s))

    def advance(self) -> None:
        """Make a segment with room the current one.

        Raises:
            JournalFullError: When a bound or the disk does not allow another one.
            NoRoomError: When the journal is closed, or the parent's.
        """
        try:
            if self.is_ours:
                self._advance()
        except ValueError as error:
            if is_foreign(error) or self.is_ours:
                raise
        if not self.is_ours:
            raise NoRoomError(PARENTS)

    def _advance(self) -> None:
        full = self._chain.newest
        if self.slot[0] is not full.appender:
            # Somebody else has changed segments since the caller's append failed.
            self.slot[0] = full.appender
            return
        base = full.base + full.seal()
        made = self._make_segment(base, self._next_size(full.size))
        winner = full.succeed(made)
        if winner is not made or not self.is_ours:
            made.discard(self._folder)
        # A late store by an interrupted caller may point back to a segment that is full by now: the next
        # append fails there, comes here again, and finds the newest. After a fork in a signal handler
        # `self.slot` is nobody's: it is read after all calls, so no handler runs between it and the store.
        self.slot[0] = winner.appender

    def _next_size(self, size: int) -> int:
        self._hear_collector()
        left = self._limits.bytes_max - self._chain.held_bytes(self.committed)
        wanted = min(2 * size, SEGMENT_BYTES_MAX, left)
        if wanted < SEGMENT_BYTES_MIN:
            msg = f"journal_bytes_max ({self._limits.bytes_max:,} bytes) is reached"
            raise JournalFullError(msg)
        return wanted

    def _make_segment(self, base: int, size: int) -> Segment:
        """Make a segment, unless host or disk have just refused one and nothing was freed since."""
        reason, committed, until_s = self._refusal
        if committed == self.committed and time.monotonic() < until_s:
            raise JournalFullError(reason)
        try:
            return self._map_segment(base, self._allowed(size))
        except (OSError, JournalFullError) as error:
            if isinstance(error, OSError) and is_foreign(error):
                raise
            reason = str(error)
        self._refusal = (reason, self.committed, time.monotonic() + ASK_AGAIN_S)
        raise JournalFullError(reason)

    def _allowed(self, size: int) -> int:
        return size if self._folder is None else allowed_bytes(self._folder.parent, size, self._limits)

    def _map_segment(self, base: int, size: int) -> Segment:
        return Segment(
            producer=self.producer, base=base, size=size, folder=self._folder, mode=self._limits.mode
        )

    # --- Reading ---

    @property
    def tail(self) -> int:
        """The position behind the last record."""
        return self._chain.tail

    def read(self, position: int, bytes_max: int) -> tuple[int, bytes]:
        """Whole records from a position on, all of one segment; see `Chain.read`."""
        return self._chain.read(position, bytes_max)

    def census(self) -> tuple[int, int]:
        """The position behind the last record, and how many events stand before it."""
        while True:
            tail, counted = self.tail, self._counted
            position, events_count = counted
            events_count += self._chain.count_events(position, tail)
            # It only moves on before segments are freed, so nothing was missed while it stands.
            if counted is self._counted and position <= tail:
                return tail, events_count

    # --- What the collector has committed ---

    @property
    def committed(self) -> int:
        """Up to where the collector has committed, as far as this process knows."""
        return self.header.committed.position

    @property
    def pending_count(self) -> int:
        """How many events stand behind the committed position."""
        return max(0, self.census()[1] - self._counted[1])

    def prefault(self) -> None:
        """Map the pages that are written next; for the courier, which has the time."""
        with contextlib.suppress(ValueError):  # just closed
            self._chain.newest.prefault()

    def commit(self, ledger: bytes, position: int) -> bool:
        """The collector has committed up to `position`: note it, and free what is not needed.

        Never waits: where another thread is at it, that one does this as well.

        Returns:
            Whether the position is one of this journal's.
        """
        if position > self.tail:
            return False
        self._acked.append((ledger, position))
        while self._acked and self._turn.run(self._commit_acked):
            pass
        return True

    def _commit_acked(self) -> None:
        while self._acked:
            ledger, position = self._acked[0]
            known = self.header.committed
            if position > known.position or ledger != known.ledger:
                self._commit(ledger, max(position, known.position))
            # Last, so that one interrupted in the middle is done again.
            self._acked.popleft()

    def _commit(self, ledger: bytes, position: int) -> None:
        counted_to, count = self._counted
        events_count = count + self._chain.count_events(counted_to, position)
        self._counted = (position, events_count)
        self.header.commit(ledger, position, events_count)
        self._chain.free(position, self._folder)

    def _hear_collector(self) -> None:
        """Where no courier hears acks, the collector's slot in the header says what it has read itself."""
        theirs = self.header.collectors
        if theirs.position > self.committed:
            self.commit(theirs.ledger, theirs.position)

    def drop(self, quantity: Quantity) -> None:
        """Count one event that was not taken, where the count survives."""
        self.header.drop(quantity)

    def close(self) -> None:
        """Let go of slot, maps and lock; the collector takes what is left.

        Touches no file: a forked child calls it on its parent's journal.
        """
        self.slot = _ClosedSlot([CLOSED])
        self._is_closed = True
        self._chain.close()
        self.header.close()
        birth.release(self.producer)

    def discard(self) -> None:
        """Close a journal that nothing was appended to, and remove its folder, unless it is the parent's."""
        self.close()
        if self._folder is not None and self._pid == os.getpid():
            with suppressed(OSError):
                statedir.remove_folder(self._folder)
