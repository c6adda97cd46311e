"""A journal read to runs: from where its producer stands to where it can be read, hour by hour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from settle_mp.core.record import HEAD_BYTES, encode_record, read_records, segment_seed
from settle_mp.core.salvage import salvage
from settle_mp.core.stretch import by_hour, time_before
from settle_mp.core.wire import Frame
from settle_mp.journals import is_empty

if TYPE_CHECKING:
    from settle_mp.collector.decoder import Decoder, Run
    from settle_mp.journals import SegmentFile

#: Bytes of one stored run at most, as of a frame.
RUN_BYTES_MAX: Final = 128 * 1024
#: Bytes read of one journal at a time: the loop has others to serve, and what is read is in memory.
READ_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a journal that can't be read: which file, and what to say of it."""

    file: SegmentFile
    text: str


@dataclass(slots=True)
class Reading:
    """What one look at a journal gave.

    Attributes:
        runs: To be committed, in order.
        position: The position behind the last of them.
        damages: What was stepped over.
        is_whole: Whether it came to the journal's end; else there is more behind `position`.
    """

    position: int
    runs: list[Run] = field(default_factory=list)
    damages: list[Damage] = field(default_factory=list)
    is_whole: bool = True


def read_journal(
    decoder: Decoder,
    producer: bytes,
    files: list[SegmentFile],
    position: int,
    *,
    is_dead: bool,
    now_s: float,
) -> Reading:
    """Read what stands behind `position`: to the end, or to that of the segment that reaches READ_BYTES_MAX.

    Args:
        decoder: Makes runs of records.
        producer: Whose journal it is.
        files: Its segments in order.
        position: From where on.
        is_dead: Whether the producer can't write any more. In a live journal a bad record in the last
            segment means "not yet".
        now_s: The hour label where a segment has no time mark of its own.
    """
    reading = Reading(position)
    for index, file in enumerate(files):
        end = files[index + 1].base if index + 1 < len(files) else None
        if end is not None and end <= reading.position:
            continue
        if reading.position - position >= READ_BYTES_MAX:
            reading.is_whole = False
            break
        part = _Pass(decoder, producer, file, end, now_s)
        if file.base > reading.position:
            missing = file.base - reading.position
            reading.damages.append(Damage(file, f"{missing} bytes before position {file.base} are gone"))
            part.step_over(reading, file.base)
        part.read(reading, is_final=is_dead or end is not None)
    return reading


class _Pass:
    """One segment, read once."""

    def __init__(
        self, decoder: Decoder, producer: bytes, file: SegmentFile, end: int | None, now_s: float
    ) -> None:
        self._decoder = decoder
        self._producer = producer
        self._file = file
        self._seed = segment_seed(producer, file.base)
        # Where the next one begins beyond this one's size, what is between is missing, and so is our end.
        self._is_last = end is None or end - file.base > file.size
        body = file.read()
        self._found_bytes = len(body)
        size = file.size if end is None else min(file.size, end - file.base)
        self._body = body[:size].ljust(size, b"\0")
        self._now_s = now_s

    def read(self, reading: Reading, *, is_final: bool) -> None:
        start = reading.position - self._file.base
        if start >= len(self._body):
            return
        payloads, used = read_records(self._body[start:], self._seed, start)
        self._keep(reading, payloads, start, is_salvaged=False)
        clean_end = start + used
        if is_final and clean_end < len(self._body):
            if self._is_last and is_empty(self._body[clean_end:]):
                self._note_cut(reading, clean_end, has_end=clean_end + HEAD_BYTES <= self._found_bytes)
            else:
                self._salvage(reading, clean_end)

    def _salvage(self, reading: Reading, clean_end: int) -> None:
        """Save what stands behind bytes that are no record."""
        saved = salvage(self._body[clean_end:], self._seed, clean_end, is_last=self._is_last)
        for span in saved.spans:
            reading.damages.append(Damage(self._file, span.describe(self._file.base)))
        if not saved.spans:
            # A record that was cut off looks torn: both end in zeros, here in those that stand for the rest.
            self._note_cut(reading, clean_end, has_end=False)
        self._keep(reading, list(saved.payloads), clean_end, is_salvaged=True)
        if saved.spans:
            # What was read must not be read again, wherever it stood.
            self.step_over(reading, self._file.base + len(self._body))

    def _note_cut(self, reading: Reading, clean_end: int, *, has_end: bool) -> None:
        """A file shorter than it was made has lost what came next, unless zeros end its records."""
        if self._found_bytes < self._file.size and not has_end:
            text = f"everything behind position {self._file.base + clean_end} was cut off"
            reading.damages.append(Damage(self._file, text))

    def _keep(self, reading: Reading, payloads: list[bytes], offset: int, *, is_salvaged: bool) -> None:
        """Make runs of payloads: cut at time marks where the hour changes, and at a size."""
        if not payloads:
            return
        at_s = time_before(self._body, offset, self._seed, self._now_s)
        for group, group_s in by_hour(payloads, at_s, RUN_BYTES_MAX):
            if is_salvaged:
                # Stored as if it had been written where it can be read again.
                body = b"".join(encode_record(payload, self._seed, 0) for payload in group)
            else:
                body = self._body[offset : offset + sum(HEAD_BYTES + len(payload) for payload in group)]
            self._add(reading, group, reading.position + len(body), group_s, body)
            offset += len(body)

    def step_over(self, reading: Reading, end: int) -> None:
        """Move the position without reading, by a run that holds nothing."""
        if reading.position < end:
            self._add(reading, [], end, self._now_s, b"")

    def _add(self, reading: Reading, payloads: list[bytes], last: int, cut_s: float, body: bytes) -> None:
        frame = Frame(
            producer=self._producer, first=reading.position, base=self._file.base, cut_s=cut_s, body=body
        )
        run = self._decoder.run(payloads, frame, last=last)
        reading.runs.append(run)
        reading.position = last
