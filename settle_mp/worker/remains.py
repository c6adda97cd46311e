"""What a dead producer left, in pieces that can be sent: frames, and losses where its journal can't be read.

Each piece stands where it stands in the journal: whoever takes over later, from any position that the
collector names, finds the same pieces. The caller holds the journal's lock.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from settle_mp import journals, statedir
from settle_mp.core.record import (
    HEAD_BYTES,
    HEADER_BYTES,
    NO_LEDGER,
    count_events,
    encode_record,
    read_records,
    segment_seed,
    whole_records_bytes,
)
from settle_mp.core.salvage import salvage
from settle_mp.core.stretch import by_hour, last_mark, time_before
from settle_mp.core.wire import FRAME_BODY_BYTES_MAX, Frame, Lost

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.journals import SegmentFile


class Remains:
    """A dead producer's journal.

    Attributes:
        producer: Whose it is.
        header: What its header says.
        image: The header's bytes.
        tail: The position behind its last record, as far as it can be read.
    """

    def __init__(self, folder: Path, quarantine: Path) -> None:
        """Look at it; nothing is changed.

        Raises:
            OSError: It can't be read.
        """
        self.producer: bytes = bytes.fromhex(folder.name)
        self.image: bytes = _image(folder)
        self.header: journals.Header = journals.parse_header(self.image)
        self._folder = folder
        self._quarantine = quarantine
        self._files = journals.segments(folder)
        self._slot = self.header.courier
        self._counted = (self.header.bond.position, self.header.bond.events_count)
        self.tail: int = self.committed
        if self._files:
            newest = self._files[-1]
            self.tail = max(self.tail, newest.base + whole_records_bytes(newest.read()))

    @property
    def committed(self) -> int:
        """Up to where a ledger has committed, as far as the header knows."""
        return self._counted[0]

    @property
    def is_done(self) -> bool:
        """Whether its own header says that all of it is committed, and nothing was dropped: nobody needs it.

        Raises:
            OSError: It can't be read.
        """
        is_known = self.header.identity is not None and self.ledger != NO_LEDGER
        has_drops = self.header.drops.dropped_count > 0
        return is_known and not has_drops and next(self.pieces(self.committed), None) is None

    @property
    def ledger(self) -> bytes:
        """The ledger that it is bound to."""
        return self._slot.ledger

    def commit(self, ledger: bytes, position: int) -> None:
        """Note in the header how far the collector has come, as the dead courier would have.

        Raises:
            OSError: It can't be written.
        """
        before, events_count = self._counted
        if position > before:
            for file in self._files:
                events_count += count_events(file.read_range(before, min(position, file.base + file.size)))
        self._counted = (max(before, position), events_count)
        self._slot = replace(
            self._slot,
            sequence=self._slot.sequence + 1,
            ledger=ledger,
            position=self.committed,
            events_count=events_count,
        )
        journals.write_committed(self._folder, self._slot, "courier")

    def pieces(self, position: int) -> Iterator[Frame | Lost]:
        """Everything behind a position, in order.

        Raises:
            OSError: It can't be read.
        """
        for index, file in enumerate(self._files):
            end = self._files[index + 1].base if index + 1 < len(self._files) else None
            if end is not None and end <= position:
                continue
            if file.base > position:
                missing_bytes = file.base - position
                text = f"{missing_bytes} bytes before position {file.base} are gone"
                yield Lost(self.producer, position, file.base, text)
                position = file.base
            for piece in _Segment(self.producer, file, end).pieces(position - file.base):
                position = piece.last if isinstance(piece, Frame) else piece.end
                yield self._noted(piece, file) if isinstance(piece, Lost) else piece

    def _noted(self, lost: Lost, file: SegmentFile) -> Lost:
        """Keep a damaged segment for a person to look at, and say where."""
        kept = self._quarantine / f"{self.producer.hex()}-{file.path.name}"
        try:
            statedir.make_folder(self._quarantine)
            shutil.copyfile(file.path, kept)
            fate = f"kept as {kept}"
        except OSError as error:
            fate = f"not kept: {error.strerror or error}"
        host = self.header.identity.host if self.header.identity else "its host"
        return replace(lost, reason=f"{lost.reason}; the segment is {fate} on {host}")

    def remove(self) -> None:
        """Remove it, once nothing of it is needed.

        Raises:
            OSError: It can't be removed.
        """
        statedir.remove_folder(self._folder)


def _image(folder: Path) -> bytes:
    """The header's bytes; empty ones where it is gone, since the events may still be there."""
    with contextlib.suppress(FileNotFoundError):
        return journals.read_image(folder)
    return bytes(HEADER_BYTES)


