"""Journals as they stand beside one snapshot of the ledger, while workers write and free them.

Rule 1: what is there is opened before the ledger is read: what is freed meanwhile can then still be read.
Rule 2: a header and the segments belong together when the header's count did not move while they were opened.
Rule 3: whatever is counted twice is counted from the same bytes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from settle_mp import journals, statedir
from settle_mp.core.books import Amount
from settle_mp.core.event import InvalidEventError, unpack_event
from settle_mp.core.fold import times, total
from settle_mp.core.record import HEADER_BYTES, mark_s, read_records, segment_seed
from settle_mp.core.salvage import salvage

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.core.event import Quantity

#: How often a header is read again because its producer moved it meanwhile.
HEADER_READS_MAX: Final = 50
#: How often, and how long after, a live journal is read again that seems damaged: its producer writes while
#: it is read, and the end of a record may be seen before its beginning (seconds).
READS_MAX: Final = 5
READ_AGAIN_S: Final = 0.01


@dataclass(slots=True)
class Stretch:
    """What stands behind a position.

    Attributes:
        amount: Events and their quantity.
        damages: What can't be read there.
        is_whole: Whether the journal still reaches back to the position.
        oldest_s: About when its first event was tracked (Unix seconds).
    """

    amount: Amount
    damages: list[str] = field(default_factory=list)
    is_whole: bool = True
    oldest_s: float | None = None


class HeldJournal:
    """One journal, its files held open."""

    def __init__(self, folder: Path) -> None:
        """Open what is there."""
        self.folder = folder
        self.producer: bytes = bytes.fromhex(folder.name)
        self._files: dict[str, tuple[journals.SegmentFile, int]] = {}
        self._header_file: int | None = None
        self._bodies: list[tuple[journals.SegmentFile, bytes]] = []
        self.is_live: bool = False
        self.is_gone: bool = False
        self._unread = ""
        self.hold()
        #: As it was when the journal was opened, and as it is once that is settled.
        self.first_header: journals.Header = self._read_header()
        self.header: journals.Header = self.first_header

    @property
    def is_lost(self) -> bool:
        """Whether it was removed before anything of it was opened, and so committed before that."""
        return self.is_gone and not self._files

    def hold(self) -> None:
        """Open what is not open yet. What can't be opened is found missing later."""
        with contextlib.suppress(OSError):
            for file in journals.all_segments(self.folder):
                if file.path.name not in self._files:
                    self._files[file.path.name] = (file, _open(file.path))
        with contextlib.suppress(OSError):
            if self._header_file is None:
                self._header_file = _open(self.folder / statedir.HEADER_NAME)

    def settle(self) -> None:
        """Read it as it stands now."""
        self._unread = ""
        try:
            self.is_live = statedir.is_locked(self.folder / statedir.LOCK_NAME)
        except OSError as error:
            self._note(error)
        for _ in range(HEADER_READS_MAX):
            before = self._read_header()
            self.hold()
            self.header = self._read_header()
            if self.header.courier == before.courier:
                break
        self.is_gone = not self.folder.is_dir()
        self._read_bodies()

    def behind(self, position: int) -> Stretch:
        """Everything behind a position, from the bytes that `settle` has read."""
        stretch = self._behind(position)
        for _ in range(READS_MAX if self.is_live else 0):
            if not stretch.damages:
                break
            time.sleep(READ_AGAIN_S)
            self.hold()
            self._read_bodies()
            stretch = self._behind(position)
        return stretch

    def events_behind(self, position: int) -> tuple[int, bool]:
        """How many events stand behind a position, and whether the journal still reaches back to it."""
        stretch = self._behind(position)
        return stretch.amount.events, stretch.is_whole

    def close(self) -> None:
        """Close its files."""
        for _, descriptor in self._files.values():
            os.close(descriptor)
        self._files.clear()
        if self._header_file is not None:
            os.close(self._header_file)
            self._header_file = None

    def _read_header(self) -> journals.Header:
        if self._header_file is None:
            return journals.parse_header(b"")
        try:
            return journals.parse_header(os.pread(self._header_file, HEADER_BYTES, 0))
        except OSError as error:
            self._note(error)
            return journals.parse_header(b"")

    def _note(self, error: OSError) -> None:
        """Something of it can't be read now, and is not damaged for that."""
        self._unread = f"it can't be read: {error.strerror}"

    def _read_bodies(self) -> None:
        bodies: dict[int, tuple[journals.SegmentFile, bytes]] = {}
        for file, descriptor in self._files.values():
            try:
                body = journals.read_descriptor(descriptor, file.size)
            except OSError as error:
                self._note(error)
                continue
            known = bodies.get(file.base)
            if known is None or journals.is_fuller(body, known[1]):
                bodies[file.base] = (file, body)
        self._bodies = [bodies[base] for base in sorted(bodies)]

    def _behind(self, position: int) -> Stretch:
        stretch = Stretch(Amount())
        payloads: list[bytes] = []
        reached = position
        for index, (file, body) in enumerate(self._bodies):
            end = self._bodies[index + 1][0].base if index + 1 < len(self._bodies) else None
            if end is not None and end <= position:
                continue
            if file.base > reached:
                stretch.is_whole = False
                stretch.damages.append(f"{file.base - reached} bytes before position {file.base} are gone")
            start = max(0, reached - file.base)
            stop = file.size if end is None else min(file.size, end - file.base)
            part = self._read(file, body[:stop], start, stretch, is_last=end is None)
            if stretch.oldest_s is None and _events(part):
                stretch.oldest_s = self._time_of(file, body, start, part)
            payloads += part
            reached = file.base + stop
        if self._unread:
            stretch.is_whole = False
            stretch.damages.append(self._unread)
        elif not self._bodies:
            stretch.is_whole = False
            stretch.damages.append("its segments are gone")
        stretch.amount = _amount_of(payloads)
        return stretch

    def _read(
        self, file: journals.SegmentFile, body: bytes, start: int, stretch: Stretch, *, is_last: bool
    ) -> list[bytes]:
        seed = segment_seed(self.producer, file.base)
        payloads, used = read_records(body[start:], seed, start)
        clean_end = start + used
        if not (is_last and journals.is_empty(body[clean_end:])):
            saved = salvage(body[clean_end:], seed, clean_end, is_last=is_last)
            payloads += saved.payloads
            places = [file.base + span.start for span in saved.spans]
            stretch.damages += [f"no record can be read at position {place}" for place in places]
        return payloads

    def _time_of(
        self, file: journals.SegmentFile, body: bytes, start: int, payloads: list[bytes]
    ) -> float | None:
        """The latest time mark before the first event of `payloads`, which begin at `start`."""
        before, _ = read_records(body[:start], segment_seed(self.producer, file.base), 0)
        first = next(index for index, payload in enumerate(payloads) if mark_s(payload) is None)
        marks = [at_s for at_s in map(mark_s, before + payloads[:first]) if at_s is not None]
        return marks[-1] if marks else None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)


def _events(payloads: list[bytes]) -> bool:
    return any(mark_s(payload) is None for payload in payloads)


def _amount_of(payloads: list[bytes]) -> Amount:
    events_count = 0
    quantities: list[Quantity] = []
    for payload, count in Counter(payloads).items():
        if mark_s(payload) is not None:
            continue
        events_count += count
        with contextlib.suppress(InvalidEventError):  # it will be dead-lettered with a quantity of 0
            quantities.append(times(unpack_event(payload).quantity, count))
    return Amount(events_count, total(quantities))
