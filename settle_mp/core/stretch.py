"""Stretches of a journal's records that belong to one hour, and how its time marks tell.

Rule: the hour of a record is that of the latest time mark before it in its segment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.core.record import HEAD_BYTES, mark_s, read_records
from settle_mp.core.window import hour_of

if TYPE_CHECKING:
    from collections.abc import Iterator


def time_before(body: bytes, offset: int, seed: int, default_s: float) -> float:
    """The latest time mark before an offset of a segment; each segment begins with one.

    Args:
        body: The segment's bytes from its begin on.
        offset: Where in them.
        seed: The segment's checksum seed.
        default_s: The answer when there is none.
    """
    payloads, _ = read_records(body[:offset], seed, 0)
    if not payloads:
        first, _ = read_records(body[: HEAD_BYTES + 16], seed, 0)
        payloads = first[:1]
    return last_mark(payloads, default_s)


def last_mark(payloads: list[bytes], default_s: float) -> float:
    """The latest time mark among payloads, or `default_s`."""
    for payload in reversed(payloads):
        at_s = mark_s(payload)
        if at_s is not None:
            return at_s
    return default_s


def by_hour(payloads: list[bytes], at_s: float, bytes_max: int) -> Iterator[tuple[list[bytes], float]]:
    """Cut payloads at time marks where the hour changes, and at a size; each group with a time of its hour.

    Args:
        payloads: Of records, in order.
        at_s: The time before the first.
        bytes_max: Bytes of a group's records at most.
    """
    group: list[bytes] = []
    size = 0
    for payload in payloads:
        marked_s = mark_s(payload)
        is_new_hour = marked_s is not None and hour_of(marked_s) != hour_of(at_s)
        if group and (is_new_hour or size + len(payload) + HEAD_BYTES > bytes_max):
            yield group, at_s
            group, size = [], 0
        if marked_s is not None:
            at_s = marked_s
        group.append(payload)
        size += len(payload) + HEAD_BYTES
    if group:
        yield group, at_s
