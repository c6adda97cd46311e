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


@pytest.mark.parametrize("hooks", [{}, {"NO_HOOKS": "1"}], ids=["hooks", "no-hooks"])
def test_a_process_for_each_task(host: Host, hooks: dict[str, str]) -> None:
    """100 tasks with max_tasks_per_child=1: 100 units upstream, 100 processes gone, nothing left behind."""
    host.collector()
    with redis() as broker:
        worker = broker.worker(
            host, APP, "--concurrency=25", "--max-tasks-per-child=1", TRACK_AT_IMPORT="1", **hooks
        )
        for number in range(TASKS):
            broker.send("track", number)
        worker.wait_said(" succeeded in ", TASKS)
        said = worker.end()
    processes = set(re.findall(r"INFO/ForkPoolWorker-(\d+)\] Task track\[[-\w]+\] succeeded", said))
    assert len(processes) == TASKS
    wait_until(lambda: len(host.pids()) == 1, "only the collector is left", DEADLINE_S)
    host.settle(TASKS + 1)
    assert host.upstream.quantity("TASK") == TASKS
