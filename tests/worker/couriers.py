"""What the courier's tests share: a client, a collector, and how the two come to rest."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from settle_mp.core import wire
from settle_mp.worker.courier import SLEEP_S
from tests.upstreams import wait_until
from tests.worker.fake_collector import FakeCollector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp import Settle
    from settle_mp.worker.courier import Courier
    from settle_mp.worker.journal import Journal

#: About 8 KiB: a hundred events exceed the first segment, two hundred the credit.
LARGE = {"text": "x" * 8000}


@contextlib.contextmanager
def honest_collector(state_dir: Path) -> Iterator[FakeCollector]:
    """Make a collector that answers a flush, when it serves, once it has taken everything before it."""
    with FakeCollector(state_dir) as collector:
        collector.flushed = lambda flush: (
            wire.Flushed(flush.ticket, 0, 0, 0, "")
            if collector.positions.get(flush.producer, 0) >= flush.position
            else None
        )
        yield collector


def journal_of(client: Settle) -> Journal:
    """Find the journal of a client that has tracked."""
    life = client.events._producer._mine()
    assert life is not None
    return life.journal


def courier_of(client: Settle) -> Courier:
    """Find the courier of a client that has tracked."""
    life = client.events._producer._mine()
    assert life is not None
    assert life.courier is not None
    return life.courier


def track(client: Settle, *user_ids: str, metadata: dict[str, Any] | None = None) -> None:
    """Track one event a user."""
    for user_id in user_ids:
        client.events.track(user_id, "CALL", metadata=metadata)


def names(count: int, prefix: str = "user") -> list[str]:
    """Make users' ids, in order."""
    return [f"{prefix}_{number:05}" for number in range(count)]


def fall_asleep(client: Settle) -> None:
    """Wait until the courier lies in its long sleep, from which only `track()` wakes it."""
    courier = courier_of(client)
    wait_until(lambda: courier.asleep and courier._lull_s == SLEEP_S, "the courier is asleep")


def settle_down(client: Settle, collector: FakeCollector, user_id: str = "first") -> wire.Frame:
    """Have a first event taken and acknowledged."""
    track(client, user_id)
    collector.welcome(collector.hear(wire.Hello))
    frame = collector.settle(journal_of(client).tail)[-1]
    collector.positions[frame.producer] = frame.last
    wait_until(lambda: client.events.pending_count == 0, "the ack is heard")
    return frame
