"""Adoption: the collector reads journals itself where no courier brings them.

That is, what the dead left, and what live producers wrote whose courier is silent (uWSGI without threads, a
child that no hook reached). A free lock is the proof of death; it is held while the journal is read to its
end and committed, and only then the folder goes.
"""

from __future__ import annotations

import collections
import logging
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp import journals, leftovers, statedir
from settle_mp.collector.reading import read_journal
from settle_mp.core.books import Amount
from settle_mp.core.fold import parse_number
from settle_mp.notices import notice

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.collector.reading import Reading
    from settle_mp.collector.reception import Reception
    from settle_mp.collector.state import State

log: Final = logging.getLogger("settle_mp")

#: How often the journals are looked through, in seconds.
SCAN_S: Final = 1.0
#: How long the bytes of a live producer may lie there before the collector takes them itself, in seconds.
SILENT_S: Final = 2.0
#: Journals and bytes of one turn of the loop at most; one journal's last segment may go beyond.
TURN_JOURNALS_MAX: Final = 256
TURN_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(slots=True)
class Estate:
    """A dead producer's journal, locked by us, to be removed once it is committed up to `position`."""

    folder: Path
    lock: int
    position: int
    dropped: Amount


class Adoption:
    """Looks through the journals, a bounded piece in each turn of the loop."""

    def __init__(self, state: State, reception: Reception, state_dir: statedir.StateDir) -> None:
        """Begin with a look at everything."""
        self._state = state
        self._reception = reception
        self._dir = state_dir
        self._todo: collections.deque[Path] = collections.deque()
        self._next_scan_s = float("-inf")
        self._estates: dict[bytes, Estate] = {}
        self._lying: dict[bytes, tuple[int, float]] = {}
        self._suspected: dict[bytes, list[str]] = {}
        self._unread: dict[Path, str] = {}
        self._begun_count = 0
        self._is_scanned = False
        #: How many scans were finished, and all that they read is committed; see `scan_anew`.
        self.done_count: int = 0
        #: While a host-wide flush waits, live journals are read without waiting for their couriers.
        self.is_urgent = False

    @property
    def unread(self) -> list[str]:
        """Which journals could not be read when they were looked at last, and why."""
        return list(self._unread.values())

    def scan_soon(self) -> None:
        """Look again at once, since somebody said goodbye."""
        self._next_scan_s = float("-inf")

    def scan_anew(self) -> int:
        """Begin a scan that sees everything tracked before now. Returns what `done_count` is at its end."""
        self.scan_soon()
        return self._begun_count + 1

    def left_s(self, now_s: float) -> float:
        """How long nothing is to be done here."""
        return 0.0 if self._todo else max(0.0, self._next_scan_s - now_s)

    def turn(self, now_s: float) -> None:
        """Look at some journals; what they hold goes to the reception.

        Args:
            now_s: Monotonic seconds.
        """
        if not self._todo and not self._is_scanned and now_s >= self._next_scan_s:
            self._next_scan_s = now_s + SCAN_S
            self._begin_scan()
        for _ in range(TURN_JOURNALS_MAX):
            if not self._todo or self._reception.gathered_bytes >= TURN_BYTES_MAX:
                return
            folder = self._todo.popleft()
            self._unread.pop(folder, None)
            try:
                self._look(folder, now_s)
            except FileNotFoundError:
                pass  # gone meanwhile
            except OSError as error:
                # One journal that can't be read must not keep the collector from all others.
                self._unread[folder] = f"journal {folder.name} can't be read: {error.strerror or error}"
                self._reception.tell("journal_not_read", f"{folder}: {error.strerror or error}")
            self._is_scanned = not self._todo

    def _begin_scan(self) -> None:
        self._begun_count += 1
        try:
            self._sweep()
            self._todo.extend(statedir.producer_folders(self._dir.journals))
        except OSError as error:
            # What can't be listed is neither gone nor looked through; the next scan tries again.
            self._reception.tell("journals_not_listed", f"{self._dir.journals}: {error.strerror or error}")
            return
        self._is_scanned = not self._todo

    def _look(self, folder: Path, now_s: float) -> None:
        producer = leftovers.producer_of(folder.name)
        if producer is None or producer in self._estates:
            return
        lock = statedir.try_lock(folder / statedir.LOCK_NAME)
        if lock is None:
            self._look_at_live(producer, folder, now_s)
            return
        try:
            self._take_over(producer, folder, lock)
        except BaseException:
            os.close(lock)
            raise

    # --- The dead ---

    def _take_over(self, producer: bytes, folder: Path, lock: int) -> None:
        header = _header_of(folder)
        if self._reception.greet(producer, header):
            os.close(lock)
            return
        reading = self._read(producer, folder, is_dead=True)
        if not reading.is_whole:
            os.close(lock)
            self._todo.appendleft(folder)
            return
        dropped = Amount(header.drops.dropped_count, parse_number(header.drops.dropped_quantity))
        self._estates[producer] = Estate(folder, lock, reading.position, dropped)

    def settle(self) -> None:
        """Remove the folders of the dead whose journals are committed to their ends.

        To be called after what was gathered is committed, or while it is not due yet.

        Raises:
            LedgerError: The folders stay, and are looked at again.
        """
        self._settle_estates()
        if self._is_scanned and not self._reception.is_gathering:
            self._is_scanned = False
            self.done_count = self._begun_count

    def _settle_estates(self) -> None:
        done = {
            producer: estate
            for producer, estate in self._estates.items()
            if (member := self._state.members.get(producer)) and member.position >= estate.position
        }
        if not done:
            return
        with self._state.ledger.transaction():
            self._state.ledger.record_dropped({producer: each.dropped for producer, each in done.items()})
            self._state.ledger.mark_gone(done, time.time())
        for producer, estate in done.items():
            self._state.members[producer].is_gone = True
            try:
                statedir.remove_folder(estate.folder)
            except OSError as error:
                self._reception.tell("journal_not_removed", f"{estate.folder}: {error.strerror}")
            os.close(estate.lock)
            del self._estates[producer]

    def drop(self) -> None:
        """Let go of everything, after an error of the ledger; the next scan begins again."""
        for estate in self._estates.values():
            os.close(estate.lock)
        self._estates.clear()
        self._todo.clear()
        self._is_scanned = False

    # --- The living ---

    def _look_at_live(self, producer: bytes, folder: Path, now_s: float) -> None:
        member = self._state.members.get(producer)
        if not self._reception.knows(producer):
            if self._reception.greet(producer, _header_of(folder)):
                return
        elif member is not None and now_s - member.heard_s < SILENT_S and not self.is_urgent:
            return
        position = self._reception.position(producer)
        if not journals.has_record_at(journals.segments(folder), position):
            self._lying.pop(producer, None)
            return
        lying_at, since_s = self._lying.setdefault(producer, (position, now_s))
        if lying_at != position:
            self._lying[producer] = lying_at, since_s = (position, now_s)
        if now_s - since_s >= SILENT_S or self.is_urgent:
            reading = self._read(producer, folder, is_dead=False)
            if not reading.is_whole:
                self._lying[producer] = (reading.position, since_s)
                self._todo.appendleft(folder)

    def _read(self, producer: bytes, folder: Path, *, is_dead: bool) -> Reading:
        reading = read_journal(
            self._state.decoder,
            producer,
            journals.segments(folder),
            self._reception.position(producer),
            is_dead=is_dead,
            now_s=time.time(),
        )
        if not is_dead and not self._is_believed(producer, reading):
            return reading
        for run in reading.runs:
            self._reception.take_run(run)
        for damage in reading.damages:
            self._put_aside(producer, damage.file.path, damage.text)
        return reading

    def _is_believed(self, producer: bytes, reading: Reading) -> bool:
        """Whether what was read of a live journal can be taken: damage only when it was there before.

        Its segments come and go while they are read, one after the other.
        """
        damages = [damage.text for damage in reading.damages]
        before = self._suspected.pop(producer, None)
        if not damages or damages == before:
            return True
        self._suspected[producer] = damages
        return False

    def _put_aside(self, producer: bytes, path: Path, text: str) -> None:
        """Keep a damaged segment for a person to look at, and name what it took."""
        kept = self._dir.quarantine / f"{producer.hex()}-{path.name}"
        try:
            statedir.make_folder(self._dir.quarantine)
            shutil.copyfile(path, kept)
            fate = f"kept as {kept}"
        except OSError as error:
            # Of no weight against the word on what is lost, which must come before the rest is committed.
            fate = f"not kept: {error.strerror or error}"
        residue = f"journal {producer.hex()}: {text}; the segment is {fate}"
        self._state.ledger.add_residue(f"journal {producer.hex()} {text}", residue, time.time())
        log.error("journal_damaged", extra=notice("journal_damaged", residue))

    # --- Tidying ---

    def _sweep(self) -> None:
        """Remove what builders and removers left behind, and note whose folder is gone."""
        known = leftovers.sweep(self._dir.journals)
        for producer in self._lying.keys() - known:
            del self._lying[producer]
        for folder in [each for each in self._unread if leftovers.producer_of(each.name) not in known]:
            del self._unread[folder]
        self._reception.forget_refusals(known)
        gone = [
            member.id
            for member in self._state.members.values()
            if member.id not in known and not member.is_unseen and not member.is_gone
        ]
        if gone:
            self._state.ledger.mark_gone(gone, time.time())
            for producer in gone:
                self._state.members[producer].is_gone = True


def _header_of(folder: Path) -> journals.Header:
    """A journal's header; an empty one where it is gone, since the events may still be there."""
    try:
        return journals.read_header(folder)
    except FileNotFoundError:
        if not folder.is_dir():
            raise
        return journals.parse_header(b"")
