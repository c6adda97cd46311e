"""One question to a running collector, over its control socket."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

import zmq

from settle_mp import statedir, transport
from settle_mp.core import wire

if TYPE_CHECKING:
    from settle_mp.config import Settings

_M = TypeVar("_M")


def is_collector_up(settings: Settings) -> bool:
    """Whether a collector holds the state folder."""
    return statedir.is_locked(statedir.StateDir(settings.state_dir).collector_lock)


def ask(settings: Settings, question: wire.Message, kind: type[_M], *, timeout_s: float) -> _M | None:
    """Send a question and wait for an answer of a kind; None when none comes in time.

    Raises:
        AddressError: The collector's address can't be used.
    """
    endpoints = transport.endpoints(statedir.StateDir(settings.state_dir), settings.endpoint)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        # A name of its own, never one of a producer's: those are 16 bytes.
        socket = transport.dealer_socket(context, endpoints.control, b"command-" + os.urandom(16))
        socket.send(wire.encode_message(question))
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if not socket.poll(int(left_s * 1000) + 1):
                return None
            answer = wire.decode_message(socket.recv())
            if isinstance(answer, kind):
                return answer
        return None
    finally:
        context.destroy(linger=0)
