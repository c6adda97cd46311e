"""The application: routes, the shape of errors, and nothing that listens."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING, Final, cast

from fastapi import Depends, FastAPI, Security
from fastapi.security import APIKeyHeader
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match

from settle_mp.sandbox import access, control, events, wallet
from settle_mp.sandbox.answers import RefusedError, failure
from settle_mp.sandbox.exchanges import Recorder
from settle_mp.version import __version__

if TYPE_CHECKING:
    from settle_mp.sandbox.pipeline import Sandbox

logger: Final = logging.getLogger("settle_mp")

_METHODS: Final = ("DELETE", "GET", "PATCH", "POST", "PUT")


def make_app(sandbox: Sandbox) -> FastAPI:
    """Make the ASGI application of a sandbox."""
    api_key = sandbox.options.api_key
    app = FastAPI(
        title="settle-mp sandbox",
        version=__version__,
        # The documentation pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A slash at the end of a path is another path, and its POST must not be redirected.
        redirect_slashes=False,
        middleware=[Middleware(wallet.EncodedPaths), Middleware(Recorder, log=sandbox.log)],
        exception_handlers={
            RefusedError: _refused,
            HTTPException: _http_error,
            ClientDisconnect: _gone,
            sqlite3.Error: _store_error,
        },
    )
    # The first one only tells the OpenAPI document of the header; the second one looks at it.
    header = APIKeyHeader(name="X-API-Key", auto_error=False)
    checks_key = [Security(header), Depends(access.api_key_check(api_key))]
    checks_peer = [Depends(access.control_check(api_key))]
    app.include_router(events.routes(sandbox), dependencies=checks_key)
    app.include_router(wallet.routes(sandbox), dependencies=checks_key)
    app.include_router(control.routes(sandbox), dependencies=checks_peer)
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    return cast("RefusedError", error).answer.response()


async def _http_error(request: Request, error: Exception) -> Response:
    error = cast("HTTPException", error)
    where = f"{request.method} {request.url.path}"
    messages = {404: f"There is no {where}.", 405: f"{where} is not allowed."}
    message = messages.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    if error.status_code == 405:  # noqa: PLR2004 - HTTP's.
        headers["Allow"] = _allowed(request)
    return failure(error.status_code, message).response(headers)


def _allowed(request: Request) -> str:
    """What the path allows: the router names the methods of its first route alone (RFC 9110, 10.2.1)."""
    # A scope a look: a router that includes others notes in it what it has found.
    scopes = {method: {**request.scope, "method": method} for method in _METHODS}
    return ", ".join(
        method
        for method, scope in scopes.items()
        if any(each.matches(scope)[0] is Match.FULL for each in request.app.routes)
    )


async def _gone(_request: Request, _error: Exception) -> Response:
    # Nobody is there to read it.
    return Response(status_code=400)


async def _store_error(_request: Request, error: Exception) -> Response:
    logger.error("sandbox_store_failed", extra={"error": str(error)})
    return failure(500, f"The sandbox's database failed; nothing was applied: {error}.").response()
