"""A link: the two sockets between one producer and its collector. Whoever opens it is the one to use it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import zmq

from settle_mp import transport
from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.endpoints import Endpoints

#: Messages heard in one turn.
MESSAGES_MAX: Final = 256


class Link:
    """What one producer says and hears.

    Attributes:
        socket: What there is something to hear on, for a poll.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], collector: Endpoints, producer: bytes
    ) -> None:
        """Connect, now or whenever the collector is there."""
        self._push = transport.push_socket(context, collector.frames, collector.curve)
        self.socket: zmq.Socket[bytes] = transport.dealer_socket(
            context, collector.control, producer, collector.curve
        )

    def close(self) -> None:
        """Close both; what is on its way may be lost."""
        self._push.close(linger=0)
        self.socket.close(linger=0)

    def send(self, frame: wire.Frame) -> bool:
        """Send a frame. Returns whether it went; it is known to have arrived when it is acked."""
        try:
            self._push.send(wire.encode_frame(frame), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def say(self, message: wire.Message) -> None:
        """Say something, if it can be said now; whoever needs an answer asks again."""
        with contextlib.suppress(zmq.Again):
            self.socket.send(wire.encode_message(message), zmq.NOBLOCK)

    def heard(self) -> Iterator[wire.Message]:
        """What the collector has said."""
        for _ in range(MESSAGES_MAX):
            try:
                data = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            with contextlib.suppress(wire.WireError):  # a stranger's or another version's: not ours to judge
                yield wire.decode_message(data)
