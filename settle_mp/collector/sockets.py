"""The collector's sockets and the one poll that waits for all of them."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq

from settle_mp import transport
from settle_mp.collector.door import Door
from settle_mp.collector.doorkeeper import Doorkeeper
from settle_mp.collector.gate import Gate
from settle_mp.core.wire import Message, encode_message
from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from settle_mp.endpoints import Endpoints

log: Final = logging.getLogger("settle_mp")

#: Messages of one socket taken in one turn, so that the other gets its turn.
MESSAGES_MAX: Final = 2_000
#: Parts of a message that are kept; more are a stranger's, and are read to their end and thrown away.
PARTS_MAX: Final = 3
#: Parts of a control message as ROUTER gives it: who says it, and what.
CONTROL_PARTS: Final = 2
#: Descriptors left free: libzmq aborts the process when it can't accept a connection. Once the doors are shut
#: two queues of `transport.BACKLOG` still come in, and whoever was faster than the doorkeeper.
DESCRIPTORS_FREE_MIN: Final = 128


@dataclass(frozen=True, slots=True)
class Ready:
    """Which sockets have something."""

    frames: bool
    control: bool


class Sockets:
    """PULL for frames, ROUTER for control, and the descriptors that end the wait."""

    def __init__(self, endpoints: Endpoints, wake_fd: int, admitted: Collection[str] = ()) -> None:
        """Make the sockets; `open` binds them.

        Args:
            endpoints: Where, and with which keys.
            wake_fd: A descriptor that ends the wait.
            admitted: The public keys of those who may come in where CURVE is spoken.
        """
        self._descriptors_max = transport.raise_descriptor_limit()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        curve = endpoints.curve
        self._gate = None if curve is None else Gate(self._context, admitted)
        self._frames = transport.pull_socket(self._context, curve)
        self._control = transport.router_socket(self._context, curve)
        self.signal_fd: int
        self._signal_in, self.signal_fd = os.pipe()
        os.set_blocking(self._signal_in, False)
        os.set_blocking(self.signal_fd, False)
        self._poller = zmq.Poller()
        for each in (self._frames, self._control, wake_fd, self._signal_in):
            self._poller.register(each, zmq.POLLIN)
        if self._gate is not None:
            self._poller.register(self._gate.socket, zmq.POLLIN)
        self._wake_fd = wake_fd
        self._is_bound = False
        self._doors = (Door(self._frames, endpoints.frames), Door(self._control, endpoints.control))
        self._doors_lock = threading.Lock()
        is_file = endpoints.frames.startswith("ipc://")  # over tcp libzmq bears it when it can't accept
        self._keeper = Doorkeeper((self._frames, self._control), self._look) if is_file else None

    def open(self) -> None:
        """Bind both sockets.

        Raises:
            AddressError: When an address is in use or can't be bound.
        """
        frames, control = self._doors
        frames.make()
        try:
            control.make()
        except transport.AddressError:
            frames.take_down()
            raise
        self._is_bound = True
        if self._keeper is not None:
            self._keeper.start()

    def poll(self, timeout_s: float) -> Ready:
        """Wait until something is to be done, or the time is up."""
        self._mind_descriptors()
        ready = dict(self._poller.poll(max(0, math.ceil(timeout_s * 1000))))
        if self._gate is not None:
            self._gate.turn()
        return Ready(frames=self._frames in ready, control=self._control in ready)

    def admit(self, admitted: Collection[str]) -> None:
        """Let those with these public keys in from now on."""
        if self._gate is not None:
            self._gate.admit(admitted)

    def frames(self) -> Iterator[bytes]:
        """The frames that have come; an empty one for each message that can be none."""
        for _ in range(MESSAGES_MAX):
            parts = _receive(self._frames)
            if parts is None:
                return
            yield parts[0] if len(parts) == 1 else b""

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """The control messages that have come, each with its sender's identity; empty ones as in `frames`."""
        for _ in range(MESSAGES_MAX):
            parts = _receive(self._control)
            if parts is None:
                return
            yield parts[0], parts[1] if len(parts) == CONTROL_PARTS else b""

    def send(self, identity: bytes, message: Message) -> None:
        """Answer a worker or command; who is gone or slow asks again."""
        with contextlib.suppress(zmq.ZMQError):
            self._control.send_multipart([identity, encode_message(message)], zmq.NOBLOCK)

    def signals(self) -> list[int]:
        """The numbers of the signals that have come."""
        with contextlib.suppress(BlockingIOError):
            return list(os.read(self._signal_in, 64))
        return []

    def stop_waiting_for(self, descriptor: int) -> None:
        """Take a descriptor out of the poll before it is closed."""
        with contextlib.suppress(KeyError):
            self._poller.unregister(descriptor)

    def close(self) -> None:
        """Unbind and close everything, and remove the socket files."""
        self.stop_waiting_for(self._wake_fd)
        if self._keeper is not None and self._is_bound:
            self._keeper.stop()
        self._context.destroy(linger=0)
        for door in self._doors:
            door.close()
        os.close(self._signal_in)
        os.close(self.signal_fd)

    def _mind_descriptors(self) -> None:
        """Let nobody new in while descriptors are short; connections that stand go on (rule C1)."""
        if self._is_bound:
            with self._doors_lock:
                self._shut_or_open()

    def _look(self) -> None:
        """The same as soon as somebody was let in."""
        # Numbers are given from below, so this one tells whether counting, which takes a while, is due.
        if not _is_free(self._descriptors_max - DESCRIPTORS_FREE_MIN):
            with self._doors_lock:
                self._shut_or_open()

    def _shut_or_open(self) -> None:
        used = _open_descriptors()
        if used > self._descriptors_max - DESCRIPTORS_FREE_MIN and any(each.is_open for each in self._doors):
            for door in self._doors:
                door.shut()
            reason = f"{used} descriptors are open"
            log.error("collector_not_listening", extra=notice("collector_not_listening", reason))
        elif used < self._descriptors_max - 2 * DESCRIPTORS_FREE_MIN:
            for door in self._doors:
                with contextlib.suppress(transport.AddressError):
                    door.open()


def _receive(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    """One message, or None when none waits. Of one with too many parts only the first are kept."""
    try:
        parts = [socket.recv(zmq.NOBLOCK)]
        while socket.getsockopt(zmq.RCVMORE):
            part = socket.recv()
            if len(parts) < PARTS_MAX:
                parts.append(part)
    except zmq.Again:
        return None
    return parts


def _is_free(number: int) -> bool:
    """Whether a descriptor's number is free."""
    try:
        got = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, number)
    except OSError:
        return False
    os.close(got)
    return got == number


def _open_descriptors() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208  each entry is a descriptor, none is looked at
    return 0
