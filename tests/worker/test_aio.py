"""AsyncSettle: tracking that is not awaited, and everything else without blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvloop

from settle_mp import AsyncSettle
from settle_mp import TimeoutError as OurTimeoutError
from settle_mp.async_upstream import AsyncUpstream
from settle_mp.core.secret import Secret
from settle_mp.worker.async_line import AsyncLine, async_line_for
from tests.hosts import host
from tests.rawserver import KeepsAlive, raw_server, silent
from tests.upstreams import upstream, wait_until
from tests.worker import reading
from tests.worker.conftest import end
from tests.worker.wallets import DONE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hosts import Host
    from tests.upstreams import Upstream

__all__ = ["host", "upstream"]


@pytest.fixture
def make_async(state_dir: Path) -> Iterator[Callable[..., AsyncSettle]]:
    """Make asynchronous clients that leave nothing behind; settings by name."""
    made: list[AsyncSettle] = []

    def make(**settings: Any) -> AsyncSettle:
        made.append(AsyncSettle(**{"state_dir": state_dir, **settings}))
        return made[-1]

    yield make
    for client in made:
        end(client._client)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_ten_thousand_events_of_a_hundred_tasks_hold_up_no_other(
    make_async: Callable[..., AsyncSettle], state_dir: Path, loop: str
) -> None:
    """Each has its turn in each round of the loop, while the courier works beside it; all are journaled."""
    settle = make_async()
    rounds, turns = 100, 0

    async def main() -> None:
        nonlocal turns
        tasks = [asyncio.create_task(handle(number)) for number in range(100)]
        while not all(task.done() for task in tasks):
            turns += 1
            await asyncio.sleep(0)

    async def handle(number: int) -> None:
        for count in range(rounds):
            settle.events.track(f"user_{number}", "AI_QUERY")
            # Nothing of the others was held up for longer than a round.
            assert abs(turns - count) <= 2
            await asyncio.sleep(0)

    (uvloop.run if loop == "uvloop" else asyncio.run)(main())
    assert rounds <= turns <= rounds + 2
    counts = Counter(reading.users(reading.only_journal(state_dir)))
    assert counts == {f"user_{number}": rounds for number in range(100)}


def test_it_needs_no_loop_to_be_made_and_to_track(make_async: Callable[..., AsyncSettle]) -> None:
    """At import, before a fork, in a thread: `track()` is the same function as everywhere."""
    settle = make_async()
    settle.events.track("u", "AI_QUERY")
    assert not inspect.iscoroutinefunction(settle.events.track)
    assert settle.events.track is settle._client.events.track
    assert settle.events.pending_count == 1


def test_disabled_is_instant(make_async: Callable[..., AsyncSettle]) -> None:
    """Nothing is waited for, and no thread is made, which a flush otherwise waits in."""
    settle = make_async(disabled=True)

    async def main() -> bool:
        settle.events.track("u", "AI_QUERY")
        flush = settle.events.flush(timeout=60)
        with pytest.raises(StopIteration) as ended:
            flush.send(None)  # a coroutine that never gives up its turn
        return bool(ended.value.value)

    assert asyncio.run(main())


@pytest.mark.slow
def test_flush_waits_for_the_upstream_and_not_the_loop(
    host: Host, make_async: Callable[..., AsyncSettle]
) -> None:
    """While the upstream withholds its answer the loop goes on; then the flush is truthy."""
    host.collector()
    host.upstream.hold()
    settle = make_async(state_dir=host.state_dir)

    async def flush() -> bool:
        settle.events.track("u", "AI_QUERY", 3)
        flushing = asyncio.create_task(settle.events.flush(timeout=60))
        await asyncio.to_thread(host.upstream.wait_held, 1, 60)
        assert not flushing.done()
        await asyncio.to_thread(host.upstream.release)
        report = await flushing
        assert (report.confirmed_count, report.reason) == (1, None)
        await settle.close(timeout=10)
        return bool(report)

    assert asyncio.run(flush())
    assert host.upstream.quantity("AI_QUERY") == 3


def test_a_flush_without_a_collector_is_falsy_at_its_deadline(make_async: Callable[..., AsyncSettle]) -> None:
    """It never raises for that, and names the reason; bad timeouts do."""
    settle = make_async()

    async def flush() -> None:
        settle.events.track("u", "AI_QUERY")
        report = await settle.events.flush(timeout=0.2)
        assert not report
        assert report.reason
        with pytest.raises(ValueError, match="timeout"):
            await settle.events.flush(timeout=-1)
        with pytest.raises(TypeError, match="timeout"):
            await settle.events.flush(timeout="1")  # type: ignore[arg-type]

    asyncio.run(flush())


def test_the_context_manager_closes(make_async: Callable[..., AsyncSettle]) -> None:
    """Afterwards `track()` still journals, and to close again does nothing."""

    async def use() -> None:
        async with make_async() as settle:
            settle.events.track("u", "AI_QUERY")
        settle.events.track("u", "AI_QUERY")
        assert settle.events.pending_count == 2
        await settle.destroy()
        await settle.close(timeout=0)

    asyncio.run(use())


def test_the_loop_goes_on_while_a_debit_waits(
    make_async: Callable[..., AsyncSettle], upstream: Upstream
) -> None:
    """A task that waits for the upstream holds up no other."""
    upstream.seed({"u": 5})
    upstream.hold()
    settle = make_async(base_url=upstream.base_url, api_key=upstream.api_key)

    async def debit() -> int:
        debiting = asyncio.create_task(settle.wallet.debit("u", amount=1, timeout=30))
        await asyncio.to_thread(upstream.wait_held, 1)
        assert not debiting.done()
        await asyncio.to_thread(upstream.release)
        balance = (await debiting).balance_after
        await settle.close()
        return balance

    assert asyncio.run(debit()) == 4


def test_a_cancelled_debit_is_cancelled_and_leaves_the_client_whole(
    make_async: Callable[..., AsyncSettle], upstream: Upstream
) -> None:
    """Nobody can know what became of it; the caller's own key asks again, and it is made once."""
    upstream.seed({"u": 5})
    upstream.hold()
    settle = make_async(base_url=upstream.base_url, api_key=upstream.api_key)

    async def debit() -> int:
        debiting = asyncio.create_task(settle.wallet.debit("u", amount=1, idempotency_key="order-1"))
        await asyncio.to_thread(upstream.wait_held, 1)
        debiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await debiting
        await asyncio.to_thread(upstream.release)
        again = await settle.wallet.debit("u", amount=1, idempotency_key="order-1")
        await settle.close()
        return again.balance_after

    assert asyncio.run(debit()) == 4
    assert upstream.balance("u") == 4


