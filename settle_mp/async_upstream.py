"""The upstream for one event loop: the same calls and answers as `upstream`, awaited instead of waited for.

Rule 1: as there, what happens on the way is an answer and does not raise. Cancellation does: a request that
    was cancelled may have been applied.
Rule 2: to close cuts off no call: the last one under way closes what it and others left open.
Rule 3: one deadline bounds a whole try. A cancelled task can be stopped anywhere, so that no timer is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import httpx

from settle_mp.core.answer import Failure, NoReply
from settle_mp.exchange import (
    ANSWER_BYTES_MAX,
    ERRORS,
    HEADERS,
    KEEPALIVE_S,
    Received,
    bounded,
    decoded,
    environment_checked,
    no_cookies,
    no_reply,
    too_early,
)
from settle_mp.upstream import CONNECT_TIMEOUT_S, TRY_TIMEOUT_S, Account, heard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from settle_mp.core.call import Call, Heard
    from settle_mp.core.secret import Secret

#: Connections of one event loop: tasks beyond wait for one, with nothing of theirs sent.
CONNECTIONS_MAX: Final = 100
#: Idle connections that are kept.
IDLE_MAX: Final = 20

_TIMEOUT: Final = httpx.Timeout(TRY_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)


class _Watch:
    """Watches one try from inside httpx: whether its first byte has left, and whether its last one has."""

    def __init__(self) -> None:
        self.is_begun = False
        self.is_body_sent = False

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of a trace event (httpx: extensions, "trace")."""
        step = event.partition(".")[2]
        if step == "send_request_headers.started" and info["request"].method != b"CONNECT":
            self.is_begun = True
        elif step == "send_request_body.complete":
            self.is_body_sent = True


class AsyncUpstream:
    """One address and one key, for the tasks of one event loop.

    Args:
        base_url: The address, with or without `/v1` at its end.
        api_key: The key.

    Raises:
        ValueError: If the address or the key is none, or if the proxies or certificates that the environment
            names can't be used.
    """

    def __init__(self, base_url: str, api_key: Secret) -> None:
        self._account = Account(base_url, api_key)
        self._holders_count = 0
        self._is_closed = False
        with environment_checked():
            self._client = httpx.AsyncClient(
                verify=httpx.create_ssl_context(),
                limits=httpx.Limits(
                    max_connections=CONNECTIONS_MAX,
                    max_keepalive_connections=IDLE_MAX,
                    keepalive_expiry=KEEPALIVE_S,
                ),
                headers=HEADERS,
                cookies=no_cookies(),
            )

    def __repr__(self) -> str:
        return f"<AsyncUpstream {self._account.url('')}>"

    async def call(self, call: Call[Any], *, timeout_s: float) -> Heard | NoReply:
        """Make one try at a call; see `Upstream.call`."""
        account, watch = self._account, _Watch()
        request = self._client.build_request(
            call.method,
            account.url(call.path),
            content=call.body,
            headers=account.headers(call.idempotency_key),
            timeout=bounded(timeout_s, _TIMEOUT),
            extensions={"trace": watch},
        )
        return heard(account.cleaned(await self._exchange(request, watch, timeout_s)))

    def use_key(self, api_key: Secret) -> None:
        """Send this key from now on."""
        if not self._account.has_key(api_key):
            self._account = Account(self._account.url(""), api_key)

    @contextlib.asynccontextmanager
    async def held(self) -> AsyncIterator[AsyncUpstream]:
        """Keep it open until the block ends, for the tries of one call."""
        self._holders_count += 1
        try:
            yield self
        finally:
            self._holders_count -= 1
            await self._close_unheld()

    async def aclose(self) -> None:
        """Close all connections, or have the last who holds it close them; in the loop that used them."""
        self._is_closed = True
        await self._close_unheld()

    async def _close_unheld(self) -> None:
        if self._is_closed and not self._holders_count:
            await _close(self._client)

    async def _exchange(self, request: httpx.Request, watch: _Watch, timeout_s: float) -> Received | NoReply:
        deadline_s = time.monotonic() + min(timeout_s, TRY_TIMEOUT_S)
        try:
            response = await asyncio.wait_for(
                self._client.send(request, stream=True), deadline_s - time.monotonic()
            )
        except asyncio.TimeoutError:
            failure = Failure.SENT_THEN_TIMEOUT if watch.is_begun else Failure.CONNECT_TIMEOUT
            return NoReply(failure=failure, detail="the time for the whole try was up")
        except ERRORS as error:
            return no_reply(error, is_begun=watch.is_begun, is_overdue=False)
        try:
            body, is_whole = await _read_body(response, deadline_s)
        finally:
            await _close(response)
        if response.is_success and not watch.is_body_sent:
            return too_early(response.status_code)
        return Received(status=response.status_code, headers=response.headers, body=body, is_whole=is_whole)


async def _read_body(response: httpx.Response, deadline_s: float) -> tuple[bytes, bool]:
    """Read what there is of a body, and say whether that is all; the status has been heard by now."""
    try:
        body = await asyncio.wait_for(_read(response), max(0.0, deadline_s - time.monotonic()))
    except (asyncio.TimeoutError, *ERRORS):
        return b"", False
    return (b"", False) if body is None else decoded(body, response.headers.get("content-encoding", ""))


async def _read(response: httpx.Response) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    async for part in response.aiter_raw():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


async def _close(open_one: httpx.Response | httpx.AsyncClient) -> None:
    try:
        await open_one.aclose()
    except ERRORS:
        # All answers have been heard; that a connection can't be closed in good order changes nothing.
        return
