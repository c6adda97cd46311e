"""What a worker's process loads and starts: little, and nothing before the first `track()`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.worker.fake_collector import DEADLINE_S, FakeCollector

if TYPE_CHECKING:
    from pathlib import Path

#: Not in a worker that tracks: what ships, stores, serves or reads commands.
HEAVY = ["httpx", "sqlite3", "click", "fastapi", "uvicorn", "settle_mp.collector", "settle_mp.cli"]

TRACKING = """
import json, sys
from settle_mp import Settle

settle = Settle()
settle.events.track("user", "CALL", quantity=2, metadata={"model": "small"})
report = settle.events.flush(timeout=float(sys.argv[1]))
assert settle.events.pending_count in (0, 1)
settle.close(timeout=0.1)
print(json.dumps({"is_confirmed": bool(report), "modules": sorted(sys.modules)}))
"""

STARTING = """
import json, os, sys, threading

def state():
    is_linux = sys.platform == "linux"
    found = [[folder + "/" + name for name in folders + files]
             for folder, folders, files in os.walk(os.environ["HOME"])]
    return {
        "threads": len(os.listdir("/proc/self/task")) if is_linux else threading.active_count(),
        "files": sorted(sum(found, [])),
        "descriptors": len(os.listdir("/dev/fd")),
    }

states = [state()]
import settle_mp
states.append(state())
settle = settle_mp.Settle()
settle.events.flush(timeout=0)
settle.events.pending_count
states.append(state())
settle.events.track("user", "CALL")
states.append(state())
print(json.dumps(states))
"""


def run(script: str, *arguments: str, **environ: str) -> Any:
    """Run a script in a new interpreter; returns what it printed, and all warnings are errors in it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def heavy(modules: list[str]) -> list[str]:
    """Find what should not have been loaded."""
    return [each for each in HEAVY if each in modules]


def test_a_worker_that_ships_has_loaded_nothing_heavy(state_dir: Path) -> None:
    """Promise 2: tracking and flushing to a collector takes no HTTP client, database or command line."""
    with FakeCollector(state_dir) as collector, collector.serving():
        found = run(TRACKING, str(DEADLINE_S), SETTLE_MP_STATE_DIR=str(state_dir))
        assert found["is_confirmed"]
        assert collector.users() == ["user"]
    assert heavy(found["modules"]) == []
    assert "settle_mp.worker.courier" in found["modules"]


def test_neither_has_one_without_a_collector(state_dir: Path) -> None:
    """Promise 2: nor does it take any when nobody answers."""
    found = run(TRACKING, "0.1", SETTLE_MP_STATE_DIR=str(state_dir))
    assert not found["is_confirmed"]
    assert heavy(found["modules"]) == []


@pytest.mark.parametrize("module", ["httpx", "sqlite3", "click"])
def test_a_heavy_module_would_be_seen(module: str, state_dir: Path) -> None:
    """These tests can fail."""
    found = run(f"import {module}\n" + TRACKING, "0", SETTLE_MP_STATE_DIR=str(state_dir))
    assert module in heavy(found["modules"])


def test_nothing_starts_before_the_first_event(tmp_path: Path) -> None:
    """Promise 2: importing, `Settle()` and a flush of nothing make no thread, file or descriptor."""
    root = tmp_path / "state"
    states = run(STARTING, SETTLE_MP_STATE_DIR=str(root), HOME=str(tmp_path))
    at_first, imported, made, tracked = states
    assert at_first == imported == made
    assert at_first["files"] == []
    assert str(root / "journals") in tracked["files"]
    if sys.platform == "linux":
        assert tracked["threads"] > made["threads"]
