"""Lines of event loops: the same as `line`, for calls that are awaited.

Rule 1: one HTTP client an event loop, since connections belong to the loop that opened them.
Rule 2: what takes long and can't be awaited (imports, reading certificates) is done in a thread.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
import weakref
from typing import TYPE_CHECKING, Final, TypeVar

from settle_mp.calling import Calling, Found
from settle_mp.errors import ApiError, SettleSettleError
from settle_mp.worker.line import key_of, tell_doubt, where

if TYPE_CHECKING:
    from settle_mp.async_upstream import AsyncUpstream
    from settle_mp.config import Settings
    from settle_mp.core.call import Call
    from settle_mp.core.secret import Secret
    from settle_mp.worker.line import Where

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
        self._upstreams = _no_upstreams()

    async def do(self, call: Call[T], *, timeout: float, on_in_doubt: str) -> T:
        """Make a call, with as many tries as it may have, and wait for its result.

        Raises:
            SettleSettleError: When it has failed, or may have.
            TypeError, ValueError: If timeout or on_in_doubt is none.
        """
        calling = Calling(call, timeout=timeout, on_in_doubt=on_in_doubt, now_s=time.monotonic())
        upstream = await self._upstream()
        while True:
            answer = await upstream.call(call, timeout_s=calling.left_s(time.monotonic()))
            try:
                judged = calling.judge(
                    answer,
                    now_s=time.monotonic(),
                    wall_s=time.time(),
                    jitter=random.random(),  # noqa: S311
                )
            except SettleSettleError as error:
                tell_doubt(call, error)
                raise
            if isinstance(judged, Found):
                return judged.value
            await asyncio.sleep(judged.seconds)

    async def aclose(self) -> None:
        """Close the connections of the running loop; a later call opens its own."""
        if self._pid == os.getpid():
            held = self._upstreams.pop(asyncio.get_running_loop(), None)
            if held is not None:
                await held[1].aclose()

    async def _upstream(self) -> AsyncUpstream:
        if self._pid != os.getpid():
            # Kept: what a finalizer would close are connections of the parent.
            _inherited.append(self._upstreams)
            self._pid, self._upstreams = os.getpid(), _no_upstreams()
        loop = asyncio.get_running_loop()
        key = key_of(self._settings)
        held = self._upstreams.get(loop)
        if held is not None and held[0] == key:
            return held[1]
        made = await asyncio.to_thread(self._make, key)
        # Other tasks ran meanwhile, and one of them may have been quicker.
        held = self._upstreams.get(loop)
        if held is not None and held[0] == key:
            await made.aclose()
            return held[1]
        self._upstreams[loop] = (key, made)
        return made

    def _make(self, key: Secret) -> AsyncUpstream:
        from settle_mp.async_upstream import AsyncUpstream

        try:
            return AsyncUpstream(self._settings.base_url, key)
        except ValueError as error:
            raise ApiError(f"Nothing was sent. {error}", 0) from None


_Upstreams = weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, "tuple[Secret, AsyncUpstream]"]

_inherited: Final[list[_Upstreams]] = []


def _no_upstreams() -> _Upstreams:
    return weakref.WeakKeyDictionary()
