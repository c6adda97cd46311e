"""A server of sockets and threads that does on cue what no HTTP framework lets one do."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

LOCALHOST_PEM = Path(__file__).with_name("localhost.pem")

#: Seconds that a test waits for what must come; only a failing test waits so long.
PATIENCE_S = 30.0

#: What a peer does with one request on one connection; to return means to go on with the next request.
Behaviour = Callable[["Call"], None]


class Call:
    """One request, as it came, and the connection to answer it on."""

    def __init__(self, connection: socket.socket, head: bytes, body: bytes, *, number: int) -> None:
        self.connection = connection
        self.head = head
        self.body = body
        #: How many requests came on this connection, this one included.
        self.number = number

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    def header(self, name: str) -> str | None:
        found = re.search(rb"(?im)^" + name.encode() + rb":[ \t]*(.*?)\r$", self.head)
        return None if found is None else found[1].decode()

    def answer(self, status: int, body: bytes = b'{"data": {}}', *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", *headers, "", ""]
        self.connection.sendall("\r\n".join(lines).encode() + body)

    def reset(self) -> None:
        """Close so that the other side gets a reset and not an end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def wait_for_close(self) -> None:
        """Say nothing until the other side gives up."""
        while self.connection.recv(65536):
            pass

    def drip(self, data: bytes) -> None:
        """Send bytes one by one, a hundred a second, the last one for ever."""
        sent, gone = 0, threading.Event()
        while True:
            self.connection.sendall(data[sent : sent + 1] or data[-1:])
            sent += 1
            gone.wait(0.01)


def answers(status: int, body: bytes = b'{"data": {}}', *headers: str) -> Behaviour:
    """Make a behaviour that answers each request alike."""
    return lambda call: call.answer(status, body, *headers)


class Peer:
    """Listens on a free port of 127.0.0.1 and treats each connection in a thread of its own.

    Args:
        behaviour: What is done with each request.
        is_tls: Whether it speaks TLS, with the certificate for localhost.
        reads_body: Whether a request's body is read before the behaviour begins.
    """

    def __init__(self, behaviour: Behaviour, *, is_tls: bool = False, reads_body: bool = True) -> None:
        self.calls: queue.Queue[Call] = queue.Queue()
        self.opened: queue.Queue[socket.socket] = queue.Queue()
        self.ended: queue.Queue[socket.socket] = queue.Queue()
        self._behaviour = behaviour
        self._reads_body = reads_body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if is_tls else 'http'}://127.0.0.1:{self.port}"
        self._tls: ssl.SSLContext | None = None
        if is_tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(LOCALHOST_PEM)
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[socket.socket] = []

    def __enter__(self) -> Peer:
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shut(self._listener)
        self._threads[0].join(PATIENCE_S)
        for connection in self._connections:
            self._shut(connection)
        for thread in self._threads[1:]:
            thread.join(PATIENCE_S)
        assert not any(thread.is_alive() for thread in self._threads)

    @staticmethod
    def _shut(connection: socket.socket) -> None:
        # shutdown() wakes the thread that waits in accept() or recv(); close() alone would not.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def _accept(self) -> None:
        with self._listener, contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self.opened.put(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        # OSError: the other side went away, which is what many of these tests are about.
        with contextlib.suppress(OSError):
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._connections.append(connection)
            with contextlib.suppress(OSError):
                number = 0
                while (call := self._read(connection, number := number + 1)) is not None:
                    self.calls.put(call)
                    self._behaviour(call)
        connection.close()
        self.ended.put(connection)

    def _read(self, connection: socket.socket, number: int) -> Call | None:
        data = b""
        while b"\r\n\r\n" not in data:
            part = connection.recv(65536)
            if not part:
                return None
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        call = Call(connection, head + b"\r\n", body, number=number)
        while self._reads_body and len(call.body) < int(call.header("content-length") or 0):
            call.body += connection.recv(65536)
        return call
