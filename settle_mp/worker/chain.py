"""The segments of a journal that are not freed, oldest first, each knowing the one that follows it.

Threads and signal handlers read and lengthen the chain without a lock. Only the journal frees, one at a
time, and never the newest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.core.record import count_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.worker.segment import Segment


class Chain:
    """The segments, read by journal positions."""

    def __init__(self, first: Segment) -> None:
        self._oldest = self._newest = first

    def __iter__(self) -> Iterator[Segment]:
        segment: Segment | None = self._oldest
        while segment is not None:
            yield segment
            segment = segment.successor

    @property
    def newest(self) -> Segment:
        """The segment that is appended to."""
        segment = self._newest
        while (successor := segment.successor) is not None:
            segment = successor
        # Only where the next look begins: a late store of an older one does no harm.
        self._newest = segment
        return segment

    @property
    def tail(self) -> int:
        """The position behind the last record."""
        return self.newest.last

    def held_bytes(self, position: int) -> int:
        """The sizes of the segments that something behind a position stands in."""
        return sum(segment.size for segment in self if segment.last > position)

    def read(self, position: int, bytes_max: int) -> tuple[int, bytes]:
        """Whole records from a position on, all of one segment.

        Returns:
            The segment's base, and the bytes; none when nothing more is there, or it was just freed.
        """
        for segment in self:
            if segment.base <= position < segment.last:
                return segment.base, segment.read(position, bytes_max)
        return position, b""

    def count_events(self, start: int, end: int) -> int:
        """How many events stand between two positions."""
        events_count = 0
        while start < end:
            _, body = self.read(start, end - start)
            if not body:
                break
            events_count += count_events(body)
            start += len(body)
        return events_count

    def free(self, position: int, folder: Path | None) -> None:
        """Remove the segments that stand before a position as a whole."""
        segment = self._oldest
        while (successor := segment.successor) is not None and segment.last <= position:
            # In this order, so that one interrupted in between is freed again.
            segment.discard(folder)
            self._oldest = segment = successor

    def close(self) -> None:
        """Unmap all; the files stay."""
        for segment in self:
            segment.close()
