"""The kills: in their order, at their time, and nobody else's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from settle_mp.demo import kills as kills_module
from settle_mp.demo.kills import Kills
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Stage:
    """A house, a load and a screen as far as kills look at them."""

    members: set[int] = field(default_factory=set)
    busy_workers: list[int] = field(default_factory=list)
    worker_if_asked: int = 0
    ended_count: int = 0
    is_done: bool = False
    is_collecting: bool = True
    collectors_started: int = 0
    said: list[str] = field(default_factory=list)

    @property
    def gunicorn(self) -> Any:
        return SimpleNamespace(has_member=self.members.__contains__)

    @property
    def collector(self) -> Any:
        return SimpleNamespace(pid=77)

    def kill_collector(self) -> int:
        self.is_collecting = False
        return 77

    def start_collector(self) -> None:
        self.collectors_started += 1

    def ask_worker(self) -> int:
        return self.worker_if_asked

    def note(self, text: str, style: str) -> None:
        del style
        self.said.append(text)


def kills(stage: Stage) -> Kills:
    """Make the kills of a hundred requests on a stage."""
    anything = cast("Any", stage)
    return Kills(anything, anything, anything, 100)


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two real processes that can be killed."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    started = [subprocess.Popen(command) for _ in range(2)]
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_everything_is_killed_in_its_time(
    sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker, the collector, which comes back, and another worker; not before their time, and each once."""
    monkeypatch.setattr(kills_module, "DEAD_S", 0.0)
    first, second = (each.pid for each in sleepers)
    stage = Stage(members={first, second}, busy_workers=[first, second])
    its = kills(stage)
    assert not its.turn()
    stage.ended_count = 25
    assert not its.turn()
    assert sleepers[0].wait(20) == -signal.SIGKILL
    its.turn()
    stage.ended_count = 45
    its.turn()
    wait_until(lambda: its.turn() or stage.collectors_started, "the next collector is started")
    assert not its.turn()
    stage.ended_count, stage.is_collecting = 70, True
    assert not its.turn()
    assert sleepers[1].poll() is None
    stage.ended_count = 80
    assert its.turn()
    assert sleepers[1].wait(20) == -signal.SIGKILL
    assert stage.collectors_started == 1
    assert [line.split(",")[0].split(";")[0] for line in stage.said] == [
        f"kill -9 {first}: a worker",
        "kill -9 77: the collector",
        "the collector is back (pid 77)",
        f"kill -9 {second}: a worker",
    ]
    assert "25 requests later" in stage.said[2]


def test_a_stranger_is_not_killed() -> None:
    """A worker that answered and is gone may have left its number to somebody, to us for example."""
    stage = Stage(members=set(), busy_workers=[os.getpid()], ended_count=30)
    its = kills(stage)
    before = its.state
    assert not its.turn()
    assert stage.said == []
    assert its.state == before


def test_when_all_have_ended_a_worker_is_asked_for(sleepers: list[subprocess.Popen[bytes]]) -> None:
    """Those who answered the last requests may have been recycled: it does not wait for them for ever."""
    victim = sleepers[0]
    stage = Stage(members={victim.pid}, busy_workers=[1], ended_count=100, is_done=True)
    its = kills(stage)
    its.turn()
    assert stage.said == []
    stage.worker_if_asked = victim.pid
    its.turn()
    assert victim.wait(20) == -signal.SIGKILL
