"""What the collector tells systemd, in the protocol of sd_notify(3): ready, reloading, alive, stopping.

Datagrams of text on the socket that `NOTIFY_SOCKET` names. Elsewhere that variable is not set, and nothing
is said. Whatever goes wrong with it is nothing that the collector could do anything about.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


_MICROSECONDS: Final = 1_000_000
_FOREVER_S: Final = float("inf")


class Notifier:
    """Tells the service manager of one process.

    Args:
        environ: The environment that the process was started with.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog_s = _watchdog_s(environ) if self._address else _FOREVER_S
        self._alive_at_s = 0.0

    def ready(self) -> None:
        """It listens, or listens under the new settings."""
        self._say("READY=1", "STATUS=collecting")

    def reloading(self) -> None:
        """It reads its settings again; `ready` follows."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, within_s: float) -> None:
        """It ends, and may take so long."""
        extra = int(within_s * _MICROSECONDS)
        self._say("STOPPING=1", "STATUS=shipping what it can", f"EXTEND_TIMEOUT_USEC={extra}")

    def alive(self, now_s: float) -> None:
        """The loop turns; said at half of the time that is allowed between two.

        Args:
            now_s: Monotonic seconds.
        """
        if self.left_s(now_s) <= 0:
            self._alive_at_s = now_s
            self._say("WATCHDOG=1")

    def left_s(self, now_s: float) -> float:
        """How long nothing is to be said."""
        return self._alive_at_s + self._watchdog_s / 2 - now_s

    def _say(self, *lines: str) -> None:
        if not self._address:
            return
        # "@" stands for the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as said,
        ):
            said.setblocking(False)  # noqa: FBT003  socket's own signature
            said.sendto("\n".join(lines).encode(), address)


def _watchdog_s(environ: Mapping[str, str]) -> float:
    """The longest time between two signs of life; infinite when nobody watches this process."""
    pid, allowed = environ.get("WATCHDOG_PID", ""), environ.get("WATCHDOG_USEC", "")
    if not allowed.isdecimal() or int(allowed) == 0 or pid not in ("", str(os.getpid())):
        return _FOREVER_S
    return int(allowed) / _MICROSECONDS