def test_each_loop_has_connections_of_its_own(
    make_async: Callable[..., AsyncSettle], upstream: Upstream
) -> None:
    """One client used by loops that come after each other, and by two at once."""
    upstream.seed({"u": 50})
    settle = make_async(base_url=upstream.base_url, api_key=upstream.api_key)

    async def debit() -> None:
        for _ in range(3):
            await settle.wallet.debit("u", amount=1)
        await settle.close()

    asyncio.run(debit())
    asyncio.run(debit())
    threads = [threading.Thread(target=asyncio.run, args=(debit(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert upstream.balance("u") == 50 - 12


def test_loops_that_are_gone_are_forgotten(
    make_async: Callable[..., AsyncSettle], upstream: Upstream
) -> None:
    """A client in one `asyncio.run()` after the other does not grow."""
    settle = make_async(base_url=upstream.base_url, api_key=upstream.api_key)
    line = async_line_for(settle._settings)

    async def look() -> None:
        await settle.wallet.get_balance("u")
        # What has no open connection can be forgotten without a word of Python's.
        await line._upstreams[asyncio.get_running_loop()].aclose()

    for _ in range(3):
        asyncio.run(look())
    assert len(line._upstreams) == 1


def test_loops_of_other_threads_come_and_go(
    make_async: Callable[..., AsyncSettle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one looks for those that are gone, others begin and end."""
    line = async_line_for(make_async(base_url="http://127.0.0.1:1", api_key="ss_test_x")._settings)
    monkeypatch.setattr(AsyncLine, "_make", lambda _, key: AsyncUpstream("http://127.0.0.1:1", key))
    # It takes long, and is not what this is about.
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: False)
    unused = AsyncUpstream("http://127.0.0.1:1", Secret("ss_test_x"))
    with contextlib.ExitStack() as stack:
        # They make it likely that the look is interrupted.
        for _ in range(100):
            line._upstreams[stack.enter_context(contextlib.closing(asyncio.new_event_loop()))] = unused

        async def come_and_go() -> None:
            for _ in range(5):
                await line._upstream()
                await line.aclose()

        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(8) as pool:
            for each in [pool.submit(asyncio.run, come_and_go()) for _ in range(400)]:
                each.result()


def test_a_hundred_tasks_that_begin_at_once_share_one_client(
    make_async: Callable[..., AsyncSettle], upstream: Upstream
) -> None:
    """Made in threads by several, one of them is kept."""
    settle = make_async(base_url=upstream.base_url, api_key=upstream.api_key)

    async def look() -> None:
        await asyncio.gather(*[settle.wallet.get_balance("u", timeout=60) for _ in range(100)])
        assert len(async_line_for(settle._settings)._upstreams) == 1
        await settle.close()

    asyncio.run(look())


def test_to_close_cuts_off_no_call(make_async: Callable[..., AsyncSettle]) -> None:
    """Another client of the account, or another task of it: what is under way has its one answer."""
    till = KeepsAlive(DONE)
    till.may_answer.clear()

    async def debit(base_url: str) -> None:
        first, second = [make_async(base_url=base_url, api_key="ss_test_x") for _ in range(2)]
        debiting = asyncio.create_task(first.wallet.debit("u", amount=1, timeout=60))
        await asyncio.to_thread(wait_until, lambda: len(till.asked) == 1, "it is asked")
        await second.close()
        await first.close()
        assert not debiting.done()
        till.may_answer.set()
        assert (await debiting).balance_after == 0
        await asyncio.to_thread(wait_until, lambda: len(till.gone) == 1, "the connection is closed")

    with raw_server(till) as raw:
        asyncio.run(debit(raw.base_url))
        assert (len(till.asked), raw.connections_count) == (1, 1)


def test_connections_that_are_being_made_at_the_close_are_closed_too(
    make_async: Callable[..., AsyncSettle],
) -> None:
    """Whatever moment it comes at: all calls end well, and afterwards no connection is left."""
    till = KeepsAlive(DONE)

    async def debit(base_url: str) -> None:
        settle = make_async(base_url=base_url, api_key="ss_test_x")
        for turns in range(25):
            debiting = [asyncio.create_task(settle.wallet.debit("u", amount=1, timeout=60)) for _ in range(5)]
            for _ in range(turns):
                await asyncio.sleep(0)
            await settle.close()
            await asyncio.gather(*debiting)
            assert len(till.asked) == 5 * (turns + 1)
            await settle.close()
            await asyncio.to_thread(
                wait_until, lambda: len(till.gone) == raw.connections_count, "all connections are closed"
            )

    with raw_server(till) as raw:
        asyncio.run(debit(raw.base_url))


def test_a_debit_times_out_in_its_time(make_async: Callable[..., AsyncSettle]) -> None:
    """The overall deadline is kept by event loops too, and other tasks are not held up."""
    with raw_server(silent) as raw:
        settle = make_async(base_url=raw.base_url, api_key="ss_test_x")

        async def debit() -> None:
            with pytest.raises(OurTimeoutError) as caught:
                await settle.wallet.debit("u", amount=1, timeout=3.0)
            assert caught.value.is_in_doubt
            await settle.close()

        asyncio.run(debit())
