"""gevent: the courier stays a real thread, and a flush in one greenlet stands in no other's way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.core import wire
from tests.worker.fake_collector import FakeCollector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("gevent")

#: Both orders in which an application may patch: before it loads us, and after its first event.
PATCHED = {
    "first": "from gevent import monkey; monkey.patch_all()\nfrom settle_mp import Settle\nsettle = Settle()",
    "after the client was made": (
        "from settle_mp import Settle\nsettle = Settle()\nfrom gevent import monkey; monkey.patch_all()"
    ),
    "after an event": (
        "from settle_mp import Settle\nsettle = Settle()\nsettle.events.track('early', 'CALL')\n"
        "from gevent import monkey; monkey.patch_all()"
    ),
}

BODY = """
import json, os, sys, time
import gevent
from settle_mp.worker import native

assert native.is_patched()
stalls = []
ticks = [0]

def tick():
    while True:
        before_s = time.perf_counter()
        gevent.sleep(0.002)
        stalls.append(time.perf_counter() - before_s)
        ticks[0] += 1

def wait_for_ticks(count):
    until = ticks[0] + count
    with gevent.Timeout(20):
        while ticks[0] < until:
            gevent.sleep(0.002)

ticker = gevent.spawn(tick)
wait_for_ticks(100)
stall_without_s = max(stalls)
stalls.clear()

def work(name):
    for number in range(50):
        settle.events.track(f"{name}_{number:02}", "CALL")
        gevent.sleep(0)

gevent.joinall([gevent.spawn(work, f"greenlet{number}") for number in range(4)], raise_error=True)
flushes = [gevent.spawn(settle.events.flush, timeout=20) for _ in range(3)]
wait_for_ticks(100)
assert not any(flush.ready() for flush in flushes), "the collector has not answered yet"
print("waiting", flush=True)
gevent.joinall(flushes)
stall_with_s = max(stalls)
assert all(flush.value for flush in flushes), [flush.value for flush in flushes]

late = gevent.spawn(settle.events.flush, timeout=0.2)
settle.events.track("last", "CALL")
wait_for_ticks(20)
late.join()
life = settle.events._producer._mine()
courier = life.courier
is_running = courier.is_running
threads = len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 4
closing = gevent.spawn(settle.close, timeout=10)
closing.join()
print(json.dumps({
    "stall_without_s": stall_without_s,
    "stall_with_s": stall_with_s,
    "is_running": is_running,
    "threads": threads,
    "is_closed": not courier.is_running,
    "gevent": life.journal.header.image.count(b"patched"),
}), flush=True)
"""

USERS = sorted([*(f"greenlet{each}_{number:02}" for each in range(4) for number in range(50)), "last"])


class Worker:
    """A process under gevent, and a collector that answers its flushes when it may."""

    def __init__(self, collector: FakeCollector, state_dir: Path) -> None:
        self.collector = collector
        self.environ = {**os.environ, "SETTLE_MP_STATE_DIR": str(state_dir)}
        self.may_answer = threading.Event()
        collector.flushed = self._answer

    def _answer(self, flush: wire.Flush) -> wire.Message | None:
        is_there = self.collector.positions.get(flush.producer, 0) >= flush.position
        return wire.Flushed(flush.ticket, 0, 0, 0, "") if is_there and self.may_answer.is_set() else None

    def run(self, script: str) -> dict[str, Any]:
        """Run a script; flushes are answered once it has said that it waits. Returns what it reports."""
        # Late patching makes gevent warn of modules that were loaded before; that is what we show.
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
        )
        net = threading.Timer(60, process.kill)
        net.start()
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            self.may_answer.set()
            output, errors = process.communicate()
        finally:
            net.cancel()
        assert (said, process.returncode, errors) == ("waiting\n", 0, ""), errors
        report: dict[str, Any] = json.loads(output)
        return report


@pytest.fixture
def worker(state_dir: Path) -> Iterator[Worker]:
    """Make a worker's collector, which serves by itself."""
    with FakeCollector(state_dir) as collector, collector.serving():
        yield Worker(collector, state_dir)


@pytest.mark.parametrize("order", PATCHED)
def test_a_patched_worker_works_as_any_other(worker: Worker, order: str) -> None:
    """A real thread ships everything, and while flushes wait for the upstream other greenlets go on."""
    report = worker.run(PATCHED[order] + BODY)
    early = ["early"] if order == "after an event" else []
    assert worker.collector.users() == sorted([*early, *USERS])
    assert report["is_running"]
    assert report["is_closed"]
    # Ours, ZeroMQ's two, and the main thread: a courier that is a greenlet would be no thread at all.
    assert report["threads"] >= 4
    assert report["gevent"] == (0 if early else 1), "the header says whether it was patched at birth"
    # No limit, since it is the machine's as well; `pytest -rP` shows it to who looks.
    stalls = {name: f"{report[name] * 1000:.1f} ms" for name in ("stall_without_s", "stall_with_s")}
    sys.stdout.write(f"the hub's longest stall: {stalls}\n")
