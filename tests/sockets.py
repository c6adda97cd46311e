"""Sockets of the other side, for tests that are a worker, a collector or a stranger."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import Any, ClassVar, Final

import zmq


class KeepingContext(zmq.Context["zmq.Socket[bytes]"]):
    """A context whose sockets live as long as it does, whoever forgets them."""

    kept: ClassVar[list[object]] = []

    def socket(self, *arguments: Any, **options: Any) -> Any:
        """Make a socket and keep it."""
        made = super().socket(*arguments, **options)
        self.kept.append(made)
        return made


#: Below those that the system gives to clients: one that tries to reach a collector that was just killed may
#: be given the very port that it tries to reach, and talks to itself there.
PORTS: Final = range(10_240, 32_000)


def free_ports() -> int:
    """Find a port of 127.0.0.1 that is free, and the one above it, too."""
    while True:
        port = random.choice(PORTS)  # noqa: S311
        with socket.socket() as first, socket.socket() as second, contextlib.suppress(OSError):
            first.bind(("127.0.0.1", port))
            second.bind(("127.0.0.1", port + 1))
            return port
