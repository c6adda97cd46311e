"""The sandbox's own calls: what happened, and what to do wrong next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations of a route when it runs.
from starlette.responses import Response  # noqa: TC002 - The same.

from settle_mp.sandbox import openapi, page, transfers, usage
from settle_mp.sandbox.answers import Answer, RefusedError, failure, success
from settle_mp.sandbox.faults import Fault

if TYPE_CHECKING:
    from settle_mp.sandbox.pipeline import Sandbox

# Ours alone, and described in the package's docstring; the OpenAPI document only says that they exist.
_OWN: Final = openapi.operation("The sandbox's own", {"type": "object"}, statuses=(401, "4XX"))


def routes(sandbox: Sandbox) -> APIRouter:
    """Make the routes under /sandbox, and the usage page."""
    router = APIRouter(tags=["sandbox"])
    router.include_router(_reading(sandbox))
    router.include_router(_faults(sandbox))
    router.include_router(_wallets(sandbox))
    return router


def _reading(sandbox: Sandbox) -> APIRouter:
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def get_page() -> Response:
        return page.response(sandbox)

    @router.get("/sandbox/usage", **_OWN)
    async def get_usage() -> Response:
        totals = usage.totals(sandbox.store)
        return success({"usage": usage.by_type(sandbox.store), **totals}).response()

    @router.get("/sandbox/rows", **_OWN)
    async def get_rows(request: Request) -> Response:
        body = usage.page_of_rows(
            sandbox.store,
            after=_whole(request, "after", 0, 2**62),
            limit=max(1, _whole(request, "limit", 1_000, usage.PAGE_ROWS_MAX)),
            event_type=request.query_params.get("eventType"),
            user_id=request.query_params.get("userId"),
        )
        return Answer(status=200, body=b'{"data":' + body + b"}").response()

    @router.get("/sandbox/requests", **_OWN)
    async def get_requests() -> Response:
        return success({**sandbox.log.counts(), "held": sandbox.faults.held_count}).response()

    @router.get("/sandbox/log", **_OWN)
    async def get_log(request: Request) -> Response:
        return success({"log": _logged(sandbox, _whole(request, "after", 0, 2**62))}).response()

    return router


def _faults(sandbox: Sandbox) -> APIRouter:
    router = APIRouter(prefix="/sandbox")

    @router.post("/faults", **_OWN)
    async def post_faults(request: Request) -> Response:
        body = await request.body()
        try:
            numbers = sandbox.faults.add(_parse_faults(json.loads(body)))
        except (TypeError, ValueError) as error:
            raise RefusedError(failure(400, f"Not a fault: {error}.")) from error
        return success({"numbers": numbers}).response()

    @router.get("/faults", **_OWN)
    async def get_faults() -> Response:
        faults = {"faults": sandbox.faults.standing(), "held": sandbox.faults.held_count}
        return success(faults).response()

    @router.delete("/faults", **_OWN)
    async def delete_faults() -> Response:
        sandbox.faults.clear()
        return success({}).response()

    @router.post("/release", **_OWN)
    async def post_release() -> Response:
        return success({"released": sandbox.faults.release()}).response()

    @router.delete("/idempotency-keys", **_OWN)
    async def delete_keys() -> Response:
        return success({"forgotten": sandbox.store.forget_keys()}).response()

    return router


def _wallets(sandbox: Sandbox) -> APIRouter:
    router = APIRouter(prefix="/sandbox")

    @router.get("/wallets", **_OWN)
    async def get_wallets() -> Response:
        return success({"wallets": transfers.balances(sandbox.store)}).response()

    @router.post("/wallets", **_OWN)
    async def post_wallets(request: Request) -> Response:
        body = await request.body()
        try:
            wallets = transfers.checked_balances(json.loads(body))
        except (TypeError, ValueError) as error:
            raise RefusedError(failure(400, f"Not balances: {error}.")) from error
        return success({"seeded": sandbox.seed(wallets)}).response()

    return router


def _parse_faults(parsed: Any) -> list[Fault]:
    return [Fault.from_json(each) for each in (parsed if isinstance(parsed, list) else [parsed])]


def _logged(sandbox: Sandbox, after: int) -> list[dict[str, Any]]:
    return [
        {
            "number": each.number,
            "receivedAt": each.received_s,
            "method": each.method,
            "path": each.path,
            "idempotencyKey": each.idempotency_key,
            "bodySha256": each.body_sha256,
            "rows": each.rows_count,
            "status": each.status,
            "fault": each.fault,
            "isApplied": each.is_applied,
            "isReplayed": each.is_replayed,
            "isReset": each.is_reset,
        }
        for each in sandbox.log.since(after)
    ]


def _whole(request: Request, name: str, default: int, highest: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= highest):  # noqa: PLR2004 - 2**62 has 19 digits.
        raise RefusedError(failure(400, f"{name} must be a whole number from 0 to {highest}."))
    return int(text)
