"""What the user holds in an event loop: `AsyncSettle` and its `events`.

Tracking is the same as everywhere, and not awaited: it writes to memory and returns. This file is imported by
every worker, and so imports asyncio only where an event loop runs already.
"""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Generic

from settle_mp.worker.client import CALL_TIMEOUT_S, Settle, checked_timeout
from settle_mp.worker.track import EventT_contra, Tracker

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Unpack

    from settle_mp.arguments import NamedArguments
    from settle_mp.config import Settings
    from settle_mp.core.secret import Secret
    from settle_mp.core.usage import UsageSummary
    from settle_mp.worker.async_wallet import AsyncWallet
    from settle_mp.worker.client import Events
    from settle_mp.worker.report import FlushReport


class AsyncEvents(Tracker[EventT_contra]):
    """Usage events: `track` them, and rarely more. To track is not awaited."""

    def __init__(self, events: Events[EventT_contra], settings: Settings) -> None:
        """Use `AsyncSettle().events`."""
        vars(self)["track"] = events.track
        self._events = events
        self._settings = settings

    async def flush(self, timeout: float = 5.0) -> FlushReport:
        """Wait until the upstream has accepted everything tracked so far in this process.

        The loop goes on meanwhile. See `Events.flush`.
        """
        from settle_mp.worker.async_line import in_thread

        deadline_s = time.monotonic() + checked_timeout(timeout)
        if self._settings.disabled:
            return self._events.flush(0)
        return await in_thread(lambda: self._events.flush(max(0.0, deadline_s - time.monotonic())))

    @property
    def pending_count(self) -> int:
        """Events of this process that the collector has not committed yet. 0 does not mean billed."""
        return self._events.pending_count

    async def get_summary(self, user_id: str, *, timeout: float = CALL_TIMEOUT_S) -> UsageSummary:
        """Ask the upstream what it has counted of a user; see `Events.get_summary`."""
        from settle_mp.core.usage_calls import summary_call
        from settle_mp.worker.async_line import async_line_for

        call = summary_call(user_id)
        if self._settings.disabled:
            return call.read({"summary": []})
        return await async_line_for(self._settings).do(call, timeout=timeout, on_in_doubt="raise")


class AsyncSettle(Generic[EventT_contra]):
    """The client for asyncio. Making one opens nothing and starts nothing, and needs no running loop.

    Args:
        api_key: As for `Settle`.
        base_url: As for `Settle`.
        event_types: As for `Settle`.
        settings: As for `Settle`.

    Raises:
        SettingsError: For a setting that can't be, naming it, its source and what is allowed.
    """

    def __init__(
        self,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        *,
        event_types: Iterable[EventT_contra] | None = None,
        **settings: Unpack[NamedArguments],
    ) -> None:
        self._client: Settle[EventT_contra] = Settle(api_key, base_url, event_types=event_types, **settings)
        self._settings = self._client._settings  # noqa: SLF001  the two are one client
        self._wallet: AsyncWallet | None = None
        self.events: AsyncEvents[EventT_contra] = AsyncEvents(self._client.events, self._settings)

    @property
    def wallet(self) -> AsyncWallet:
        """Credits of users."""
        if self._wallet is None:
            from settle_mp.worker.async_wallet import AsyncWallet

            self._wallet = AsyncWallet(self._settings)
        return self._wallet

    @property
    def is_sandbox(self) -> bool:
        """Whether the API key is a test key (`ss_test_...`)."""
        return self._client.is_sandbox

    @property
    def is_live(self) -> bool:
        """Whether the API key is a live key (`ss_live_...`)."""
        return self._client.is_live

    async def close(self, timeout: float = 1.0) -> None:
        """Hand everything to the collector, and close the connections of this loop.

        Nothing tracked is lost without it. Calls that other tasks have under way end as usual, and the last
        of them closes the connections. May be called again; `track()` still journals afterwards, and the
        wallet opens connections anew.

        Args:
            timeout: How long to wait for the collector to take it, in seconds.
        """
        from settle_mp.worker.async_line import async_line_for, in_thread

        await in_thread(functools.partial(self._client.close, timeout))
        await async_line_for(self._settings).aclose()

    async def destroy(self, timeout: float = 1.0) -> None:
        """Do what `close` does, under the vendor's name for it."""
        await self.close(timeout)

    async def __aenter__(self) -> AsyncSettle[EventT_contra]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self._client!r}"
