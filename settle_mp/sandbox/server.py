"""The server: where the sandbox listens, and how it starts and ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from settle_mp.sandbox.access import is_loopback
from settle_mp.sandbox.answers import TRANSPORT
from settle_mp.sandbox.app import make_app
from settle_mp.sandbox.pipeline import Options, Sandbox
from settle_mp.sandbox.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

#: Seconds that answers under way have when the sandbox ends; what still waits then is cut off.
END_S = 0.3
#: Seconds an idle connection stays open: longer than clients keep theirs, so that none meets a closing one.
KEEP_ALIVE_S = 75


class ListenError(Exception):
    """The sandbox can't listen there; the message says why."""


def listen(host: str, port: int, *, has_pinned_key: bool) -> socket.socket:
    """Bind a listening socket; port 0 takes a free one.

    Raises:
        ListenError: When the address is not to be had, or other machines reach it and no key is pinned.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(f"The host {host} is not known: {error.strerror}.") from error
    family, kind, protocol, _, address = found[0]
    if not is_loopback(str(address[0])) and not has_pinned_key:
        raise ListenError(f"{host} is open to other machines: pin a key with --api-key, or use 127.0.0.1.")
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ListenError(f"Can't listen on {host} port {port}: {error.strerror}.") from error
    return listener


def base_url(listener: socket.socket) -> str:
    """Give the URL under which clients on this machine reach it."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - Read, not bound.
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104 - The same.
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class SandboxServer(uvicorn.Server):
    """A sandbox that serves until it is told to end.

    Args:
        db_path: The SQLite file, made when absent; ":memory:" for none.
        options: How it behaves.
        on_started: Called in the serving thread once it answers.

    Raises:
        StoreError: When the database can't be used.
    """

    def __init__(self, db_path: str, options: Options, on_started: Callable[[], None]) -> None:
        self._store = Store(db_path)
        self._on_started = on_started
        self._sandbox = Sandbox(self._store, options)
        self._sandbox.seed(options.seeds)
        super().__init__(
            uvicorn.Config(
                make_app(self._sandbox),
                http=_Protocol,
                ws="none",
                loop="asyncio",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                # Peers from this machine need no key, so that nobody may claim to be one in a header.
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
            )
        )

    def run_on(self, listener: socket.socket) -> None:
        """Serve on a bound socket until SIGINT, SIGTERM or `should_exit`; then close socket and database."""
        try:
            self.run(sockets=[listener])
        finally:
            listener.close()
            self._store.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: wake who waits, give answers under way a moment, cut off the rest."""
        self._sandbox.faults.close()
        asyncio.get_running_loop().call_later(END_S, self._cut_off)
        await super().shutdown(sockets)

    def _cut_off(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Note SIGINT and SIGTERM while serving; unlike uvicorn, don't raise them again at the end."""
        handled = (signal.SIGINT, signal.SIGTERM)
        try:
            before = {each: signal.signal(each, self._note) for each in handled}
        except ValueError:
            # Not the main thread: whoever runs us there ends us by `should_exit`.
            yield
            return
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del signum, frame
        self.force_exit: bool = self.should_exit
        self.should_exit = True


class _Protocol(H11Protocol):
    """uvicorn's HTTP protocol, which lets requests see their transport, so that one can be reset."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.app_state = dict(self.app_state)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn copies this into the scope of each request of the connection.
        self.app_state[TRANSPORT] = transport