@dataclass(slots=True)
class _Run:
    """Payloads of good records from an offset on."""

    offset: int
    payloads: list[bytes]


class _Segment:
    """One segment, read once."""

    def __init__(self, producer: bytes, file: SegmentFile, end: int | None) -> None:
        self._producer = producer
        self._file = file
        self._seed = segment_seed(producer, file.base)
        # Where the next one begins beyond this one's size, what is between is missing, and so is our end.
        self._is_last = end is None or end - file.base > file.size
        body = file.read()
        self._found_bytes = len(body)
        size = file.size if end is None else min(file.size, end - file.base)
        self._body = body[:size].ljust(size, b"\0")

    def pieces(self, at: int) -> Iterator[Frame | Lost]:
        """Everything from an offset on."""
        at_s = time_before(self._body, at, self._seed, time.time())
        while True:
            payloads, used = read_records(self._body[at : at + FRAME_BODY_BYTES_MAX], self._seed, at)
            if not payloads:
                break
            yield from self._frames(_Run(at, payloads), at_s, is_salvaged=False)
            at_s, at = last_mark(payloads, at_s), at + used
        rest = self._body[at:]
        if not rest:
            return
        if self._is_last and journals.is_empty(rest):
            if at + HEAD_BYTES > self._found_bytes:
                yield from self._cut_off(at)
            return
        yield from self._salvaged(at, at_s)

    def _salvaged(self, at: int, at_s: float) -> Iterator[Frame | Lost]:
        """What can be read behind bytes that are no record."""
        saved = salvage(self._body[at:], self._seed, at, is_last=self._is_last)
        if not saved.spans:
            # A record that was cut off looks torn: both end in zeros, here in those that stand for the rest.
            yield from self._cut_off(at)
            return
        payloads = iter(saved.payloads)
        ends = [span.start for span in saved.spans[1:]] + [len(self._body)]
        for span, end in zip(saved.spans, ends, strict=True):
            base = self._file.base
            yield Lost(self._producer, base + span.start, base + span.end, span.describe(base))
            run = _Run(span.end, [])
            at = span.end
            while at < end and (payload := next(payloads, None)) is not None:
                run.payloads.append(payload)
                at += HEAD_BYTES + len(payload)
            yield from self._frames(run, at_s, is_salvaged=True)
            at_s = last_mark(run.payloads, at_s)

    def _cut_off(self, at: int) -> Iterator[Lost]:
        """A file shorter than it was made has lost what came next."""
        if self._found_bytes < self._file.size:
            start, end = self._file.base + at, self._file.base + self._file.size
            yield Lost(self._producer, start, end, f"everything behind position {start} was cut off")

    def _frames(self, run: _Run, at_s: float, *, is_salvaged: bool) -> Iterator[Frame]:
        at = run.offset
        for group, group_s in by_hour(run.payloads, at_s, FRAME_BODY_BYTES_MAX):
            if is_salvaged:
                # Their offsets say where they once stood; where they stand now is as long as they are.
                body = b"".join(encode_record(payload, self._seed, 0) for payload in group)
            else:
                body = self._body[at : at + sum(HEAD_BYTES + len(payload) for payload in group)]
            base = self._file.base
            yield Frame(producer=self._producer, first=base + at, base=base, cut_s=group_s, body=body)
            at += len(body)
