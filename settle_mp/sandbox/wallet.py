"""The upstream's calls under /v1/wallet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations of a route when it runs.
from starlette.responses import Response  # noqa: TC002 - The same.

from settle_mp.sandbox import openapi, transfers
from settle_mp.sandbox.answers import Answer, RefusedError, failure, success
from settle_mp.sandbox.pipeline import Change, Refusal, Sandbox
from settle_mp.sandbox.rows import BadBodyError
from settle_mp.sandbox.wallet_bodies import (
    DESCRIPTION_CHARS_MAX,
    parse_ad_reward,
    parse_transfer,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection

    from starlette.types import ASGIApp, Receive, Scope, Send

    from settle_mp.sandbox.transfers import Transfer

PREFIX: Final = "/v1/wallet"
#: Transactions on a page at most.
PAGE_MAX: Final = 100
#: Pages that can be asked for.
PAGES_MAX: Final = 2**31 - 1

_USER: Final = openapi.parameter("userId", "path", openapi.text(), "Percent-encoded, `/` included.")
_AMOUNT: Final = openapi.whole(1, transfers.CREDITS_MAX)
_BALANCE: Final = openapi.whole(0, transfers.CREDITS_MAX)
_TRANSFER: Final = openapi.record(
    {"amount": _AMOUNT},
    {
        "description": openapi.nullable({"type": "string", "maxLength": DESCRIPTION_CHARS_MAX}),
        "metadata": openapi.nullable({"type": "object"}),
    },
)
_REWARD: Final = openapi.record(
    {"adNetwork": openapi.text(), "rewardAmount": _AMOUNT}, {"adUnitId": openapi.nullable(openapi.text())}
)
_TRANSACTION: Final = openapi.record(
    {
        "id": openapi.text(),
        "type": {"enum": ["CREDIT", "DEBIT", "AD_REWARD"]},
        "amount": _AMOUNT,
        "balanceAfter": _BALANCE,
        "description": openapi.nullable({"type": "string"}),
        "createdAt": {"type": "string", "format": "date-time"},
    }
)
_HISTORY: Final = openapi.record(
    {
        "userId": openapi.text(),
        "currentBalance": _BALANCE,
        "transactions": openapi.listed(_TRANSACTION),
        "pagination": openapi.record(
            {name: {"type": "integer"} for name in ("page", "limit", "total", "totalPages")}
        ),
    }
)


class Movement:
    """A transfer, waiting to be made."""

    event_types: Collection[str] = ()
    rows_count = 0

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer
        self.user_ids: set[str] = {transfer.user_id}

    def apply(self, db: sqlite3.Connection, key: str | None) -> Answer:
        """Make the transfer, or say why it can't be made."""
        transfer = self._transfer
        try:
            return success(transfers.move(db, transfer, key))
        except transfers.ShortageError as error:
            return failure(
                402,
                f"The wallet holds {error.balance} credits, and {transfer.amount} were asked for.",
                userId=transfer.user_id,
                currentBalance=error.balance,
                requestedAmount=transfer.amount,
            )
        except transfers.TooMuchError:
            said = f"must not bring the balance over {transfers.CREDITS_MAX}"
            return failure(400, f"The amount {said}; nothing was moved.", fields={"amount": [said]})

    def refusal(self, user_id: str) -> Answer:
        """Name the user."""
        del user_id
        said = {"userId": ["is not known"]}
        return failure(400, "The upstream does not know this user; nothing was moved.", fields=said)


class EncodedPaths:
    """ASGI middleware: leaves a wallet's path percent-encoded, so that a `/` in a user id is no separator."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with the path as it came."""
        if scope["type"] == "http" and scope["path"].startswith(f"{PREFIX}/"):
            scope = {**scope, "path": scope["raw_path"].decode("ascii")}
        await self._app(scope, receive, send)


def routes(sandbox: Sandbox) -> APIRouter:
    """Make the routes."""
    router = APIRouter(prefix=f"{PREFIX}/{{userId}}", tags=["wallet"])
    _add_reading(router, sandbox)
    _add_writing(router, sandbox)
    return router


def _add_reading(router: APIRouter, sandbox: Sandbox) -> None:
    held = openapi.record({"userId": openapi.text(), "balance": _BALANCE})
    shown = openapi.operation("What a wallet holds", held, parameters=[_USER])
    paged = openapi.operation(
        "A wallet's transactions, the newest first",
        _HISTORY,
        parameters=[
            _USER,
            openapi.parameter("page", "query", {**openapi.whole(1, PAGES_MAX), "default": 1}),
            openapi.parameter("limit", "query", {**openapi.whole(1, PAGE_MAX), "default": 10}),
        ],
    )

    @router.get("", **shown)
    # The vendor's page of REST calls has this path, and its SDKs have the other.
    @router.get("/balance", **shown)
    async def get_balance(request: Request) -> Response:
        user_id = _user_id(request)
        return await sandbox.look(
            request,
            user_id,
            lambda: success({"userId": user_id, "balance": transfers.balance(sandbox.store, user_id)}),
        )

    @router.get("/history", **paged)
    async def get_history(request: Request) -> Response:
        user_id = _user_id(request)
        page, limit = _whole(request, "page", 1, PAGES_MAX), _whole(request, "limit", 10, PAGE_MAX)
        return await sandbox.look(
            request,
            user_id,
            lambda: success(transfers.history(sandbox.store, user_id, page=page, limit=limit)),
        )


def _add_writing(router: APIRouter, sandbox: Sandbox) -> None:
    def described(summary: str, body: dict[str, Any], *statuses: int) -> dict[str, Any]:
        return openapi.operation(
            summary,
            _TRANSACTION,
            statuses=[*openapi.WRITE_STATUSES, *statuses],
            parameters=[_USER, openapi.IDEMPOTENCY_KEY],
            body=body,
        )

    async def write(request: Request, parse: Callable[[bytes, str], Transfer]) -> Response:
        user_id = _user_id(request)
        return await sandbox.write(request, lambda body: _read(lambda: parse(body, user_id)))

    @router.post("/debit", **described("Take credits", _TRANSFER, 402))
    async def post_debit(request: Request) -> Response:
        return await write(request, lambda body, user_id: parse_transfer(body, user_id, "DEBIT"))

    @router.post("/credit", **described("Give credits", _TRANSFER))
    async def post_credit(request: Request) -> Response:
        return await write(request, lambda body, user_id: parse_transfer(body, user_id, "CREDIT"))

    @router.post("/ad-reward", **described("Give credits for a verified ad view", _REWARD))
    async def post_ad_reward(request: Request) -> Response:
        return await write(request, parse_ad_reward)


def _read(parse: Callable[[], Transfer]) -> Change:
    try:
        return Movement(parse())
    except BadBodyError as error:
        return Refusal(failure(400, str(error), fields=error.fields))


def _user_id(request: Request) -> str:
    encoded = request.path_params["userId"]
    try:
        return unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError:
        said = {"userId": ["must be percent-encoded UTF-8"]}
        raise RefusedError(failure(400, "The user id is not text.", fields=said)) from None


def _whole(request: Request, name: str, default: int, highest: int) -> int:
    given = request.query_params.get(name)
    if given is None:
        return default
    # Not over the length first: int() of a very long text takes long.
    if (
        len(given) <= len(str(highest))
        and given.isascii()
        and given.isdecimal()
        and 1 <= int(given) <= highest
    ):
        return int(given)
    said = f"must be a whole number from 1 to {highest}"
    raise RefusedError(failure(400, f"{name} {said}.", fields={name: [said]}))
