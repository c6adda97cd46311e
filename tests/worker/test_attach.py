"""Attaching to the vendor's SDK: what it had buffered is counted once, and its other modules stay its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import settlesettle

import settle_mp
from settle_mp import Settle, UsageSummary, attach
from settle_mp.worker.client import Events
from settle_mp.worker.track import Tracker
from tests.hosts import host
from tests.upstreams import upstream, wait_until
from tests.worker import reading
from tests.worker.conftest import end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hosts import Host
    from tests.upstreams import Upstream

__all__ = ["host", "upstream"]

USER = "user_123"
KINDS = ("SettleSettle", "AsyncSettleSettle")


def end_ours(client: Any) -> None:
    """End our part of a client, as the end of the process would."""
    events = getattr(client.events, "_events", client.events)
    end(cast("Settle", SimpleNamespace(events=events)))


class Attached:
    """Clients of the SDK, made and ended."""

    def __init__(self, upstream: Upstream, state_dir: Path) -> None:
        self._upstream = upstream
        self._state_dir = state_dir
        self._loop = asyncio.new_event_loop()
        self._made: list[Any] = []

    def make(self, kind: str, **options: Any) -> Any:
        """A client whose timer sends nothing by itself."""
        with warnings.catch_warnings():
            # It warns of each test key.
            warnings.simplefilter("ignore", UserWarning)
            client = getattr(settlesettle, kind)(
                api_key=self._upstream.api_key,
                base_url=self._upstream.base_url,
                **{"flush_interval_ms": 600_000, **options},
            )
        self._made.append(client)
        return client

    def attach(self, client: Any, **settings: Any) -> Any:
        """Attach to it, in the state folder of the test."""
        return attach(client, **{"state_dir": self._state_dir, **settings})

    def wait(self, result: Any) -> Any:
        """Wait for a result, where it is to be awaited."""
        return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def in_loop(self, call: Callable[[], Any]) -> Any:
        """Call where the asynchronous client finds a running loop."""

        async def run() -> Any:
            return call()

        return self._loop.run_until_complete(run())

    def close(self) -> None:
        """End everything."""
        for client in self._made:
            if isinstance(client.events, Tracker):
                self.wait(client._http.close() if hasattr(client._http, "close") else client._http.aclose())
                end_ours(client)
            else:
                self.wait(client.destroy())
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self._loop.close()


@pytest.fixture
def sdk(upstream: Upstream, state_dir: Path) -> Iterator[Attached]:
    """Make clients of the SDK."""
    sdk = Attached(upstream, state_dir)
    yield sdk
    sdk.close()


def users(state_dir: Path) -> list[str]:
    """Whose events we have journaled."""
    return sorted(reading.users(reading.only_journal(state_dir)))


def timers() -> list[threading.Thread]:
    """Timer threads of this process."""
    return [each for each in threading.enumerate() if isinstance(each, threading.Timer) and each.is_alive()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_buffered_is_taken_over_once(
    sdk: Attached, upstream: Upstream, state_dir: Path, kind: str
) -> None:
    """With quantity and metadata, in its order; later events are ours, and the vendor's client sends none."""
    client = sdk.make(kind)
    for number in range(3):
        client.events.track(f"user_{number}", "AI_QUERY", number + 1, {"model": "gpt-4"})
    assert sdk.attach(client) is client
    client.events.track("user_3", "AI_QUERY", quantity=4, metadata={"model": "gpt-4"})
    events = reading.events(reading.only_journal(state_dir))
    assert [(event.user_id, event.quantity, event.metadata) for event in events] == [
        (f"user_{number}", number + 1, {"model": "gpt-4"}) for number in range(4)
    ]
    assert client.events.pending_count == 4
    assert upstream.requests_count == 0


@pytest.mark.parametrize("kind", KINDS)
def test_attached_twice_is_attached_once(sdk: Attached, state_dir: Path, kind: str) -> None:
    """A client of ours is left as it is, too."""
    client = sdk.make(kind)
    client.events.track("a", "AI_QUERY")
    events = sdk.attach(client).events
    assert sdk.attach(client).events is events
    assert users(state_dir) == ["a"]
    ours = Settle(state_dir=state_dir)
    assert attach(ours) is ours


