"""Recording: what stands in for every producer of this process and its forked children while a test runs.

Rule 1: what is recorded has passed the checks of `track()` and is kept as the bytes that a journal would get.
Rule 2: one file for all clients, threads and children, appended to in single writes, so that there is one
    order; no collector, no courier, no state folder.
Rule 3: what was journaled before stays where it is, and goes on afterwards.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from settle_mp.core.event import Event, unpack_event
from settle_mp.worker import producer as producers
from settle_mp.worker.journal import CLOSED
from settle_mp.worker.life import Life, Scope, stand_ins
from settle_mp.worker.report import FlushReport

if TYPE_CHECKING:
    from settle_mp.core.event import Quantity
    from settle_mp.core.wire import Flushed
    from settle_mp.worker.journal import Journal

#: The head of a record: the bytes that follow, and the process that wrote them. No bytes: a dropped event.
_HEAD: Final = struct.Struct("<II")


class Record(NamedTuple):
    """What one `track()` left; no event where it was refused and only counted."""

    pid: int
    event: Event | None


class Recording(Life):
    """A life for all producers at once, from `start` to `stop`. The latest one that was started records."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - It is open until `stop`.
        # Each write goes to the end, whichever process it comes from.
        fcntl.fcntl(self._file, fcntl.F_SETFL, os.O_APPEND)
        # Replaced as a whole, without a lock: threads, signal handlers and forks may come in between.
        self._known: tuple[int, list[Record]] = (0, [])
        self._flushed: dict[int, int] = {}
        self._cleared = 0
        # A journal as far as producers ask anything of a stand-in's.
        super().__init__(cast("Journal", _Tape(self)), None)

    def start(self) -> None:
        """Take the place of every producer's journal, of those too that are made later."""
        stand_ins.append(self)
        # So that the next `track()` of each takes the slow path, which asks for the life.
        for producer in producers.all_producers():
            producer.slot[0] = CLOSED

    def stop(self) -> None:
        """Give the journals their place back, and forget what was recorded."""
        stand_ins.remove(self)
        for producer in producers.all_producers():
            # Its courier may have gone to sleep meanwhile, and the call to wake it came here.
            producer.wake()
        self._file.close()

    @property
    def is_ours(self) -> bool:
        """True in a child as well: the file is everybody's."""
        return True

    def write(self, payload: bytes) -> None:
        """Append one record in one write."""
        os.write(self._file.fileno(), _HEAD.pack(len(payload), os.getpid()) + payload)

    def read(self) -> list[Record]:
        """What all processes have recorded since `clear`, in order."""
        return self._read_all()[self._cleared :]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._cleared = len(self._read_all())

    def _read_all(self) -> list[Record]:
        read_to, records = self._known
        fresh = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, read_to)
        found, length = _parse(fresh)
        if found:
            records = [*records, *found]
            self._known = (read_to + length, records)
        return records

    def _unflushed(self) -> tuple[int, int]:
        """Events and drops of this process since its last flush."""
        since = max(self._cleared, self._flushed.get(os.getpid(), 0))
        mine = [each.event is not None for each in self._read_all()[since:] if each.pid == os.getpid()]
        return sum(mine), len(mine) - sum(mine)

    @property
    def pending_count(self) -> int:
        """Events of this process since its last flush."""
        return self._unflushed()[0]

    # --- What a flush asks of a life: all of it is confirmed at once ---

    def scope(self) -> Scope:
        """Only what `report` needs, which looks for itself."""
        return Scope(position=0, census=0, count=0, drops_census=0, drops_count=0)

    def take_late(self) -> Flushed | None:
        """No answer is ever late."""
        return None

    def must_ask(self, scope: Scope) -> bool:
        """There is nobody to ask."""
        del scope
        return False

    def report(self, scope: Scope, answer: Flushed | None, reason: str) -> FlushReport:
        """Confirm what this process has tracked since its last flush; what it dropped makes it falsy."""
        del scope, answer, reason
        events_count, drops_count = self._unflushed()
        self._flushed[os.getpid()] = len(self._read_all())
        return FlushReport(
            confirmed_count=events_count,
            unconfirmed_count=drops_count,
            reason=f"{drops_count} events were dropped" if drops_count else None,
        )


def _parse(data: bytes) -> tuple[list[Record], int]:
    """Read whole records; returns them and their bytes. A last one may be half written yet."""
    records: list[Record] = []
    start = 0
    while start + _HEAD.size <= len(data):
        length, pid = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length
        if end > len(data):
            break
        payload = data[start + _HEAD.size : end]
        records.append(Record(pid, unpack_event(payload) if payload else None))
        start = end
    return records, start


class _Tape:
    """Where a producer expects a journal."""

    #: Nothing is lost with the process: another one reads the file.
    is_volatile = False

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def append(self, payload: bytes) -> None:
        self._recording.write(payload)

    def drop(self, quantity: Quantity) -> None:
        del quantity
        self._recording.write(b"")

    def mark(self, at_s: float) -> None:
        """Times matter to windows alone."""

    @property
    def pending_count(self) -> int:
        return self._recording.pending_count
