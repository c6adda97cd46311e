"""The ASGI app for servers that start their workers by themselves: it says when a worker is up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.apps.asgi import app as inner
from tests.apps.tracking import has_hooks, write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Serve as the other app does."""

    async def note(message: dict[str, Any]) -> None:
        await send(message)
        if message["type"] == "lifespan.startup.complete":
            write("~ worker is up")

    await inner(scope, receive, note)


if has_hooks():
    from settle_mp.integrations.asgi import SettleLifespan

    app = SettleLifespan(app, name="matrix")  # type: ignore[assignment,arg-type]
