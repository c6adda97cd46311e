"""An ASGI app that tracks in every phase, at the end of its lifespan too."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from tests.apps.phases import FOR_EVER_S, begin, track

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer 200 once the request's event is tracked."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    if begin(scope["path"]):
        await asyncio.sleep(FOR_EVER_S)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def _live(
    receive: Callable[[], Awaitable[dict[str, Any]]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            track("shutdown")
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
