"""Which request meets which fault."""

from __future__ import annotations

import asyncio

import pytest

from settle_mp.sandbox.fault_queue import FAULTS_MAX, FaultQueue
from settle_mp.sandbox.faults import Fault


def test_faults_are_met_in_order_and_counted_down() -> None:
    """The first that matches is met, as often as it says; one without a count stands until it is cleared."""
    queue = FaultQueue()
    twice, always, other = Fault.answering(503, times=2), Fault.reset(times=None), Fault(path="/v1/events")
    queue.add([other, twice, always])
    met = [queue.take("/v1/events/batch", (), ()) for _ in range(5)]
    assert met == [twice, twice, always, always, always]
    assert queue.take("/v1/events", (), ()) == other
    queue.clear()
    assert queue.take("/v1/events", (), ()) is None


def test_the_queue_is_bounded() -> None:
    """A loop that adds faults without end is refused."""
    queue = FaultQueue()
    queue.add([Fault()] * FAULTS_MAX)
    with pytest.raises(ValueError, match="at most"):
        queue.add([Fault()])


def test_release_frees_who_is_held_and_holds_no_more() -> None:
    """A release lets go exactly those held before it, and removes the faults that hold."""

    async def scenario() -> None:
        queue = FaultQueue()
        queue.add([Fault.hold(), Fault.answering(500, times=None)])
        early = asyncio.create_task(queue.wait_released())
        await asyncio.sleep(0)
        assert queue.release() == 1
        late = asyncio.create_task(queue.wait_released())
        await asyncio.wait_for(early, 5)
        assert not late.done()
        assert queue.held_count == 1
        assert [each["fault"]["action"] for each in queue.standing()] == ["answer"]
        queue.clear()
        await asyncio.wait_for(late, 5)
        assert queue.held_count == 0

    asyncio.run(scenario())


def test_closing_wakes_everyone() -> None:
    """Nobody sleeps through the end of the sandbox."""

    async def scenario() -> None:
        queue = FaultQueue()
        waiting = [asyncio.create_task(queue.pause(3_600)), asyncio.create_task(queue.wait_released())]
        await asyncio.sleep(0)
        queue.close()
        await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert queue.is_closing

    asyncio.run(scenario())
