"""The heir: ships what the dead of this host left, where the collector can't see their journals.

That is, over tcp, from a state folder that is not the collector's. Each worker is an heir, when it is
welcomed and from time to time; a free lock is the proof of death, and whoever takes it carries the journal,
in a thread of its own while there is something to carry.

Rule: the lock is held until the journal is carried to its end and removed. Whoever dies in between frees it.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

import zmq

from settle_mp import leftovers, statedir, transport
from settle_mp.notices import notice
from settle_mp.worker import birth, native
from settle_mp.worker.carrier import Carrier
from settle_mp.worker.link import Link
from settle_mp.worker.remains import Remains

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.endpoints import Endpoints

log: Final = logging.getLogger("settle_mp")

#: How often it looks for what the dead left, in seconds.
LOOK_S: Final = 30.0
#: How long an ending courier waits for its heir to notice, in seconds.
END_S: Final = 0.25
#: Different troubles logged at most.
TROUBLES_MAX: Final = 100


class Heir:
    """Looks after the journals beside one that is alive.

    Args:
        journals: The folder of all journals of this host.
        collector: Where what they hold is to go.
    """

    def __init__(self, journals: Path, collector: Endpoints) -> None:
        self._journals = journals
        self._collector = collector
        self._next_s = 0.0
        self._is_running = self._is_stopping = False
        self._told: set[str] = set()

    def turn(self, now_s: float) -> None:
        """Begin to look, if it is time to."""
        if self._is_running or now_s < self._next_s:
            return
        # Jitter, or all workers of a host would try the same locks in the same moment.
        self._next_s = now_s + LOOK_S * random.uniform(0.8, 1.2)  # noqa: S311
        self._is_running, self._is_stopping = True, False
        try:
            native.start_thread(self._run)
        except RuntimeError:  # the system allows no more threads: another worker may
            self._is_running = False

    def stop(self) -> None:
        """Leave what is not carried yet to the next heir."""
        self._is_stopping = True
        deadline_s = time.monotonic() + END_S
        sleep = native.original("time", "sleep")
        while self._is_running and time.monotonic() < deadline_s:
            sleep(0.01)

    # --- The thread ---

    def _run(self) -> None:
        try:
            leftovers.sweep(self._journals)
            for folder in statedir.producer_folders(self._journals):
                if self._is_stopping or not transport.has_free_descriptors():
                    break
                if leftovers.producer_of(folder.name) is not None:
                    self._look(folder)
        except Exception as error:  # noqa: BLE001  kept from the application; the journals have everything
            self._tell("heir_failed", f"{type(error).__name__}: {error}")
        finally:
            self._is_running = False

    def _look(self, folder: Path) -> None:
        try:
            if not birth.inherit(folder):
                return
        except OSError:  # gone meanwhile, or not ours to take
            return
        try:
            self._carry(folder)
        except OSError as error:
            self._tell("journal_not_carried", f"{folder}: {error.strerror or error}")
        finally:
            birth.release(bytes.fromhex(folder.name))

    def _carry(self, folder: Path) -> None:
        remains = Remains(folder, statedir.StateDir(folder.parent.parent).quarantine)
        if remains.is_done:
            # As most are where workers come and go: what its courier said at the end has been heard.
            remains.remove()
            return
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            carrier = Carrier(Link(context, self._collector, remains.producer), remains)
            is_over = carrier.run(lambda: self._is_stopping)
        finally:
            context.destroy(linger=0)
        if is_over:
            remains.remove()
        elif carrier.refusal:
            self._tell("journal_not_carried", f"{folder}: {carrier.refusal}")

    def _tell(self, name: str, reason: str) -> None:
        """Log once a kind of trouble. A greenlet's lock is no place for this thread, so not under gevent."""
        if reason not in self._told and len(self._told) < TROUBLES_MAX and not native.is_patched():
            self._told.add(reason)
            log.error(name, extra=notice(name, reason))
