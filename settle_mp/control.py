"""One question to a running collector, over its control socket; for commands."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Final, TypeVar

import zmq

from settle_mp import endpoints, statedir, transport
from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.config import Settings

_M = TypeVar("_M")

#: How long a question may stay unanswered before it is asked again, in seconds: the collector that heard it
#: may be gone.
AGAIN_S: Final = 0.5
#: How long a collector on another host gets to say that it is there, in seconds.
ANSWER_S: Final = 2.0


def is_collector_up(settings: Settings) -> bool:
    """Whether a collector holds the state folder, or answers over tcp where that is another host's."""
    if statedir.is_locked(statedir.StateDir(settings.state_dir).collector_lock):
        return True
    if settings.endpoint is None or not settings.endpoint.startswith("tcp://"):
        return False
    with contextlib.suppress(transport.AddressError):
        return ask(settings, lambda _: wire.Ping(), wire.Pong, timeout_s=ANSWER_S) is not None
    return False


def ask(
    settings: Settings, question: Callable[[float], wire.Message], kind: type[_M], *, timeout_s: float
) -> _M | None:
    """Ask, again and again, until an answer of a kind comes; None when none comes in time.

    Args:
        settings: Where the collector is.
        question: Makes the message, given the seconds that are left.
        kind: What answers it; anything else is not heard.
        timeout_s: How long to ask, in seconds.

    Raises:
        AddressError: The collector's address can't be used.
        KeysError: The keys for it can't be used.
    """
    collector = endpoints.of_client(settings)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        # A name of its own, never one of a producer's: those are 16 bytes.
        name = b"command-" + os.urandom(16)
        socket = transport.dealer_socket(context, collector.control, name, collector.curve)
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            with contextlib.suppress(zmq.Again):  # the queue to a collector that is away is full
                socket.send(wire.encode_message(question(left_s)), zmq.NOBLOCK)
            answer = _hear(socket, kind, min(left_s, AGAIN_S))
            if answer is not None:
                return answer
        return None
    finally:
        context.destroy(linger=0)


def _hear(socket: zmq.Socket[bytes], kind: type[_M], timeout_s: float) -> _M | None:
    deadline_s = time.monotonic() + timeout_s
    while (left_s := deadline_s - time.monotonic()) > 0 and socket.poll(int(left_s * 1000) + 1):
        with contextlib.suppress(wire.WireError):  # another version's, say
            answer = wire.decode_message(socket.recv())
            if isinstance(answer, kind):
                return answer
    return None
