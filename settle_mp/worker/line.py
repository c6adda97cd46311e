"""Lines: this process's own way to the API, for calls whose result the application waits for.

Rule 1: one HTTP client a process, made on first use: connections are never shared with a parent or a child.
Rule 2: httpx is imported here on use only, and none of its errors gets out.
Rule 3: no lock: two threads that make a client at once settle it with one `dict.setdefault`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from settle_mp.calling import Calling, Found
from settle_mp.errors import ApiError, AuthenticationError, SettleSettleError
from settle_mp.notices import notice

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.config import Settings
    from settle_mp.core.answer import NoReply
    from settle_mp.core.call import Call, Heard
    from settle_mp.core.secret import Secret
    from settle_mp.upstream import Upstream

log: Final = logging.getLogger("settle_mp")

T = TypeVar("T")

#: What tells lines apart; clients of the same address and key share one.
Where = tuple[str, "Secret | None", "Path | None", bool]

_lines: Final[dict[Where, Line]] = {}


class StandIn(Protocol):
    """What answers calls in place of the upstream."""

    def takes(self, call: Call[Any]) -> bool:
        """Whether it answers this one."""

    def call(self, call: Call[Any], *, timeout_s: float) -> Heard | NoReply:
        """Answer it, without any waiting."""


#: Asked before any upstream, the last one first. None but in tests of our users'; see `settle_mp.testing`.
stand_ins: Final[list[StandIn]] = []


def stand_in_for(call: Call[Any]) -> StandIn | None:
    """What answers this call in place of the upstream, if anything."""
    return next((each for each in reversed(stand_ins) if each.takes(call)), None)


def where(settings: Settings) -> Where:
    """What tells the line of these settings from others."""
    return (settings.base_url, settings.api_key, settings.api_key_file, settings.disabled)


def line_for(settings: Settings) -> Line:
    """The line that all clients with the same address and key share in this process."""
    return _lines.setdefault(where(settings), Line(settings))


def key_of(settings: Settings) -> Secret:
    """Find the key to send, read anew where it is in a file, so that a changed one is used at once.

    Raises:
        SettleSettleError: If this client is disabled, or has no key.
        SettingsError: If the key's file can't be read.
    """
    if settings.disabled:
        raise SettleSettleError(
            "settle-mp is disabled by the setting `disabled`, so nothing was sent; a debit that did nothing "
            "would give paid work away.",
            0,
            "DISABLED",
        )
    key = settings.read_api_key()
    if key is None:
        raise AuthenticationError("There is no API key: set SETTLESETTLE_API_KEY, or pass api_key=.")
    return key


def tell_doubt(call: Call[T], error: SettleSettleError) -> None:
    """Log a write of which nobody knows whether it was made; the caller may not."""
    if error.is_in_doubt:
        asked = {"call": call.name, "idempotency_key": call.idempotency_key}
        log.warning("wallet_call_in_doubt", extra=notice("wallet_call_in_doubt", error.message, **asked))


class Line:
    """Makes calls, each in the thread that asks for it.

    Args:
        settings: The address and the key.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing, import nothing."""
        self._settings = settings
        # One entry, but for the moment in which another takes its place.
        self._upstreams: dict[tuple[int, Secret], Upstream] = {}

    def do(self, call: Call[T], *, timeout: float, on_in_doubt: str) -> T:
        """Make a call, with as many tries as it may have, and wait for its result.

        Raises:
            SettleSettleError: When it has failed, or may have.
            TypeError, ValueError: If timeout or on_in_doubt is none.
        """
        calling = Calling(call, timeout=timeout, on_in_doubt=on_in_doubt, now_s=time.monotonic())
        upstream = self._way(call)
        while True:
            answer = upstream.call(call, timeout_s=calling.left_s(time.monotonic()))
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
            time.sleep(judged.seconds)

    def close(self) -> None:
        """Close this process's idle connections. Calls under way end as usual, later ones open anew."""
        for key in list(self._upstreams):
            self._drop(key)

    def _way(self, call: Call[Any]) -> Upstream | StandIn:
        return stand_in_for(call) or self._upstream()

    def _upstream(self) -> Upstream:
        mine = (os.getpid(), key_of(self._settings))
        upstream = self._upstreams.get(mine)
        if upstream is not None:
            return upstream
        made = self._make(mine[1])
        winner = self._upstreams.setdefault(mine, made)
        if winner is not made:
            made.close()
        # A parent's, or that of a key that was changed.
        for other in [each for each in list(self._upstreams) if each != mine]:
            self._drop(other)
        return winner

    def _make(self, key: Secret) -> Upstream:
        from settle_mp.upstream import Upstream

        try:
            made = Upstream(self._settings.base_url, key)
        except ValueError as error:
            raise ApiError(f"Nothing was sent. {error}", 0) from None
        _register_exit()
        return made

    def _drop(self, key: tuple[int, Secret]) -> None:
        upstream = self._upstreams.pop(key, None)
        if upstream is None:
            return
        if key[0] == os.getpid():
            upstream.close()
            return
        upstream.let_go()
        _inherited.append(upstream)


# Kept: a finalizer of a parent's client might wait for a lock that a thread of the parent held at the fork.
_inherited: Final[list[Upstream]] = []
_exits: Final[list[int]] = []


def _register_exit() -> None:
    if not _exits:
        _exits.append(1)
        atexit.register(_close_all)


def _close_all() -> None:
    for line in list(_lines.values()):
        with contextlib.suppress(Exception):
            line.close()
