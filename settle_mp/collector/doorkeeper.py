"""The doorkeeper: a thread that looks at the descriptors as connections come, not when the loop has time.

libzmq accepts in a thread of its own, thousands a second, and ends the process where an ipc listener finds no
descriptor left (rule C1). The loop may be busy with a commit meanwhile. What can still end it is a peer of
the same user that means to: the keeper needs the GIL, and libzmq's thread does not.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Events taken between two looks.
EVENTS_MAX: Final = 16
#: How long an end waits for the thread, in seconds; it is a daemon, and nothing durable depends on it.
END_S: Final = 5.0
_EVENT: Final = struct.Struct("=HI")


class Doorkeeper:
    """Calls `look` whenever somebody has come in.

    Args:
        sockets: Those that listen.
        look: What is done, in the keeper's thread.
    """

    def __init__(self, sockets: Iterable[zmq.Socket[bytes]], look: Callable[[], object]) -> None:
        self._sockets = list(sockets)
        self._look = look
        self._thread = threading.Thread(target=self._run, name="settle-mp doorkeeper", daemon=True)

    def start(self) -> None:
        """Begin to keep the doors; called by who owns the sockets."""
        events = zmq.EVENT_ACCEPTED | zmq.EVENT_MONITOR_STOPPED
        # From here on they are the thread's, as every socket belongs to one.
        self._monitors = [socket.get_monitor_socket(events) for socket in self._sockets]
        self._thread.start()

    def stop(self) -> None:
        """End, before the sockets are closed."""
        for socket in self._sockets:
            socket.disable_monitor()
        self._thread.join(END_S)

    def _run(self) -> None:
        poller = zmq.Poller()
        for monitor in self._monitors:
            poller.register(monitor, zmq.POLLIN)
        open_count = len(self._monitors)
        while open_count:
            ready = poller.poll()
            # First, since each event that is taken may cost a wait for the GIL.
            self._look()
            for monitor, _ in ready:
                if _is_stopped(monitor):
                    poller.unregister(monitor)
                    monitor.close(linger=0)
                    open_count -= 1


def _is_stopped(monitor: zmq.Socket[bytes]) -> bool:
    """Take the next events of a monitor: somebody was accepted, or nobody is watched any more."""
    with contextlib.suppress(zmq.Again):
        for _ in range(EVENTS_MAX):
            number, _ = _EVENT.unpack(monitor.recv_multipart(zmq.NOBLOCK)[0])
            if number == zmq.EVENT_MONITOR_STOPPED:
                return True
    return False
