"""One thread waits for another's word, also where the waiting one is a greenlet."""

from __future__ import annotations

import contextlib
import socket

from settle_mp.worker import native


class Waiter:
    """A pair of sockets: waiting for one is something that gevent's hub can do as well. Use as a context."""

    def __init__(self) -> None:
        # OSError when descriptors have run out.
        heard, self._told = native.original("socket", "socketpair")()
        # A word more than the waiter hears must not stop its speaker.
        self._told.setblocking(False)  # noqa: FBT003  the signature of socket
        # The waiting end is what `socket` is now: a greenlet waits through its hub.
        self._heard = socket.socket(fileno=heard.detach())
        self._lock = native.allocate_lock()

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._told.close()
        self._heard.close()

    def wait(self, timeout_s: float) -> bool:
        """Wait for `notify`. Returns whether it came in time."""
        self._heard.settimeout(max(0.001, timeout_s))
        try:
            return bool(self._heard.recv(1))
        except (TimeoutError, socket.timeout):  # noqa: UP041  gevent raises the latter
            return False

    def notify(self) -> None:
        """Wake the waiter, if it is still there; called by the other thread."""
        with self._lock, contextlib.suppress(OSError):
            self._told.send(b"n")
