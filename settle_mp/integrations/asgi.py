"""A lifespan around any ASGI app: when the app is told to end, this process hands over what it has tracked.

    from settle_mp.integrations.asgi import SettleLifespan

    app = SettleLifespan(app, name="shop")              # around any app
    app.add_middleware(SettleLifespan, name="shop")     # the same for Starlette and FastAPI

Nothing here is needed for events to be counted. It is for servers whose workers end by a signal that they
raise again (uvicorn's), so that `atexit` never runs: without it the collector reads what they left from their
journals, a second or so later.

What a lifespan is: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from settle_mp.worker.aio import AsyncSettle
from settle_mp.worker.async_line import in_thread
from settle_mp.worker.client import checked_timeout
from settle_mp.worker.producer import close_all, label_process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from settle_mp.worker.client import Settle

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

__all__ = ["SettleLifespan"]

log: Final = logging.getLogger("settle_mp")

#: What an app may say last.
_LAST: Final = frozenset(
    {"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"}
)


class SettleLifespan:
    """An ASGI app around another: requests pass through, and its end is the end of the handing over.

    Args:
        app: Any ASGI 3 app, with a lifespan of its own or without.
        client: A client whose connections (the wallet's) are closed as well. Events of all clients are handed
            over in any case.
        name: What operators know the app by; the process is then called "asgi:NAME worker 3".
        timeout: How long handing over may take, in seconds. The loop goes on meanwhile.

    Raises:
        TypeError, ValueError: If timeout is not a number of seconds, or negative.
    """

    def __init__(
        self, app: App, client: Settle | AsyncSettle | None = None, *, name: str = "", timeout: float = 1.0
    ) -> None:
        self._app = app
        self._client = client
        self._name = name
        self._timeout_s = checked_timeout(timeout)

    # A coroutine function, by which servers know an ASGI 3 app.
    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one scope."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        if self._name:
            label_process(f"asgi:{self._name} {_which_worker()}")
        lifespan = _Lifespan(receive, send, self._end)
        try:
            await self._app(scope, lifespan.receive, lifespan.send)
        except Exception as error:
            if lifespan.heard:
                await self._end()
                raise
            # It knows no lifespans, and says so as the specification allows; this one has us alone.
            log.debug("asgi_lifespan_unsupported", extra={"reason": f"{type(error).__name__}: {error}"})
        await lifespan.complete()

    async def _end(self) -> None:
        """Hand over, then close the client's connections."""
        await _beside_the_loop(functools.partial(close_all, self._timeout_s))
        if isinstance(self._client, AsyncSettle):
            await self._client.close(timeout=0)
        elif self._client is not None:
            await _beside_the_loop(functools.partial(self._client.close, 0))


class _Lifespan:
    """One lifespan, as the app sees it. What the app leaves out is done in its place.

    Attributes:
        heard: The types of all messages that have been received.
    """

    def __init__(self, receive: Receive, send: Send, end: Callable[[], Awaitable[None]]) -> None:
        self.heard: list[str] = []
        self._said: set[str] = set()
        self._receive = receive
        self._send = send
        self._end = end

    async def receive(self) -> Message:
        """Pass a message on."""
        message = await self._receive()
        self.heard.append(message["type"])
        return message

    async def send(self, message: Message) -> None:
        """Pass an answer on; the last one after all else, since the server then ends this process at once."""
        if message["type"] in _LAST:
            await self._end()
        self._said.add(message["type"])
        await self._send(message)

    async def complete(self) -> None:
        """Go on to the end, where the app returned before it."""
        if not self.heard:
            await self.receive()
        if not self._said:
            await self.send({"type": "lifespan.startup.complete"})
        if self._said.intersection(_LAST):
            return
        if "lifespan.shutdown" not in self.heard:
            await self.receive()
        await self.send({"type": "lifespan.shutdown.complete"})


def _which_worker() -> str:
    """Number the worker as multiprocessing does, for servers that start theirs with it."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    name = multiprocessing.current_process().name if multiprocessing is not None else ""
    number = name.rpartition("-")[2]
    return f"worker {number}" if number.isdigit() else f"pid {os.getpid()}"


async def _beside_the_loop(work: Callable[[], None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        # Another kind of loop, such as trio's. It is about to end, and has nothing else to do by now.
        work()
    else:
        await in_thread(work)
