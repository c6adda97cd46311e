"""A small product for any ASGI server: answers that arrive word by word, each billed by use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from fastapi import Body, FastAPI
from fastapi.responses import StreamingResponse

from settle_mp import AsyncSettle
from settle_mp.integrations.asgi import SettleLifespan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

app = FastAPI()
# What a worker tracked is handed over when it ends. Events are counted without this, too.
app.add_middleware(SettleLifespan, name="shop")

# Opens nothing and starts nothing: safe here, at import, and without a running loop.
settle = AsyncSettle()


@app.post("/ask")
async def ask(user: Annotated[str, Body()], question: Annotated[str, Body()]) -> StreamingResponse:
    """Answer a question."""
    return StreamingResponse(answer(user, f"A good question: {question}"))


async def answer(user: str, text: str) -> AsyncIterator[str]:
    """Say it word by word: a WORD for each that was sent, also when the user hangs up."""
    count = 0
    try:
        for word in text.split():
            yield f"{word} "
            count += 1
            await asyncio.sleep(0.01)
    finally:
        if count:
            # Not awaited: it writes to memory and returns.
            settle.events.track(user, "WORD", quantity=count)
