"""Celery: each task is billed exactly once, however short its process lives."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.brokers import redis
from tests.hosts import DEADLINE_S
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from tests.hosts import Host

pytestmark = pytest.mark.slow

APP = "tests.integrations.celery_app"
TASKS = 100
#: Celery itself takes a second for each process, and many more on a busy machine.
TASKS_S = 300.0


@pytest.mark.timeout(2 * TASKS_S)
def test_a_process_for_each_task(host: Host) -> None:
    """100 tasks with max_tasks_per_child=1: 100 units upstream, 100 processes gone, nothing left behind."""
    host.collector()
    with redis() as broker:
        options = ("--concurrency=25", "--max-tasks-per-child=1")
        worker = broker.worker(host, APP, *options, TRACK_AT_IMPORT="1")
        for number in range(TASKS):
            broker.send("track", number)
        worker.wait_said(" succeeded in ", TASKS, TASKS_S)
        said = worker.end()
    processes = set(re.findall(r"INFO/ForkPoolWorker-(\d+)\] Task track\[[-\w]+\] succeeded", said))
    assert len(processes) == TASKS
    wait_until(lambda: len(host.pids()) == 1, "only the collector is left", DEADLINE_S)
    host.settle(TASKS + 1)
    assert host.upstream.quantity("TASK") == TASKS
