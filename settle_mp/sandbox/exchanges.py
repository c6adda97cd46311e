"""Exchanges: every request under /v1 that was received, and how it ended.

Rule 1: an exchange is written down when its head arrives, so that a test can wait for a request that
is never answered.
Rule 2: all of it is in memory and bounded; it begins anew with each start of the sandbox.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Exchanges remembered one by one.
LOG_MAX: Final = 10_000
#: Different paths counted one by one; the rest count as "other", so that a scan can't fill the memory.
PATHS_MAX: Final = 100
#: The scope's key under which a route finds its exchange.
EXCHANGE: Final = "settle_mp.exchange"


@dataclass(slots=True)
class Exchange:
    """One request and how it ended; written in place as it goes its way."""

    number: int
    received_s: float
    method: str
    path: str
    idempotency_key: str | None = None
    #: SHA-256 of the body's exact bytes, in hexadecimal.
    body_sha256: str | None = None
    rows_count: int = 0
    #: What the sandbox answered with; None while it hasn't, and for a reset.
    status: int | None = None
    #: The action of the fault it met.
    fault: str | None = None
    is_applied: bool = False
    is_replayed: bool = False
    is_reset: bool = False


class ExchangeLog:
    """Counts of all exchanges since the start, and the last of them one by one."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._recent: deque[Exchange] = deque(maxlen=LOG_MAX)
        self._by_path: Counter[str] = Counter()
        self._by_status: Counter[str] = Counter()
        self.received_count: int = 0
        self.replayed_count: int = 0

    def begin(self, method: str, path: str) -> Exchange:
        """Write down a request that has just arrived."""
        exchange = Exchange(next(self._numbers), time.time(), method, path)
        self._recent.append(exchange)
        self.received_count += 1
        known = path in self._by_path or len(self._by_path) < PATHS_MAX
        self._by_path[path if known else "other"] += 1
        return exchange

    def answered(self, exchange: Exchange, status: int) -> None:
        """Write down what it was answered with."""
        exchange.status = status
        self._by_status[str(status)] += 1
        self.replayed_count += exchange.is_replayed

    def reset(self, exchange: Exchange) -> None:
        """Write down that its connection is being reset."""
        exchange.is_reset = True
        self._by_status["reset"] += 1

    def counts(self) -> dict[str, Any]:
        """Count requests; `byStatus` holds those that have ended, resets under "reset"."""
        return {
            "received": self.received_count,
            "ended": self._by_status.total(),
            "replayed": self.replayed_count,
            "byStatus": dict(sorted(self._by_status.items())),
            "byPath": dict(sorted(self._by_path.items())),
        }

    def since(self, number: int) -> list[Exchange]:
        """List the remembered exchanges after a number."""
        return [exchange for exchange in self._recent if exchange.number > number]


class Recorder:
    """ASGI middleware: writes down every request under /v1, whether a route takes it or not."""

    def __init__(self, app: ASGIApp, log: ExchangeLog) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and note the beginning and the answer."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1"):
            await self._app(scope, receive, send)
            return
        exchange = self._log.begin(scope["method"], scope["path"])
        scope[EXCHANGE] = exchange

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._log.answered(exchange, message["status"])
            await send(message)

        await self._app(scope, receive, send_noted)
