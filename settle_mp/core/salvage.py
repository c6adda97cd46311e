"""What can be read of a dead producer's segment, and whether the rest is damage or an unfinished record.

Rule 1: every good record is kept, whatever stands before it.
Rule 2: bad bytes with nothing good after them, no more than one record's, and zeros behind, are a torn last
record: its `track()` never returned. Anything else that is bad or missing is a span of damage.
Rule 3: only what the segment's own producer wrote is taken for a record, never an image of one in its data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from settle_mp.core.event import PAYLOAD_BYTES_MAX
from settle_mp.core.record import EVENT_BYTE, HEAD, HEAD_BYTES, MARK_BYTE, RECORD_BYTES_MAX, read_on


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes of a segment in which no record can be read; offsets within the segment.

    `missing_bytes` counts what is not even there: the next record says that it was written so much later.
    A span of no bytes with none missing is a record that reads well but whose offset is impossible.
    """

    start: int
    end: int
    missing_bytes: int

    def describe(self, base: int) -> str:
        """What is lost, in words; `base` is the journal position of the segment's begin."""
        lost_bytes = self.end - self.start + self.missing_bytes
        return f"{lost_bytes} bytes at position {base + self.start} can't be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """All that can be read of a segment that its producer will not write again."""

    payloads: tuple[bytes, ...]
    spans: tuple[Span, ...]
    is_torn: bool


def salvage(body: bytes, seed: int, offset: int, *, is_last: bool) -> Salvage:
    """Read a dead producer's segment to its end, stepping over what is damaged.

    Args:
        body: The segment's bytes from a record's start on; for a segment that is not the last one, up
            to where the next begins.
        seed: The segment's checksum seed.
        offset: Where in the segment `body` begins.
        is_last: Whether this is the producer's last segment, in which a torn record may end it.
    """
    payloads: list[bytes] = []
    spans: list[Span] = []
    shift = offset
    at = read_on(body, 0, seed, shift, payloads)
    # A length of zero is a page that was lost when good records follow, and the end when none do.
    while (found := _next_good(body, at, seed)) is not None:
        missing_bytes = max(0, _displacement(body, found, seed) - shift)
        spans.append(Span(start=offset + at, end=offset + found, missing_bytes=missing_bytes))
        shift += missing_bytes
        payload = _record_at(body, found, seed)
        payloads.append(payload)
        at = read_on(body, found + HEAD_BYTES + len(payload), seed, shift, payloads)
    rest = body[at:].rstrip(b"\0") if is_last else body[at:]
    is_torn = is_last and 0 < len(rest) <= _torn_bytes_max(rest)
    if rest and not is_torn:
        spans.append(Span(start=offset + at, end=offset + at + len(rest), missing_bytes=0))
    return Salvage(payloads=tuple(payloads), spans=tuple(spans), is_torn=is_torn)


def _torn_bytes_max(rest: bytes) -> int:
    """How far a record that begins with `rest` can reach when its writer was killed in the middle.

    Whole head: as far as it says. No length yet: the longest record, as only later bytes were stored.
    A byte-wise copy that ended within the head has stored nothing behind it.
    """
    length = int.from_bytes(rest[:2], "little")
    if length == 0:
        return RECORD_BYTES_MAX
    return HEAD_BYTES + (length if length <= PAYLOAD_BYTES_MAX else 0)


# What a record's head can be: a length up to PAYLOAD_BYTES_MAX, six bytes of checksum and a low offset,
# then the first byte of an event or of a mark. A lookahead, because the next may begin one byte later.
# Python code would need seconds to step through a segment byte by byte, and minutes to check each one.
_HEAD_LIKE: Final = re.compile(
    rb"(?=.[\x00-\x%02x].{%d}[\x%02x\x%02x])"
    % (PAYLOAD_BYTES_MAX >> 8, HEAD_BYTES - 2, EVENT_BYTE, MARK_BYTE),
    re.DOTALL,
)


def _next_good(body: bytes, start: int, seed: int) -> int | None:
    """Where the next record whose checksum holds begins, wherever its writer meant it to stand."""
    for match in _HEAD_LIKE.finditer(body, start):
        if _record_at(body, match.start(), seed):
            return match.start()
    return None


def _record_at(body: bytes, at: int, seed: int) -> bytes:
    """The payload of the record at `at` when its checksum holds, wherever it was meant to stand; or b""."""
    if at + HEAD_BYTES > len(body):
        return b""
    length, checksum, _ = HEAD.unpack_from(body, at)
    payload = body[at + HEAD_BYTES : at + HEAD_BYTES + length]
    return payload if len(payload) == length and crc32(payload, seed) == checksum else b""


def _displacement(body: bytes, at: int, seed: int) -> int:
    """By how much the record at `at` and the one behind it claim to have stood later than they do.

    What was cut out before the first moved both. A first offset that only was damaged has moved none.
    """
    claims: list[int] = []
    for _ in range(2):
        payload = _record_at(body, at, seed)
        if payload:
            _, _, seen = HEAD.unpack_from(body, at)
            claims.append(seen - at)
        at += HEAD_BYTES + len(payload)
    return min(claims)
