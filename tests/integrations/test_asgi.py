"""The lifespan wrapper: what passes through it, what it does in an app's place, and what at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI

from settle_mp import AsyncSettle, Settle
from settle_mp.integrations.asgi import SettleLifespan
from tests.worker.fake_collector import FakeCollector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
    from pathlib import Path

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

STARTUP, SHUTDOWN = "lifespan.startup", "lifespan.shutdown"
COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class Server:
    """A server that runs one lifespan, and notes what it was answered.

    Attributes:
        answers: The types of all answers; "ended" stands where the wrapper has handed over.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        self.answers: list[str] = []
        self.wrapped = SettleLifespan(app, **options)

        async def end() -> None:
            self.answers.append("ended")

        self.wrapped._end = end  # type: ignore[method-assign]
        self._messages = [{"type": STARTUP}, {"type": SHUTDOWN}]

    async def receive(self) -> Message:
        return self._messages.pop(0)

    async def send(self, message: Message) -> None:
        self.answers.append(message["type"])

    def live(self) -> list[str]:
        """Run the lifespan from start to end."""
        asyncio.run(self._live())
        return self.answers

    async def _live(self) -> None:
        await self.wrapped({"type": "lifespan", "state": {}}, self.receive, self.send)


async def polite(scope: Message, receive: Receive, send: Send) -> None:
    """Answer both messages."""
    assert scope["type"] == "lifespan"
    for _ in range(2):
        message = await receive()
        await send({"type": f"{message['type']}.complete"})


async def strange(_scope: Message, _receive: Receive, _send: Send) -> None:
    """Know no lifespans."""
    raise ValueError("only HTTP here")


async def silent(_scope: Message, _receive: Receive, _send: Send) -> None:
    """Return without a word."""


async def hasty(_scope: Message, receive: Receive, send: Send) -> None:
    """Return when it has started."""
    await receive()
    await send({"type": "lifespan.startup.complete"})


async def deaf(_scope: Message, _receive: Receive, send: Send) -> None:
    """Start without having been told to."""
    await send({"type": "lifespan.startup.complete"})


@pytest.mark.parametrize("app", [polite, strange, silent, hasty, deaf])
def test_whatever_the_app_does_the_server_gets_both_answers(app: Any) -> None:
    """Handing over comes before the last word, after which a server may end the process."""
    assert Server(app).live() == [COMPLETE[0], "ended", COMPLETE[1]]


@pytest.mark.parametrize("kind", ["lifespan.startup.failed", "lifespan.shutdown.failed"])
def test_an_apps_failure_is_passed_on(kind: str) -> None:
    """The server hears what the app says, once, and after the handing over."""

    async def failing(_scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        if kind == "lifespan.shutdown.failed":
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": kind, "message": "no database"})

    assert Server(failing).live()[-2:] == ["ended", kind]


def test_an_exception_of_a_listening_app_reaches_the_server() -> None:
    """It is no sign of an app without lifespans then; what was tracked is handed over all the same."""

    async def broken(_scope: Message, receive: Receive, _send: Send) -> None:
        await receive()
        raise RuntimeError("no database")

    server = Server(broken)
    with pytest.raises(RuntimeError, match="no database"):
        server.live()
    assert server.answers == ["ended"]


def test_requests_pass_through() -> None:
    """Scope, receive and send are the server's own."""
    seen: list[Any] = []

    async def app(*given: Any) -> None:
        seen.append(given)

    given = ({"type": "http"}, object(), object())
    asyncio.run(SettleLifespan(app)(*given))  # type: ignore[arg-type]
    assert seen == [given]


def test_starlette_takes_it_as_a_middleware() -> None:
    """add_middleware() of FastAPI and Starlette hands it the lifespan, which goes on to the app's own."""
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        steps.append("begun")
        yield
        steps.append("ended")

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(SettleLifespan, name="shop")
    server = Server(app)
    server.wrapped = app  # type: ignore[assignment]
    assert server.live() == COMPLETE
    assert steps == ["begun", "ended"]


@pytest.mark.parametrize("timeout", [True, "1", -1, float("nan")])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    """Anything else is refused where it is written, and named."""
    with pytest.raises((TypeError, ValueError), match="timeout must be"):
        SettleLifespan(silent, timeout=timeout)


@pytest.mark.parametrize("kind", [Settle, AsyncSettle])
def test_the_end_hands_over_and_the_loop_goes_on(state_dir: Path, kind: Any) -> None:
    """A collector that keeps its acknowledgement back is waited for beside the loop, for the time given."""
    turns_count = 0

    async def turn() -> None:
        nonlocal turns_count
        while True:
            turns_count += 1
            await asyncio.sleep(0.01)

    async def live(client: Any) -> float:
        turning = asyncio.create_task(turn())
        messages = [{"type": STARTUP}, {"type": SHUTDOWN}]

        async def receive() -> Message:
            return messages.pop(0)

        async def send(_: Message) -> None:
            """Hear nothing."""

        start_s = time.monotonic()
        await SettleLifespan(silent, client, timeout=0.5)({"type": "lifespan"}, receive, send)
        turning.cancel()
        return time.monotonic() - start_s

    with FakeCollector(state_dir):
        client = kind(state_dir=state_dir)
        client.events.track("ada", "REQUEST")
        assert asyncio.run(live(client)) >= 0.5
    assert turns_count > 5


def test_a_loop_that_is_not_asyncios_is_served(state_dir: Path) -> None:
    """Nothing in it needs asyncio where no such loop runs."""
    answers: list[str] = []

    async def receive() -> Message:
        return {"type": SHUTDOWN if answers else STARTUP}

    async def send(message: Message) -> None:
        answers.append(message["type"])

    client = Settle(state_dir=state_dir)
    client.events.track("ada", "REQUEST")
    coroutine = SettleLifespan(silent, client)({"type": "lifespan"}, receive, send)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert answers == COMPLETE
