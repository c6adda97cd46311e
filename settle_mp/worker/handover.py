"""Handing over: what an ending process still gives to the collector, and how long it tries."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from settle_mp import transport

if TYPE_CHECKING:
    from settle_mp.endpoints import Endpoints
    from settle_mp.worker.journal import Journal


class HandOver:
    """One attempt, for at most so long.

    It is about what stands in the journal now. Another thread may go on tracking, faster than the collector
    acknowledges; what comes from here on is read from the journal.
    """

    def __init__(self, journal: Journal, endpoints: Endpoints, timeout_s: float) -> None:
        self._journal = journal
        self._position = journal.tail
        if not journal.is_volatile and _is_nobody_there(endpoints):
            # Waiting would only make the end of each process slower: the journal keeps everything.
            timeout_s = 0.0
        self.timeout_s = timeout_s
        self._until_s = time.monotonic() + timeout_s

    @property
    def left_s(self) -> float:
        """How much of the time is left."""
        return self._until_s - time.monotonic()

    @property
    def is_over(self) -> bool:
        """Whether all is handed over, or the time for it is up."""
        return self._journal.committed >= self._position or self.left_s <= 0


def _is_nobody_there(endpoints: Endpoints) -> bool:
    """Whether no collector listens: known at once on this machine only."""
    if endpoints.is_tcp:
        return False
    try:
        return not transport.is_listening(Path(endpoints.control.removeprefix("ipc://")))
    except OSError:  # no descriptor to ask with
        return False