def test_its_timer_thread_is_stopped(sdk: Attached, upstream: Upstream) -> None:
    """It sends nothing any more, and starts no successor."""
    client = sdk.make("SettleSettle", flush_interval_ms=20)
    assert timers()  # two while one starts the next
    buffer = client.events._buffer
    sdk.attach(client)
    wait_until(lambda: not timers(), "the timer's thread has ended")
    # One that had just begun its turn goes on to start another.
    buffer._timer_flush()
    assert timers() == []
    assert upstream.requests_count == 0


def test_its_timer_task_is_stopped(sdk: Attached, upstream: Upstream, state_dir: Path) -> None:
    """In the loop; a stopped one is started again by nobody, not by an old `track` either."""
    client = sdk.make("AsyncSettleSettle", flush_interval_ms=20)
    old_track = client.events.track

    async def main() -> None:
        client.events.track("a", "AI_QUERY")
        task = client.events._task
        sdk.attach(client)
        await asyncio.wait([task])
        assert task.cancelled()
        old_track("b", "AI_QUERY")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    sdk.wait(main())
    assert users(state_dir) == ["a", "b"]
    assert upstream.requests_count == 0


@pytest.mark.parametrize("kind", KINDS)
def test_who_kept_the_old_functions_tracks_with_us(
    sdk: Attached, state_dir: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bound before, as in `track = settle.events.track`; more than the vendor's batch of 50 as well."""
    flushed: list[Events[str]] = []
    monkeypatch.setattr(Events, "flush", lambda events, *_: flushed.append(events))
    client = sdk.make(kind)
    track, flush, old_events = client.events.track, client.events.flush, client.events
    sdk.attach(client)
    for _ in range(60):
        sdk.in_loop(lambda: track("a", "AI_QUERY"))
    assert users(state_dir) == ["a"] * 60
    assert old_events.pending_count == 0
    sdk.wait(flush() if kind == "SettleSettle" else old_events.flush())
    assert flushed == [getattr(client.events, "_events", client.events)]


def test_a_batch_under_way_that_fails_is_taken_over(sdk: Attached, state_dir: Path) -> None:
    """The vendor's client puts it back where nobody would send it; it comes to us, once."""
    client = sdk.make("SettleSettle")
    begun, failing = threading.Event(), threading.Event()

    def fail(*_: object, **__: object) -> None:
        begun.set()
        failing.wait()
        raise settlesettle.ApiError("Network error", 0)

    client._http.request = fail
    client.events.track("a", "AI_QUERY")
    client.events.track("b", "AI_QUERY")
    sending = threading.Thread(target=client.events.flush)
    sending.start()
    begun.wait()
    sdk.attach(client)
    client.events.track("c", "AI_QUERY")
    assert users(state_dir) == ["c"]
    failing.set()
    sending.join()
    assert users(state_dir) == ["a", "b", "c"]


def test_a_batch_under_way_that_fails_in_a_loop_is_taken_over(sdk: Attached, state_dir: Path) -> None:
    """The same for its asynchronous client, whose timer is at work and is not cut off."""
    client = sdk.make("AsyncSettleSettle", flush_interval_ms=1)

    async def main() -> None:
        begun, failing = asyncio.Event(), asyncio.Event()

        async def fail(*_: object, **__: object) -> None:
            begun.set()
            await failing.wait()
            raise settlesettle.ApiError("Network error", 0)

        client._http.request = fail
        client.events.track("a", "AI_QUERY")
        timer = client.events._task
        await begun.wait()
        sdk.attach(client)
        client.events.track("c", "AI_QUERY")
        assert users(state_dir) == ["c"]
        failing.set()
        # It ends at its next turn.
        await asyncio.wait([timer])
        assert timer.cancelled()

    sdk.wait(main())
    assert users(state_dir) == ["a", "c"]


def test_threads_that_track_meanwhile_lose_nothing(
    sdk: Attached, upstream: Upstream, state_dir: Path
) -> None:
    """What goes to the vendor's client before, and to us after, is all there is."""
    client = sdk.make("SettleSettle", max_batch_size=10**9)
    begun, count = threading.Barrier(5), 400

    def track_all(number: int) -> None:
        begun.wait()
        for _ in range(count):
            client.events.track(f"user_{number}", "AI_QUERY")

    threads = [threading.Thread(target=track_all, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    sdk.attach(client)
    for thread in threads:
        thread.join()
    assert users(state_dir) == sorted(f"user_{number}" for number in range(4) for _ in range(count))
    assert upstream.requests_count == 0


@pytest.mark.parametrize("kind", KINDS)
def test_destroy_flushes_ours(sdk: Attached, host: Host, kind: str) -> None:
    """Through the collector to the upstream; then the client's own connections are closed."""
    host.collector()
    client = sdk.make(kind)
    client.events.track("a", "AI_QUERY", 2)
    attach(client, state_dir=host.state_dir)
    client.events.track("b", "AI_QUERY", 3)
    sdk.wait(client.destroy())
    assert host.upstream.quantity("AI_QUERY") == 5


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_modules_stay_its_own(sdk: Attached, upstream: Upstream, kind: str) -> None:
    """Its wallet and its errors; the summary, which is of events, is ours and reads as before."""
    upstream.seed({USER: 50})
    client = sdk.attach(sdk.make(kind))
    assert type(client.wallet).__module__ == "settlesettle.modules.wallet"
    assert sdk.wait(client.wallet.debit(USER, amount=10)).balance_after == 40
    with pytest.raises(settlesettle.InsufficientCreditsError):
        sdk.wait(client.wallet.debit(USER, amount=100))
    summary = sdk.wait(client.events.get_summary(USER))
    assert isinstance(summary, UsageSummary)
    assert summary["summary"] == []


def test_what_it_had_accepted_and_we_refuse_is_counted(
    sdk: Attached, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client checks nothing; one bad event costs none of the others, and is said."""
    client = sdk.make("SettleSettle")
    client.events.track("a", "AI_QUERY")
    client.events.track("", "AI_QUERY", -1)
    client.events.track("b", "AI_QUERY")
    sdk.attach(client)
    assert users(state_dir) == ["a", "b"]
    assert reading.slot(reading.only_journal(state_dir), "drops").dropped_count == 1
    assert [record.message for record in caplog.records] == ["event_refused"]
    with pytest.raises(ValueError, match="user_id"):
        client.events.track("", "AI_QUERY")


def test_without_buffering_there_is_nothing_to_take(sdk: Attached, state_dir: Path) -> None:
    """Its option `event_buffering=False`."""
    client = sdk.attach(sdk.make("SettleSettle", event_buffering=False))
    client.events.track("a", "AI_QUERY")
    assert users(state_dir) == ["a"]


def test_disabled_takes_nothing(sdk: Attached, state_dir: Path) -> None:
    """Events are no-ops then, those that were buffered too."""
    client = sdk.make("SettleSettle")
    client.events.track("a", "AI_QUERY")
    sdk.attach(client, disabled=True)
    client.events.track("b", "AI_QUERY")
    assert list(state_dir.iterdir()) == []


@pytest.mark.parametrize("other", [None, "client", object(), settle_mp, threading.Timer(1, print)])
def test_anything_else_is_refused(other: Any) -> None:
    """Naming what is allowed."""
    with pytest.raises(
        TypeError, match=r"client must be a SettleSettle or AsyncSettleSettle of settlesettle 0\.1, not "
    ):
        attach(other)


def test_a_client_that_looks_otherwise_is_refused_unchanged(sdk: Attached) -> None:
    """Another version may keep its events elsewhere: rather an error than events that are lost."""
    client = sdk.make("SettleSettle")
    events = client.events
    queue = events._buffer.__dict__.pop("_queue")
    try:
        with pytest.raises(TypeError, match="not settlesettle"):
            sdk.attach(client)
        assert client.events is events
    finally:
        events._buffer._queue = queue
