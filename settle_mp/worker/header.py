"""A journal's header as its producer writes it: who it is, what is committed, what was dropped."""

from __future__ import annotations

import collections
import mmap
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from settle_mp.core.fold import add, number_text, parse_number
from settle_mp.core.record import HEADER_BYTES, Identity, Slot, decode_slot, encode_identity, encode_slot
from settle_mp.statedir import HEADER_NAME, open_new
from settle_mp.worker import native
from settle_mp.worker.turn import Turn

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.core.event import Quantity

#: How long another thread that counts drops is waited for, in seconds: it takes microseconds once it has the
#: GIL, unless a signal handler holds it up. And how often it is asked.
OTHERS_S: Final = 1.0
PAUSE_S: Final = 0.0002


class Header:
    """The mapped header file; plain memory for a journal without a folder."""

    def __init__(self, folder: Path | None, identity: Identity, mode: int) -> None:
        """Write and map it.

        Raises:
            OSError: When the folder can't be written.
        """
        self._bytes = _map_header(folder, identity, mode)
        self.committed: Slot = Slot()
        self.dropped: Slot = Slot()
        self._drops: collections.deque[list[Quantity]] = collections.deque()
        self._last_counted: list[Quantity] | None = None
        self._turn = Turn()

    @property
    def image(self) -> bytes:
        """All of it as it stands now, the collector's slots included."""
        return bytes(self._bytes[:])

    @property
    def collectors(self) -> Slot:
        """What the collector wrote here last."""
        return decode_slot("collector", self.image)

    def commit(self, ledger: bytes, position: int, events_count: int) -> None:
        """Note how far the collector has committed, and how many events that are by our own count."""
        self.committed = self._write(
            "courier", self.committed, ledger=ledger, position=position, events_count=events_count
        )

    def drop(self, quantity: Quantity) -> None:
        """Count one event that was not taken, where a SIGKILL does not reach the count any more.

        Whoever is at it counts for all, and is waited for. Only a signal handler in the midst of a count
        leaves its own to what it has interrupted.
        """
        self._drops.append([quantity])
        give_up_s = time.monotonic() + OTHERS_S
        while self._drops:
            if self._turn.run(self._count_drops):
                continue
            if self._turn.is_held_here or time.monotonic() > give_up_s:
                return
            native.original("time", "sleep")(PAUSE_S)

    def _count_drops(self) -> None:
        """Count what waits. May be ended by an exception anywhere: each drop is counted once all the same."""
        waiting = list(self._drops)
        counted = [index for index, each in enumerate(waiting) if each is self._last_counted]
        new = waiting[counted[0] + 1 :] if counted else waiting
        if new:
            quantity = parse_number(self.dropped.dropped_quantity)
            for each in new:
                quantity = add(quantity, each[0])
            count = self.dropped.dropped_count + len(new)
            written = self._write(
                "drops", self.dropped, dropped_count=count, dropped_quantity=number_text(quantity)
            )
            self.dropped, self._last_counted = written, new[-1]
        for _ in waiting:
            self._drops.popleft()

    def _write(self, writer: str, slot: Slot, **changes: object) -> Slot:
        newer = replace(slot, sequence=slot.sequence + 1, **changes)  # type: ignore[arg-type]
        at, data = encode_slot(writer, newer)
        self._bytes[at : at + len(data)] = data
        return newer

    def close(self) -> None:
        """Unmap; what was written stays."""
        if isinstance(self._bytes, mmap.mmap):
            self._bytes.close()


def _map_header(folder: Path | None, identity: Identity, mode: int) -> mmap.mmap | bytearray:
    image = encode_identity(identity)
    if folder is None:
        return bytearray(image.ljust(HEADER_BYTES, b"\0"))
    descriptor = open_new(folder / HEADER_NAME, mode)
    try:
        # A child forked in the midst of this does the same again, maybe late: the slots must not suffer.
        os.pwrite(descriptor, image, 0)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, HEADER_BYTES)
        else:
            os.ftruncate(descriptor, HEADER_BYTES)
        return mmap.mmap(descriptor, HEADER_BYTES)
    finally:
        os.close(descriptor)
