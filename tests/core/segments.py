"""Journal segments as a producer writes them, for the tests of reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.core.event import pack_event
from settle_mp.core.record import encode_record, segment_seed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PRODUCER = bytes(range(16))
SEED = segment_seed(PRODUCER, 0)


def event(number: int, size: int = 0) -> bytes:
    """A payload that no other number has."""
    return pack_event(f"user_{number}", "AI_QUERY", number + 1, {"pad": "x" * size} if size else None)


def events(count: int) -> list[bytes]:
    """Payloads of different lengths, each its own."""
    return [event(number, 7 * number % 50) for number in range(count)]


def records(payloads: Iterable[bytes], offset: int = 0, seed: int = SEED) -> list[bytes]:
    """One thread's records, the first at `offset`."""
    made: list[bytes] = []
    for payload in payloads:
        made.append(encode_record(payload, seed, offset))
        offset += len(made[-1])
    return made


def segment(payloads: Sequence[bytes], zeros: int = 0) -> bytes:
    """A segment's bytes: records, and zeros where nothing was written yet."""
    return b"".join(records(payloads)) + bytes(zeros)
