"""Attaching to a client of the vendor's SDK: its `events` become ours, its other modules stay its own.

Rule 1: what it had buffered is tracked by us once. Its buffer is taken whole, and what would come into it
    later (a batch under way that fails and is put back, a caller that kept the old `track`) is tracked too.
Rule 2: nothing of it is imported: a client is known by what it has, and one that looks otherwise is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeVar

from settle_mp.worker.aio import AsyncSettle
from settle_mp.worker.client import Settle
from settle_mp.worker.track import Tracker, make_track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from typing_extensions import Unpack

    from settle_mp.arguments import SettingsArguments

ClientT = TypeVar("ClientT")

#: The address that its clients have when nobody gave them one; ours then stands in our settings.
_VENDORS_DEFAULT: Final = "https://settlesettle-api.onrender.com"

_KNOWN: Final = "a SettleSettle or AsyncSettleSettle of settlesettle 0.1"


def attach(client: ClientT, **settings: Unpack[SettingsArguments]) -> ClientT:
    """Give a client of the vendor's SDK durable events, for who needs its other modules as well.

    Its timer is stopped, what it had buffered is tracked by us, `events` is ours, and its `destroy()` flushes
    ours. Call it where the client is made, before a fork. Done twice it is done once.

    Args:
        client: A `SettleSettle` or `AsyncSettleSettle` of `settlesettle`.
        settings: As for `Settle`. The key, and an address that was given to the client, are the client's.

    Returns:
        The same client.

    Raises:
        TypeError: If it is no such client, or of a version that looks otherwise; nothing was changed.
        SettingsError: As for `Settle`.
    """
    vendors: Any = client
    if isinstance(getattr(client, "events", None), Tracker):
        return client
    from inspect import iscoroutinefunction  # a worker that attaches to nothing does without

    buffer = _buffer_of(vendors)
    is_async = iscoroutinefunction(vendors.destroy)
    ours = (AsyncSettle if is_async else Settle)(**_settings_of(vendors, settings))
    # The sync client's destroy() calls this after its flush.
    vars(ours.events)["stop_buffer"] = ours.close
    vendors.events = ours.events
    if buffer is not None:
        (_take_async if is_async else _take_sync)(buffer, _taker(ours), ours.events.flush)
    return client


def _buffer_of(client: Any) -> Any:
    """What holds its events: its sync buffer (None without buffering), or its async events themselves."""
    events = getattr(client, "events", None)
    is_client = all(hasattr(client, name) for name in ("destroy", "_key", "_http")) and hasattr(
        events, "track"
    )
    holder = getattr(events, "_buffer", events)
    if not is_client or not (holder is None or isinstance(getattr(holder, "_queue", None), list)):
        raise TypeError(f"client must be {_KNOWN}, not {type(client).__module__}.{type(client).__qualname__}")
    return holder


def _settings_of(client: Any, given: SettingsArguments) -> SettingsArguments:
    own: SettingsArguments = {}
    if not (given.get("api_key") or given.get("api_key_file")):
        own["api_key"] = client._key  # noqa: SLF001  it has no public name there
    address = getattr(client._http, "_base_url", _VENDORS_DEFAULT)  # noqa: SLF001  the same
    if address != _VENDORS_DEFAULT:
        own["base_url"] = address
    return {**own, **given}


def _taker(ours: Settle | AsyncSettle) -> Callable[[Iterable[Any]], None]:
    """What tracks the vendor's events. It had accepted them, so one that can't be tracked ends nothing."""
    client = ours if isinstance(ours, Settle) else ours._client  # noqa: SLF001  the two are one client
    settings = dataclasses.replace(client._settings, on_invalid="count")  # noqa: SLF001  ours
    if settings.disabled:
        return lambda _: None
    track = make_track(client.events._producer, settings)  # noqa: SLF001  ours

    def take(events: Iterable[Any]) -> None:
        for event in events:
            track(event.user_id, event.event_type, event.quantity, event.metadata)

    return take


def _take_sync(buffer: Any, take: Callable[[Iterable[Any]], None], flush: Callable[[], Any]) -> None:
    buffer.flush = flush
    # The timer may just be at work, and would start its successor afterwards.
    buffer._start_timer = lambda: None  # noqa: SLF001  its inside is what we are here for
    buffer.stop()
    with buffer._lock:  # noqa: SLF001  the same
        events = _divert(buffer, take)
    take(events)


def _take_async(events: Any, take: Callable[[Iterable[Any]], None], flush: Callable[[], Any]) -> None:
    import asyncio  # who has such a client has imported it

    async def flush_ours() -> None:
        if asyncio.current_task() is task:
            raise asyncio.CancelledError  # its timer, which ends here
        await flush()

    task, events._task = events._task, None  # noqa: SLF001  its inside is what we are here for
    events._buffering_enabled = False  # noqa: SLF001  so that an old `track` starts no timer
    events.flush = flush_ours
    # Cancelled in the midst of a request it would lose the batch; then it ends by itself at its next turn.
    if task is not None and not events._flushing:  # noqa: SLF001  the same
        with contextlib.suppress(RuntimeError):  # its loop is closed, and the timer with it
            task.cancel()
    take(_divert(events, take))


def _divert(holder: Any, take: Callable[[Iterable[Any]], None]) -> list[Any]:
    """Take the queue out of what holds it, and track by ourselves whatever is put there from now on."""
    queued: list[Any] = holder._queue  # noqa: SLF001  its inside is what we are here for
    drain = _Drain(take)
    queue = property(lambda _: drain, lambda _, events: take(events))
    holder.__class__ = type(type(holder).__name__, (type(holder),), {"_queue": queue})
    return queued


class _Drain(list[Any]):
    """An empty list that stays so."""

    def __init__(self, take: Callable[[Iterable[Any]], None]) -> None:
        super().__init__()
        self._take = take

    def append(self, event: Any) -> None:
        self._take([event])
