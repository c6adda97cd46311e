"""Strangers at the sockets of a running collector: whatever they do, workers' events are billed once each."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.collectors import worker
from tests.hostile.strangers import STRANGERS, idle_connections, impostors
from tests.hosts import CLI
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from tests.hosts import Host

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.uname().sysname != "Linux", reason="looks into /proc")]

#: Bytes that strangers may leave a collector bigger by: what libzmq and the allocator keep for later.
LEFT_BYTES_MAX = 96 * 1024 * 1024


def dice(seed: str) -> random.Random:
    """Dice that fall the same way in each run."""
    return random.Random(seed)  # noqa: S311  no secret


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def resident_bytes(pid: int) -> int:
    """How much memory a process takes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_strangers_come_and_go(host: Host) -> None:
    """One after the other beside a worker: each event is billed once, and nothing of theirs is left."""
    collector = host.collector()
    with worker(host) as ada:
        ada.track(10)
        assert ada.flush().is_ok
        descriptors_before, bytes_before = descriptors(collector.pid), resident_bytes(collector.pid)
        # Those who take a worker's name are in `make chaos`: it doubts its connection after 15 s.
        for name, stranger in STRANGERS.items() - {("impostors", impostors)}:
            ada.ask("burst", 0.1).wait()
            stranger(host.state_dir, dice(name))
            ada.track(10)
            assert ada.flush().is_ok, name
        tracked_count = ada.track(0)
        # Those who said nothing are thrown out by the time that a greeting may take.
        wait_until(
            lambda: descriptors(collector.pid) <= descriptors_before + 4, "their connections are closed", 30.0
        )
        assert resident_bytes(collector.pid) < bytes_before + LEFT_BYTES_MAX
    assert host.status()["refused_count"] > 100
    host.settle(tracked_count)


def test_a_thousand_connections_where_hundreds_fit(host: Host) -> None:
    """The door is shut before descriptors run out, which libzmq would not survive, and opened again."""
    limited = ["sh", "-c", 'ulimit -n 400 && exec "$@"', "sh"]
    collector = host.run([*limited, *CLI, "collector"])
    collector.wait_said("collector_started")
    with worker(host) as ada:
        ada.track(10)
        assert ada.flush().is_ok
        idle_connections(host.state_dir, dice("many"))
        assert "collector_not_listening" in collector.said
        ada.track(10)
        assert ada.flush().is_ok
    with worker(host) as bob:
        bob.track(10)
        assert bob.flush().is_ok
    host.settle(30)
