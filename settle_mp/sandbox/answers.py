"""Answers: what the sandbox says, in the upstream's shape, and the bad ways of saying it.

Rule 1: every body the sandbox makes up is built here: `{"data": …}` or `{"message": …, "data": …}`.
Rule 2: a bad way of sending is a Response like any other, so that routes need not know of it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from settle_mp.sandbox import exact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Receive, Scope, Send

#: The scope's key under which the server leaves the connection's transport (see `server`).
TRANSPORT: Final = "settle_mp.transport"
_JSON: Final = {"content-type": "application/json"}
# l_onoff = 1, l_linger = 0: close() sends RST and drops what was not sent (socket(7), SO_LINGER).
_LINGER_NONE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An HTTP answer as a value: it can be stored, replayed, and sent in a bad way."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: _JSON)

    def response(self, extra: Mapping[str, str] | None = None) -> Response:
        """Make the response that says it, with extra headers."""
        headers = {**self.headers, **extra} if extra else dict(self.headers)
        return Response(self.body, self.status, headers)


class RefusedError(Exception):
    """Raised by a route to answer with a refusal."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def success(data: Any) -> Answer:
    """Answer 200 in the upstream's shape."""
    return Answer(status=200, body=b'{"data":' + exact.dumps(data).encode() + b"}")


def failure(status: int, message: str, **data: Any) -> Answer:
    """Answer with an error in the upstream's shape."""
    return Answer(status=status, body=exact.dumps({"message": message, "data": data}).encode())


class ResetResponse(Response):
    """No answer: the connection is reset (RST)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reset, and wait until the server has seen it."""
        del send
        transport: asyncio.Transport = scope["state"][TRANSPORT]
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        transport.abort()
        # The server takes a route that returns without an answer for a bug, unless it has seen the end.
        while (await receive())["type"] != "http.disconnect":
            pass


class DripResponse(Response):
    """An answer whose head comes at once and whose body comes one byte at a time."""

    def __init__(self, answer: Answer, interval_s: float) -> None:
        super().__init__(answer.body, answer.status, dict(answer.headers))
        self._interval_s = interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a byte at a time, until the client has all or goes."""
        del scope
        gone = asyncio.ensure_future(_until_disconnected(receive))
        try:
            await send(
                {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            )
            for byte in bytes(self.body):
                await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
                # For a client that has gone, the rest is dropped at once.
                await asyncio.wait([gone], timeout=self._interval_s)
            await send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()


async def _until_disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
