"""The pipeline: the way of one write from its bytes to its answer, the same for every kind of write.

    body -> key -> in progress or kept? -> fault -> [before] -> change and answer, committed -> [after]

Rule 1: a key is in progress from the look-up to the commit; another request with it gets 409 meanwhile.
Rule 2: a fault `before` leaves nothing behind; a fault `after` spoils only what the client sees.
Rule 3: a request whose client has gone goes on: a server does not know.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from settle_mp.sandbox import idempotency, transfers
from settle_mp.sandbox.answers import Answer, DripResponse, RefusedError, ResetResponse, failure, success
from settle_mp.sandbox.exchanges import EXCHANGE, Exchange, ExchangeLog
from settle_mp.sandbox.fault_queue import FaultQueue

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Iterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from settle_mp.sandbox.faults import Fault, When
    from settle_mp.sandbox.store import Store

#: Bytes of a body that is too large that are still read, so that the client can read the 413.
EXCESS_BYTES_MAX: Final = 64 * 2**20
_REPLAYED: Final = {"Idempotency-Replayed": "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the sandbox behaves, apart from where it listens."""

    #: The one key that is taken; None for any that begins with `ss_test_`.
    api_key: str | None = None
    #: Applies every request, like a server that knows nothing of `Idempotency-Key`.
    ignores_idempotency_keys: bool = False
    #: Bytes of a request's body at most; 413 beyond.
    body_bytes_max: int = 2**20
    #: Rows of a batch at most; 413 beyond.
    rows_max: int = 1_000
    #: Credits by user for wallets that were never used, given when the sandbox starts.
    seeds: Mapping[str, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Options(api_key={'***' if self.api_key else None})"


class Change(Protocol):
    """What a request's body asks for, once it has been read."""

    @property
    def user_ids(self) -> Collection[str]:
        """The users whose rows it holds."""

    @property
    def event_types(self) -> Collection[str]:
        """The event types of its rows."""

    @property
    def rows_count(self) -> int:
        """How many rows it holds."""

    def apply(self, db: sqlite3.Connection, key: str | None) -> Answer:
        """Apply it within a transaction, and answer."""

    def refusal(self, user_id: str) -> Answer:
        """Answer as a server that refuses this user's rows."""


class Refusal:
    """A change that can't be made: it only answers, and the answer is kept like any other."""

    user_ids: Collection[str] = ()
    event_types: Collection[str] = ()
    rows_count = 0

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def apply(self, db: sqlite3.Connection, key: str | None) -> Answer:
        """Change nothing."""
        del db, key
        return self._answer

    def refusal(self, user_id: str) -> Answer:
        """Answer what it answers anyway."""
        del user_id
        return self._answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """One writing request on its way."""

    exchange: Exchange
    #: None when there is none, or keys are ignored.
    key: str | None
    fingerprint: bytes
    change: Change
    fault: Fault | None
    #: The answer that the key had before, to be replayed.
    kept: Answer | None


class Sandbox:
    """The running sandbox: its store, its faults, and what it has seen."""

    def __init__(self, store: Store, options: Options) -> None:
        self.store = store
        self.options = options
        self.faults: FaultQueue = FaultQueue()
        self.log: ExchangeLog = ExchangeLog()
        self._in_progress: dict[str, bytes] = {}

    def seed(self, balances: Mapping[str, int]) -> list[str]:
        """Credit wallets that were never used; returns whose."""
        seeded: list[str] = []

        def change(db: sqlite3.Connection) -> Answer:
            seeded.extend(transfers.seed(db, balances))
            return success({})

        self.store.settle(None, b"", change)
        return seeded

    async def write(self, request: Request, read: Callable[[bytes], Change]) -> Response:
        """Take a writing request from its bytes to its answer."""
        call = self._begin(request, await self._body(request), read)
        with self._progress(call):
            spoiled = await self._before(call)
            if spoiled is not None:
                return spoiled
            answer = self._settle(call)
        plain = answer.response(_REPLAYED if call.exchange.is_replayed else None)
        return await self._meet(call.exchange, call.fault, "after", answer) or plain

    async def look(self, request: Request, user_id: str, answer: Callable[[], Answer]) -> Response:
        """Take a reading request to its answer, past the faults."""
        exchange: Exchange = request.scope[EXCHANGE]
        fault = self.faults.take(exchange.path, (user_id,), ())
        exchange.fault = fault.action if fault else None
        spoiled = await self._meet(exchange, fault, "before", None)
        if spoiled is not None:
            return spoiled
        found = answer()
        return await self._meet(exchange, fault, "after", found) or found.response()

    async def _body(self, request: Request) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size <= self.options.body_bytes_max:
                chunks.append(chunk)
            elif size > EXCESS_BYTES_MAX:
                break
        if size > self.options.body_bytes_max:
            limit = self.options.body_bytes_max
            raise RefusedError(failure(413, f"A body takes {limit} bytes at most.", bytesMax=limit))
        return b"".join(chunks)

    def _begin(self, request: Request, body: bytes, read: Callable[[bytes], Change]) -> _Call:
        exchange: Exchange = request.scope[EXCHANGE]
        digest = idempotency.digest(body)
        exchange.body_sha256 = digest.hex()
        key = exchange.idempotency_key = self._key(request)
        if self.options.ignores_idempotency_keys:
            key = None
        fingerprint = idempotency.fingerprint(exchange.path, digest)
        kept = self._kept(key, fingerprint)
        change = read(body)
        exchange.rows_count = change.rows_count
        fault = self.faults.take(exchange.path, change.user_ids, change.event_types)
        exchange.fault = fault.action if fault else None
        return _Call(
            exchange=exchange, key=key, fingerprint=fingerprint, change=change, fault=fault, kept=kept
        )

    def _key(self, request: Request) -> str | None:
        values = request.headers.getlist("idempotency-key")
        try:
            return idempotency.parse_key(values)
        except idempotency.BadKeyError as error:
            if self.options.ignores_idempotency_keys:
                return None
            refusal = failure(400, str(error), fields={"Idempotency-Key": [str(error)]})
            raise RefusedError(refusal) from error

    def _kept(self, key: str | None, fingerprint: bytes) -> Answer | None:
        if key is None:
            return None
        kept = self.store.kept(key)
        in_progress = self._in_progress.get(key)
        known = in_progress or (kept and kept[0])
        if known is not None and known != fingerprint:
            raise RefusedError(failure(422, "This Idempotency-Key was used for another request."))
        if in_progress is not None:
            raise RefusedError(failure(409, "A request with this Idempotency-Key is still in progress."))
        return kept and kept[1]

    @contextlib.contextmanager
    def _progress(self, call: _Call) -> Iterator[None]:
        if call.key is None or call.kept is not None:
            yield
            return
        self._in_progress[call.key] = call.fingerprint
        try:
            yield
        finally:
            del self._in_progress[call.key]

    async def _before(self, call: _Call) -> Response | None:
        spoiled = await self._meet(call.exchange, call.fault, "before", None)
        fault = call.fault
        if fault is not None and fault.is_stored and call.kept is None:
            answer = fault.answer()
            self.store.settle(call.key, call.fingerprint, lambda _db: answer)
        return spoiled

    def _settle(self, call: _Call) -> Answer:
        if call.kept is not None:
            call.exchange.is_replayed = True
            return call.kept
        change = call.change
        if call.fault is not None and call.fault.action == "refuse":
            change = Refusal(change.refusal(call.fault.user_id or ""))
        answer = self.store.settle(call.key, call.fingerprint, lambda db: change.apply(db, call.key))
        call.exchange.is_applied = answer.status < 300  # noqa: PLR2004 - the end of HTTP's 2xx.
        return answer

    async def _meet(
        self, exchange: Exchange, fault: Fault | None, when: When, answer: Answer | None
    ) -> Response | None:
        """Do what a fault says at this place; None lets the request go on."""
        if fault is None or fault.when != when:
            return None
        if fault.delay_s:
            await self.faults.pause(fault.delay_s)
        if fault.action == "hold":
            await self.faults.wait_released()
        if fault.action == "reset" or self.faults.is_closing:
            self.log.reset(exchange)
            return ResetResponse()
        said = fault.answer() if fault.status is not None else answer
        if fault.action == "drip" and said is not None:
            return DripResponse(said, fault.interval_s)
        return said.response() if fault.action == "answer" and said is not None else None
