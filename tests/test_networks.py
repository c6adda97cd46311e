"""Between two hosts, as far as one machine can be two: network namespaces, a cable, and CURVE."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from tests.collectors import command, worker
from tests.hosts import Host
from tests.networks import NEAR_NAME, two_networks
from tests.remotes import remote
from tests.upstreams import sandbox, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.networks import Far

PORT = 4747


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Far]:
    """Enter a network with the collector's side, and make the workers' side."""
    with two_networks(tmp_path) as made:
        yield made


@pytest.fixture
def host(far: Far, state_dir: Path, tmp_path: Path) -> Iterator[Host]:
    """The collector's host, with the upstream."""
    del far  # entered before anything is started
    with sandbox() as upstream:
        running = Host(state_dir, upstream, tmp_path)
        try:
            yield running
        finally:
            running.close()


def test_workers_on_another_host_are_billed_exactly_once(host: Host, far: Far) -> None:
    """Promise 1: through a pulled cable, killed workers and a killed collector; the name is resolved."""
    listening = {"SETTLE_MP_ENDPOINT": f"tcp://0.0.0.0:{PORT}"}
    with remote(host) as elsewhere:
        far_host = copy.copy(host)
        far_host.wrap = far.inside
        there = {**elsewhere.workers, "SETTLE_MP_ENDPOINT": f"tcp://{NEAR_NAME}:{PORT}"}
        collector = host.collector(**listening)
        with worker(far_host, "--silent", **there) as dead:
            dead.track(10_000)
            dead.kill()
        with worker(far_host, **there) as ada:
            ada.track(1_000)
            wait_until(lambda: host.upstream.quantity() >= 1_000, "the cable works", 60)
            far.unplug()
            ada.track(1_000)
            collector.kill_group()
            host.collector(**listening)
            far.plug()
            assert ada.flush().is_ok
            wait_until(lambda: len(elsewhere.journals()) == 1, "what the dead one left is carried", 60)
        assert command(host, "flush", **listening).code == 0
        assert host.upstream.quantity() == 12_000
        books = host.status()
        assert books["balanced"], books
        assert books["events"]["confirmed"] == books["events"]["tracked"] == 12_000
