"""The collector as the child of a Celery worker: started first, ended last, never two, never in the way."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.brokers import files
from tests.hosts import DEADLINE_S
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.brokers import Broker
    from tests.hosts import Host, Program

pytestmark = pytest.mark.slow

APP = "tests.integrations.celery_app"
OWN = {"RUN_COLLECTOR": "0"}


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker without a server."""
    with files() as made:
        yield made


def collector_pids(worker: Program) -> list[int]:
    """The collectors that a worker has had so far."""
    return [int(pid) for pid in re.findall(r"collector_spawned pid=(\d+)", worker.said)]


def send(broker: Broker, worker: Program, count: int) -> None:
    """Send tasks and wait until they have run."""
    before = worker.said.count(" succeeded in ")
    for number in range(count):
        broker.send("track", number)
    worker.wait_said(" succeeded in ", before + count)


def settle_with_another(host: Host, count: int) -> None:
    """Let a collector of the next start ship what was left, if anything was; nothing may run by now."""
    host.wait_empty()
    assert host.status()["balanced"]
    host.collector()
    host.settle(count)


def test_a_killed_collector_comes_back_and_ends_last(host: Host, broker: Broker) -> None:
    """SIGKILLed on the way it is started again, and so is its supervisor; a warm shutdown ends both."""
    worker = broker.worker(host, APP, "--concurrency=2", **OWN)
    worker.wait_said("collector_started")
    os.kill(collector_pids(worker)[0], signal.SIGKILL)
    send(broker, worker, 10)
    worker.wait_said("collector_started", 2)
    os.kill(_parent(collector_pids(worker)[1]), signal.SIGKILL)
    worker.wait_said("collector_started", 3)
    send(broker, worker, 10)
    said = worker.end()
    assert 'collector_died reason="killed by SIGKILL"' in said
    assert said.index("Warm shutdown") < said.rindex("collector_stopping")
    assert said.rindex("collector_stopped") > said.rindex(" succeeded in ")
    settle_with_another(host, 20)


def _parent(pid: int) -> int:
    found = re.search(r"^PPid:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_two_workers_have_one_collector(host: Host, broker: Broker) -> None:
    """The second worker's waits for the first one's end, here of a cold shutdown, and takes over."""
    first = broker.worker(host, APP, "--concurrency=1", "--hostname=first@%h", **OWN)
    first.wait_said("collector_started")
    second = broker.worker(host, APP, "--concurrency=1", "--hostname=second@%h", **OWN)
    second.wait_said("collector_runs_elsewhere")
    for number in range(20):
        broker.send("track", number)
    wait_until(
        lambda: sum(each.said.count(" succeeded in ") for each in (first, second)) == 20,
        "all tasks have run",
        DEADLINE_S,
    )
    assert "collector_started" not in second.said
    first.send(signal.SIGQUIT)
    first.wait_said("collector_stopped")
    first.process.wait(DEADLINE_S)
    second.wait_said("collector_started")
    send(broker, second, 5)
    second.end()
    settle_with_another(host, 25)


def test_a_killed_worker_takes_its_collector_along(host: Host, broker: Broker) -> None:
    """SIGKILL to the main process: its children die of it, and the collector ends by itself."""
    worker = broker.worker(host, APP, "--concurrency=2", **OWN)
    worker.wait_said("collector_started")
    send(broker, worker, 10)
    worker.end(signal.SIGKILL, -signal.SIGKILL)
    host.wait_empty()
    assert "collector_stopped" in worker.said
    settle_with_another(host, 10)


def test_a_drain_timeout_ships_before_the_end(host: Host, broker: Broker) -> None:
    """With one, the upstream has everything before the worker ends; SIGHUP restarts all of it."""
    worker = broker.worker(host, APP, "--concurrency=1", RUN_COLLECTOR="30")
    worker.wait_said("collector_started")
    worker.send(signal.SIGHUP)
    worker.wait_said(" ready.", 2)
    worker.wait_said("collector_started", 2)
    host.upstream.hold(when="before")
    send(broker, worker, 10)
    worker.send(signal.SIGTERM)
    worker.wait_said("collector_stopping", 2)
    host.upstream.release()
    assert worker.process.wait(DEADLINE_S) == 0
    assert host.upstream.quantity() == 10
    host.wait_empty()
