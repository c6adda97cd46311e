"""The upstream's calls under /v1/events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations of a route when it runs.
from starlette.responses import Response  # noqa: TC002 - The same.

from settle_mp.sandbox import openapi, usage
from settle_mp.sandbox.answers import Answer, RefusedError, failure, success
from settle_mp.sandbox.exact import QUANTITY_DIGITS_MAX
from settle_mp.sandbox.pipeline import Change, Refusal, Sandbox
from settle_mp.sandbox.rows import BadBodyError, Row, TooManyRowsError, parse_batch, parse_event

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


_NUMBER: Final = {"type": "number"}
_DIGITS: Final = f"At most {QUANTITY_DIGITS_MAX} digits on either side of its point; sums are exact."
_EVENT: Final = openapi.record(
    {"userId": openapi.text(), "eventType": openapi.text()},
    {
        "quantity": {**_NUMBER, "exclusiveMinimum": 0, "default": 1, "description": _DIGITS},
        "metadata": openapi.nullable({"type": "object"}),
    },
)
_BATCH: Final = openapi.record({"events": {**openapi.listed(_EVENT), "minItems": 1}})
_TOTAL: Final = openapi.record(
    {"eventType": openapi.text(), "totalQuantity": _NUMBER, "count": {"type": "integer"}}
)
_SUMMARY: Final = openapi.operation(
    "A user's totals by event type",
    openapi.record({"summary": openapi.listed(_TOTAL)}),
    parameters=[{**openapi.parameter("userId", "query", openapi.text()), "required": True}],
)


def _described(summary: str, body: dict[str, Any]) -> dict[str, Any]:
    return openapi.operation(
        summary,
        openapi.record({"accepted": {"type": "integer"}}),
        statuses=openapi.WRITE_STATUSES,
        parameters=[openapi.IDEMPOTENCY_KEY],
        body=body,
    )


class Rows:
    """Good rows, waiting to be applied."""

    def __init__(self, rows: list[Row], body: bytes, *, is_batch: bool) -> None:
        self._rows = rows
        self._body = body
        self._is_batch = is_batch
        self.user_ids: set[str] = {row.user_id for row in rows}
        self.event_types: set[str] = {row.event_type for row in rows}
        self.rows_count: int = len(rows)

    def apply(self, db: sqlite3.Connection, key: str | None) -> Answer:
        """Write the rows."""
        usage.apply_rows(db, self._rows, self._body, key)
        return success({"accepted": self.rows_count})

    def refusal(self, user_id: str) -> Answer:
        """Name each row of the user."""
        indexes = [index for index, row in enumerate(self._rows) if row.user_id == user_id]
        names = [f"events[{index}].userId" if self._is_batch else "userId" for index in indexes]
        return failure(
            400,
            "The upstream does not take usage of this user; nothing was applied.",
            fields={name: ["is not known"] for name in names},
        )


def read_event(body: bytes) -> Change:
    """Read the body of `POST /v1/events`."""
    return _read(lambda: Rows([parse_event(body)], body, is_batch=False))


def read_batch(body: bytes, rows_max: int) -> Change:
    """Read the body of `POST /v1/events/batch`."""
    return _read(lambda: Rows(parse_batch(body, rows_max), body, is_batch=True))


def _read(parse: Callable[[], Rows]) -> Change:
    try:
        return parse()
    except BadBodyError as error:
        return Refusal(failure(400, str(error), fields=error.fields))
    except TooManyRowsError as error:
        return Refusal(failure(413, str(error)))


def routes(sandbox: Sandbox) -> APIRouter:
    """Make the routes."""
    router = APIRouter(prefix="/v1/events", tags=["events"])
    rows_max = sandbox.options.rows_max

    @router.post("", **_described("One event", _EVENT))
    async def post_event(request: Request) -> Response:
        return await sandbox.write(request, read_event)

    @router.post("/batch", **_described("Many events, all of them or none", _BATCH))
    async def post_batch(request: Request) -> Response:
        return await sandbox.write(request, lambda body: read_batch(body, rows_max))

    @router.get("/summary", **_SUMMARY)
    async def get_summary(request: Request) -> Response:
        user_id = request.query_params.get("userId", "")
        if not user_id:
            raise RefusedError(failure(400, "userId is required.", fields={"userId": ["is required"]}))
        return await sandbox.look(
            request, user_id, lambda: success({"summary": usage.summary(sandbox.store, user_id)})
        )

    return router
