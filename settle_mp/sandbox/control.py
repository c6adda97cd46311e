"""The sandbox's own calls: what happened, and what to do wrong next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations of a route when it runs.
from starlette.responses import Response  # noqa: TC002 - The same.

from settle_mp.sandbox import page, usage
from settle_mp.sandbox.answers import Answer, RefusedError, failure, success
from settle_mp.sandbox.faults import Fault

if TYPE_CHECKING:
    from settle_mp.sandbox.pipeline import Sandbox


def routes(sandbox: Sandbox) -> APIRouter:
    """Make the routes under /sandbox, and the usage page."""
    router = APIRouter(tags=["sandbox"])
    router.include_router(_reading(sandbox))
    router.include_router(_faults(sandbox))
    return router


def _reading(sandbox: Sandbox) -> APIRouter:
    router = APIRouter()

    @router.get("/")
    async def get_page() -> Response:
        return page.response(sandbox)

    @router.get("/sandbox/usage")
    async def get_usage() -> Response:
        totals = usage.totals(sandbox.store)
        return success({"usage": usage.by_type(sandbox.store), **totals}).response()

    @router.get("/sandbox/rows")
    async def get_rows(request: Request) -> Response:
        body = usage.page_of_rows(
            sandbox.store,
            after=_whole(request, "after", 0, 2**62),
            limit=max(1, _whole(request, "limit", 1_000, usage.PAGE_ROWS_MAX)),
            event_type=request.query_params.get("eventType"),
            user_id=request.query_params.get("userId"),
        )
        return Answer(status=200, body=b'{"data":' + body + b"}").response()

    @router.get("/sandbox/requests")
    async def get_requests() -> Response:
        return success({**sandbox.log.counts(), "held": sandbox.faults.held_count}).response()

    @router.get("/sandbox/log")
    async def get_log(request: Request) -> Response:
        return success({"log": _logged(sandbox, _whole(request, "after", 0, 2**62))}).response()

    return router


def _faults(sandbox: Sandbox) -> APIRouter:
    router = APIRouter(prefix="/sandbox")

    @router.post("/faults")
    async def post_faults(request: Request) -> Response:
        body = await request.body()
        try:
            numbers = sandbox.faults.add(_parse_faults(json.loads(body)))
        except (TypeError, ValueError) as error:
            raise RefusedError(failure(400, f"Not a fault: {error}.")) from error
        return success({"numbers": numbers}).response()

    @router.get("/faults")
    async def get_faults() -> Response:
        faults = {"faults": sandbox.faults.standing(), "held": sandbox.faults.held_count}
        return success(faults).response()

    @router.delete("/faults")
    async def delete_faults() -> Response:
        sandbox.faults.clear()
        return success({}).response()

    @router.post("/release")
    async def post_release() -> Response:
        return success({"released": sandbox.faults.release()}).response()

    @router.delete("/idempotency-keys")
    async def delete_keys() -> Response:
        return success({"forgotten": sandbox.store.forget_keys()}).response()

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
