"""Raw servers: real sockets that behave in ways no HTTP server would.

    with raw_server(resets_mid_body) as raw: ...      # raw.base_url, raw.connections[0].received
    with refusing_port() as port: ...                 # connection refused
    with deaf_port() as port: ...                     # connecting times out

A behaviour is a function of one connection, run in a thread of its own for each. Ready ones:

    silent              reads, and never answers
    closes              reads the request, then closes without a word
    resets              reads the request, then RST
    resets_at_once      RST without reading
    resets_mid_body     a good head and half of the body, then RST
    closes_mid_body     the same, then an ordinary close
    garbage             bytes that are no HTTP
    knows_no_tls        what an https:// client gets from a port that speaks plain HTTP
    answers(data)       reads the request, sends these bytes, closes
    drips(data, s)      reads the request, sends these bytes one by one, s seconds apart
    KeepsAlive(body)    answers all requests of a connection with this body, once it `may_answer`
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Behaviour = Callable[["RawConnection"], None]

#: Seconds that anything here may take before a test is taken for failed.
DEADLINE_S = 20.0

_HEAD_200 = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 22\r\n\r\n"


class RawConnection:
    """One accepted connection, in the hands of a behaviour."""

    def __init__(self, connection: socket.socket, is_ending: threading.Event) -> None:
        self._connection = connection
        self._is_ending = is_ending
        #: All bytes read from it.
        self.received = b""

    def read_request(self) -> bytes:
        """Read one request to the end of its body (Content-Length); what came so far, if the client goes."""
        while b"\r\n\r\n" not in self.received and self._read():
            pass
        head, _, body = self.received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        while len(self.received) - len(head) - 4 < length and self._read():
            pass
        del body
        return self.received

    def read_some(self) -> bytes:
        """Wait for bytes; what has come, at least one unless the client goes."""
        self._read()
        return self.received

    def send(self, data: bytes) -> None:
        """Send bytes; a client that has gone is no fault."""
        with contextlib.suppress(OSError):
            self._connection.sendall(data)

    def reset(self) -> None:
        """Close with RST."""
        linger_none = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_none)
        self._connection.close()

    def pause(self, seconds: float) -> bool:
        """Wait; false when the server is ending."""
        return not self._is_ending.wait(seconds)

    def wait_gone(self) -> None:
        """Read on until the client goes or the server ends."""
        while self._read():
            pass

    def close(self) -> None:
        """Close in the ordinary way."""
        self._connection.close()

    def _read(self) -> bool:
        try:
            data = self._connection.recv(65_536)
        except OSError:
            return False
        self.received += data
        return bool(data)


class RawServer:
    """A listening socket and what came to it."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self._is_ending = threading.Event()
        self._accepted = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        #: Every connection so far, in order of arrival.
        self.connections: list[RawConnection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name="raw-server", daemon=True)
        self._acceptor.start()

    @property
    def base_url(self) -> str:
        """The address; with "https" instead, a TLS client meets a server that knows none."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def connections_count(self) -> int:
        """How many connections have been accepted."""
        return len(self.connections)

    def wait_connections(self, count: int, timeout_s: float = DEADLINE_S) -> None:
        """Wait until so many connections have been accepted."""
        with self._accepted:
            if not self._accepted.wait_for(lambda: len(self.connections) >= count, timeout_s):
                pytest.fail(f"after {timeout_s} s {len(self.connections)} connections instead of {count}")

    def close(self) -> None:
        """End: the listener, all connections, all threads."""
        self._is_ending.set()
        # shutdown() wakes the thread in accept() or recv(); close() alone would leave it there.
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in (self._acceptor, *self._threads):
            thread.join(DEADLINE_S)
            assert not thread.is_alive(), "a behaviour did not end"
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        while not self._is_ending.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            connection = RawConnection(accepted, self._is_ending)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._sockets.append(accepted)
            self._threads.append(thread)
            with self._accepted:
                self.connections.append(connection)
                self._accepted.notify_all()
            thread.start()

    def _serve(self, connection: RawConnection) -> None:
        self._behave(connection)
        connection.close()


def silent(connection: RawConnection) -> None:
    """Read, and never answer."""
    connection.wait_gone()


def closes(connection: RawConnection) -> None:
    """Read the request, then close."""
    connection.read_request()


def resets(connection: RawConnection) -> None:
    """Read the request, then reset."""
    connection.read_request()
    connection.reset()


def resets_at_once(connection: RawConnection) -> None:
    """Reset without reading."""
    connection.reset()


def resets_mid_body(connection: RawConnection) -> None:
    """Promise a body, send half of it, reset."""
    connection.read_request()
    connection.send(_HEAD_200 + b'{"data": {"')
    # RST throws away what the client has not read yet, so let it read the head first.
    connection.pause(0.1)
    connection.reset()


def closes_mid_body(connection: RawConnection) -> None:
    """Promise a body, send half of it, close."""
    connection.read_request()
    connection.send(_HEAD_200 + b'{"data": {"')


def garbage(connection: RawConnection) -> None:
    """Answer with bytes that are no HTTP."""
    connection.read_request()
    connection.send(b"\x00\xff\x16\x03garbage\r\n\r\n" * 8)


def knows_no_tls(connection: RawConnection) -> None:
    """Answer a TLS greeting as a plain HTTP server does."""
    connection.read_some()
    connection.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def answers(data: bytes) -> Behaviour:
    """Make a behaviour that sends these bytes after the request, and closes."""

    def behave(connection: RawConnection) -> None:
        connection.read_request()
        connection.send(data)

    return behave


def drips(data: bytes, interval_s: float) -> Behaviour:
    """Make a behaviour that sends these bytes one by one after the request."""

    def behave(connection: RawConnection) -> None:
        connection.read_request()
        for byte in data:
            connection.send(bytes([byte]))
            if not connection.pause(interval_s):
                return

    return behave


class KeepsAlive:
    """A behaviour that answers each request of a connection, until the client closes it.

    Attributes:
        may_answer: Cleared, requests wait for their answers.
        asked: The connection of each request so far.
        gone: The connections that were closed.
    """

    def __init__(self, body: bytes) -> None:
        self._answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked: list[RawConnection] = []
        self.gone: list[RawConnection] = []

    def __call__(self, connection: RawConnection) -> None:
        """Serve one connection."""
        while connection.read_request():
            connection.received = b""
            self.asked.append(connection)
            self.may_answer.wait(DEADLINE_S)
            connection.send(self._answer)
        self.gone.append(connection)


@contextlib.contextmanager
def raw_server(behave: Behaviour = silent) -> Iterator[RawServer]:
    """Run a raw server on a free port, and end it afterwards."""
    server = RawServer(behave)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """Reserve a port that refuses connections: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@contextlib.contextmanager
def deaf_port() -> Iterator[int]:
    """Give a port whose connections neither open nor fail: the queue of its listener is full (Linux)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(16):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.3)
            try:
                filler.connect(address)
            except TimeoutError:
                break
        else:
            pytest.fail("the listener's queue did not fill")
        yield address[1]
