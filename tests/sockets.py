"""Sockets of the other side, for tests that are a worker, a collector or a stranger."""

from __future__ import annotations

import socket
from typing import Any, ClassVar

import zmq


class KeepingContext(zmq.Context["zmq.Socket[bytes]"]):
    """A context whose sockets live as long as it does, whoever forgets them."""

    kept: ClassVar[list[object]] = []

    def socket(self, *arguments: Any, **options: Any) -> Any:
        """Make a socket and keep it."""
        made = super().socket(*arguments, **options)
        self.kept.append(made)
        return made


def free_ports() -> int:
    """Find a port of 127.0.0.1 that is free, and the one above it, too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port
