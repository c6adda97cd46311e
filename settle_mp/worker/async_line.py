"""Lines of event loops: the same as `line`, for calls that are awaited.

Rule 1: one HTTP client an event loop, since connections belong to the loop that opened them.
Rule 2: what takes long and can't be awaited (imports, reading certificates) is done in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from settle_mp.calling import Calling, Found
from settle_mp.errors import ApiError, SettleSettleError
from settle_mp.worker.line import key_of, stand_in_for, tell_doubt, where
from settle_mp.worker.native import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.async_upstream import AsyncUpstream
    from settle_mp.config import Settings
    from settle_mp.core.answer import NoReply
    from settle_mp.core.call import Call, Heard
    from settle_mp.core.secret import Secret
    from settle_mp.worker.line import StandIn, Where

T = TypeVar("T")

_lines: Final[dict[Where, AsyncLine]] = {}


def async_line_for(settings: Settings) -> AsyncLine:
    """The line that all clients with the same address and key share in this process."""
    return _lines.setdefault(where(settings), AsyncLine(settings))


class AsyncLine:
    """Makes calls, each in the event loop that asks for it.

    Args:
        settings: The address and the key.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing, import nothing."""
        self._settings = settings
        self._pid = os.getpid()
        self._upstreams: _Upstreams = {}

    async def do(self, call: Call[T], *, timeout: float, on_in_doubt: str) -> T:
        """Make a call, with as many tries as it may have, and wait for its result.

        Raises:
            SettleSettleError: When it has failed, or may have.
            TypeError, ValueError: If timeout or on_in_doubt is none.
        """
        calling = Calling(call, timeout=timeout, on_in_doubt=on_in_doubt, now_s=time.monotonic())
        # No other task has its turn between these two, and so none can close what is about to be held.
        way = await self._way(call)
        async with way.held() as upstream:
            while True:
                answer = await upstream.call(call, timeout_s=calling.left_s(time.monotonic()))
                try:
                    judged = calling.judge(
                        answer,
                        now_s=time.monotonic(),
                        wall_s=time.time(),
                        jitter=random.random(),  # noqa: S311 - No secret.
                    )
                except SettleSettleError as error:
                    tell_doubt(call, error)
                    raise
                if isinstance(judged, Found):
                    return judged.value
                await asyncio.sleep(judged.seconds)

    async def aclose(self) -> None:
        """Close the running loop's connections. Calls under way end as usual, later ones open anew."""
        if self._pid == os.getpid():
            upstream = self._upstreams.pop(asyncio.get_running_loop(), None)
            if upstream is not None:
                await upstream.aclose()

    async def _way(self, call: Call[Any]) -> AsyncUpstream | Awaited:
        stand_in = stand_in_for(call)
        return await self._upstream() if stand_in is None else Awaited(stand_in)

    async def _upstream(self) -> AsyncUpstream:
        self._forget_others()
        loop = asyncio.get_running_loop()
        key = key_of(self._settings)
        upstream = self._upstreams.get(loop)
        if upstream is None:
            made = await in_thread(functools.partial(self._make, key))
            # Other tasks ran meanwhile, and one of them may have been quicker; ours has nothing open yet.
            upstream = self._upstreams.setdefault(loop, made)
        upstream.use_key(key)
        return upstream

    def _forget_others(self) -> None:
        if self._pid != os.getpid():
            # Kept: what their finalizers would close are connections of the parent.
            _inherited.append(self._upstreams)
            self._pid, self._upstreams = os.getpid(), {}
        # Loops of other threads come and go meanwhile.
        for loop in list(self._upstreams):
            if loop.is_closed():
                self._upstreams.pop(loop, None)

    def _make(self, key: Secret) -> AsyncUpstream:
        from settle_mp.async_upstream import AsyncUpstream

        try:
            return AsyncUpstream(self._settings.base_url, key)
        except ValueError as error:
            raise ApiError(f"Nothing was sent. {error}", 0) from None


class Awaited:
    """What stands in for the upstream, awaited like one."""

    def __init__(self, stand_in: StandIn) -> None:
        self._stand_in = stand_in

    def held(self) -> contextlib.nullcontext[Awaited]:
        """Give it as it is: it has nothing open."""
        return contextlib.nullcontext(self)

    async def call(self, call: Call[Any], *, timeout_s: float) -> Heard | NoReply:
        """Answer at once."""
        return self._stand_in.call(call, timeout_s=timeout_s)


async def in_thread(work: Callable[[], T]) -> T:
    """Wait for a function in a real thread of its own: the loop's executor may be full of the application's.

    A cancelled caller leaves the thread to end by itself.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        else:
            ended.set_result(result)  # type: ignore[arg-type]  # Without an error it is a T.

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:  # noqa: BLE001 - It is raised where it is awaited.
            error = caught
        # A loop that was closed meanwhile has nobody who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell, result, error)

    start_thread(run)
    return await ended


_Upstreams = dict[asyncio.AbstractEventLoop, "AsyncUpstream"]

_inherited: Final[list[_Upstreams]] = []
