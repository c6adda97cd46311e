"""A collector in a test's hands: real PULL and ROUTER sockets, and every byte on them the test's own.

    with FakeCollector(state_dir) as collector:
        hello = collector.hear(wire.Hello)                    # waits; fails at a deadline
        collector.welcome(hello)                              # or say(hello.producer, any message)
        frame = collector.take()
        collector.ack(frame)

        with collector.serving():                             # answers all by itself, in a thread
            assert client.events.flush(timeout=5)
        assert collector.users() == [...]                     # whose events it has taken

Each message and each record that comes is checked to be whole.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, TypeVar

import pytest
import zmq

from settle_mp import transport
from settle_mp.core import wire
from settle_mp.core.event import unpack_event
from settle_mp.core.record import mark_s, read_records, segment_seed
from settle_mp.endpoints import parse
from settle_mp.statedir import StateDir, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.core.event import Event

#: Seconds that a test waits for what must come; only a failing test waits so long.
DEADLINE_S = 15.0

_Kind = TypeVar("_Kind", bound=wire.Message)


class FakeCollector:
    """Its own positions and events by producer; see the module."""

    def __init__(self, state_dir: Path, endpoint: str | None = None) -> None:
        self.ledger = os.urandom(16)
        self.frames: list[wire.Frame] = []
        self.messages: list[wire.Message] = []
        self.positions: dict[bytes, int] = {}
        self.events: list[Event] = []
        #: What a flush is told; None leaves it without an answer.
        self.flushed: Callable[[wire.Flush], wire.Message | None] = lambda flush: wire.Flushed(
            flush.ticket, 0, 0, 0, ""
        )
        #: Whether it says that it sees the workers' journals.
        self.is_seen = True
        self._flushes: list[wire.Flush] = []
        self._state = StateDir(state_dir)
        self._endpoints = parse(self._state, endpoint)
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self.start()

    def __enter__(self) -> FakeCollector:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, with all that it knew when it was stopped."""
        make_folder(self._state.root)
        self._context = zmq.Context()
        self._pull = transport.pull_socket(self._context)
        self._router = transport.router_socket(self._context)
        transport.bind(self._pull, self._endpoints.frames)
        transport.bind(self._router, self._endpoints.control)

    def stop(self) -> None:
        """Close the sockets; what is on its way is lost."""
        if self._context is not None:
            self._context.destroy(linger=0)
            self._context = None

    # --- By hand ---

    def say(self, producer: bytes, message: wire.Message) -> None:
        """Send a worker a control message."""
        self._router.send_multipart([producer, wire.encode_message(message)])

    def say_bytes(self, producer: bytes, data: bytes) -> None:
        """Send a worker anything."""
        self._router.send_multipart([producer, data])

    def hear(self, kind: type[_Kind], timeout_s: float = DEADLINE_S) -> _Kind:
        """Wait for a control message of a kind; others are kept in `messages`."""
        deadline_s = time.monotonic() + timeout_s
        while self._router.poll(max(0, int((deadline_s - time.monotonic()) * 1000))):
            message = self._next_message()
            if isinstance(message, kind):
                return message
        pytest.fail(f"no {kind.__name__} within {timeout_s} s; heard {self.messages}")

    def _next_message(self) -> wire.Message:
        identity, data = self._router.recv_multipart()
        message = wire.decode_message(data)
        assert getattr(message, "producer", identity) == identity
        self.messages.append(message)
        return message

    def take(self, timeout_s: float = DEADLINE_S) -> wire.Frame:
        """Wait for a frame and check that its records are whole."""
        if not self._pull.poll(int(timeout_s * 1000)):
            pytest.fail(f"no frame within {timeout_s} s; heard {self.messages}")
        frame = wire.decode_frame(self._pull.recv())
        records(frame)
        self.frames.append(frame)
        return frame

    def has_frame(self, within_s: float) -> bool:
        """Whether a frame comes in a time; it is not taken."""
        return bool(self._pull.poll(int(within_s * 1000)))

    def has_message(self, within_s: float) -> bool:
        """Whether a control message comes in a time; it is not taken."""
        return bool(self._router.poll(int(within_s * 1000)))

    def welcome(self, hello: wire.Hello, position: int = 0) -> None:
        """Tell a worker from where to send."""
        self.say(hello.producer, wire.Welcome(self.ledger, position, is_seen=self.is_seen))

    def ack(self, frame: wire.Frame) -> None:
        """Tell a worker that a frame is committed."""
        self.say(frame.producer, wire.Ack(self.ledger, frame.last))

    def settle(self, position: int, timeout_s: float = DEADLINE_S) -> list[wire.Frame]:
        """Take and acknowledge the frames that come, until everything before a position is taken."""
        taken: list[wire.Frame] = []
        deadline_s = time.monotonic() + timeout_s
        while not taken or taken[-1].last < position:
            taken.append(self.take(max(0.0, deadline_s - time.monotonic())))
            self.ack(taken[-1])
        return taken

    # --- By itself ---

    @contextlib.contextmanager
    def serving(self) -> Iterator[FakeCollector]:
        """Do what a collector does, in a thread, to the end of the block."""
        is_over = threading.Event()
        failures: list[BaseException] = []

        def serve() -> None:
            try:
                while not is_over.is_set():
                    self._turn()
            except BaseException as error:  # noqa: BLE001  the test's to see
                failures.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield self
        finally:
            is_over.set()
            thread.join()
        assert failures == []

    def _turn(self) -> None:
        poller = zmq.Poller()
        poller.register(self._pull, zmq.POLLIN)
        poller.register(self._router, zmq.POLLIN)
        ready = dict(poller.poll(20))
        if self._pull in ready:
            self._accept(self.take())
        if self._router in ready:
            self._answer(self._next_message())

    def _accept(self, frame: wire.Frame) -> None:
        position = self.positions.setdefault(frame.producer, 0)
        if frame.first > position:
            self.say(frame.producer, wire.GoBack(position))
            return
        if frame.last > position:
            self.events += events(frame, position - frame.first)
            self.positions[frame.producer] = frame.last
        self.say(frame.producer, wire.Ack(self.ledger, self.positions[frame.producer]))
        self._answer_flushes()

    def _answer(self, message: wire.Message) -> None:
        if isinstance(message, wire.Hello):
            self.welcome(message, self.positions.setdefault(message.producer, 0))
        elif isinstance(message, wire.Flush):
            self._flushes = [each for each in self._flushes if each.ticket != message.ticket]
            self._flushes.append(message)
        self._answer_flushes()

    def _answer_flushes(self) -> None:
        """Answer the flushes whose events have come; they are on another connection, and may be slower."""
        for flush in list(self._flushes):
            if self.positions.get(flush.producer, 0) >= flush.position:
                self._flushes.remove(flush)
                answer = self.flushed(flush)
                if answer is not None:
                    self.say(flush.producer, answer)

    def users(self) -> list[str]:
        """Whose events were taken, in order."""
        return sorted(event.user_id for event in self.events)


def records(frame: wire.Frame, skipped_bytes: int = 0) -> list[bytes]:
    """Read the payloads of a frame's records, all of which must be good."""
    offset = frame.first - frame.base + skipped_bytes
    body = frame.body[skipped_bytes:]
    payloads, used_bytes = read_records(body, segment_seed(frame.producer, frame.base), offset)
    assert used_bytes == len(body)
    return payloads


def events(frame: wire.Frame, skipped_bytes: int = 0) -> list[Event]:
    """Read a frame's events."""
    return [unpack_event(each) for each in records(frame, skipped_bytes) if mark_s(each) is None]


def users(frame: wire.Frame) -> list[str]:
    """Read whose events a frame carries."""
    return [event.user_id for event in events(frame)]


def marks(frame: wire.Frame) -> list[float]:
    """Read the time marks of a frame."""
    return [at_s for at_s in map(mark_s, records(frame)) if at_s is not None]
