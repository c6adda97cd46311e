"""Clients for tests of the wallet: one way of calling for `Settle` and `AsyncSettle`.

wallet = wallets("async", upstream)            # a fixture; closed afterwards
wallet("debit", "user_123", amount=10)         # awaited where that is needed
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import AsyncSettle, Settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KINDS = ("sync", "async")
#: What a debit is answered.
DONE = b'{"data":{"id":"t","type":"DEBIT","amount":1,"balanceAfter":0,"description":null,"createdAt":"now"}}'


class Client:
    """A client of either kind and, for an asynchronous one, its event loop."""

    def __init__(self, kind: str, settings: dict[str, Any]) -> None:
        self._loop = asyncio.new_event_loop() if kind == "async" else None
        self.settle: Any = Settle(**settings) if self._loop is None else AsyncSettle(**settings)

    def __call__(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Make a call of the wallet; `get_summary` is found where it is."""
        of = self.settle.events if name == "get_summary" else self.settle.wallet
        return self.wait(getattr(of, name)(*arguments, **named))

    def wait(self, result: Any) -> Any:
        """Wait for what a call gave; a walk through a history becomes a list."""
        if inspect.isasyncgen(result):
            return self._run(_listed(result))
        if inspect.isgenerator(result):
            return list(result)
        return self._run(result) if inspect.isawaitable(result) else result

    def close(self) -> None:
        """End it, and its loop."""
        self.wait(self.settle.close())
        if self._loop is not None:
            self._loop.close()

    def _run(self, awaitable: Any) -> Any:
        assert self._loop is not None
        return self._loop.run_until_complete(awaitable)


async def _listed(walk: Any) -> list[Any]:
    return [each async for each in walk]


@pytest.fixture
def wallets(state_dir: Path) -> Iterator[Callable[..., Client]]:
    """Make clients by kind and upstream (or address), with settings by name."""
    with contextlib.ExitStack() as stack:

        def make(kind: str, upstream: Any, **settings: Any) -> Client:
            where = {"base_url": getattr(upstream, "base_url", upstream), "api_key": "ss_test_upstream"}
            client = Client(kind, {"state_dir": state_dir, **where, **settings})
            stack.callback(client.close)
            return client

        yield make
