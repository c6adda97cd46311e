"""gunicorn's hooks, one by one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from gunicorn.config import Config

from settle_mp.integrations import gunicorn as hooks
from settle_mp.journals import read_header
from settle_mp.sandbox.faults import Fault
from settle_mp.statedir import StateDir, producer_folders
from tests.hosts import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host

APP = "tests.integrations.tracking_app:app"
HOOKS = ["child_exit", "on_exit", "on_reload", "on_starting", "post_fork", "worker_exit"]


@pytest.mark.parametrize("name", HOOKS)
def test_gunicorn_takes_each_hook(name: str) -> None:
    """Each has the name and the number of arguments that gunicorn asks for."""
    settings = Config()
    settings.set(name, getattr(hooks, name))
    assert getattr(settings, name) is getattr(hooks, name)


def test_a_star_import_brings_the_hooks_and_no_more() -> None:
    """Each name in gunicorn.conf.py may be a setting of gunicorn's, so no other name comes along."""
    assert sorted(hooks.__all__) == sorted([*HOOKS, "run_collector"])
    assert set(HOOKS) <= Config().settings.keys()
    assert "run_collector" not in Config().settings


def test_importing_the_hooks_stays_light() -> None:
    """The arbiter imports no HTTP client, database or command line with them, and starts nothing."""
    code = (
        "import sys, threading, settle_mp.integrations.gunicorn as hooks\n"
        "hooks.run_collector()\n"
        "heavy = {'httpx', 'sqlite3', 'click', 'settle_mp.collector'} & sys.modules.keys()\n"
        "sys.exit(f'{heavy} {threading.enumerate()}' if heavy or threading.active_count() > 1 else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize("drain_timeout", [True, "5", None, -1, float("nan"), float("inf")])
def test_a_drain_timeout_is_a_number_of_seconds(drain_timeout: object) -> None:
    """Anything else is refused where it is written, and named."""
    with pytest.raises((TypeError, ValueError), match="drain_timeout must be"):
        hooks.run_collector(drain_timeout=drain_timeout)  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_ending_worker_hands_over_and_the_arbiter_does_not(host: Host) -> None:
    """worker_exit acts in the worker alone; gunicorn calls it in the arbiter, too, for one that is gone."""
    host.collector()
    code = """
import os, types
from settle_mp import Settle
from settle_mp.integrations.gunicorn import worker_exit
settle = Settle()
settle.events.track("ada", "REQUEST")
life = settle.events._producer._mine()
worker_exit(None, types.SimpleNamespace(pid=os.getpid() + 1))
assert life.courier.is_running
worker_exit(None, types.SimpleNamespace(pid=os.getpid()))
assert not life.courier.is_running
assert settle.events.pending_count == 0
settle.events.track("ada", "REQUEST")
assert settle.events.pending_count == 1
"""
    subprocess.run([sys.executable, "-c", code], env=host.environ, check=True, timeout=DEADLINE_S)
    host.settle(2)


@pytest.mark.slow
def test_workers_are_named_for_operators(host: Host) -> None:
    """post_fork names each worker by its application and number, preloaded or not."""
    server = host.gunicorn(
        APP, "--preload", conf="from settle_mp.integrations.gunicorn import *", TRACK_AT_IMPORT="1"
    )
    assert server.post(50) == 50
    names = sorted(_names(host.state_dir))
    assert [name for name in names if name.startswith("gunicorn:")]
    assert {name for name in names if "worker" in name} <= {f"gunicorn:{APP} worker {n}" for n in range(1, 5)}
    assert host.status()["workers"] == names
    server.end()
    host.collector()
    host.settle(51)


def _names(state_dir: Path) -> list[str]:
    identities = [read_header(each).identity for each in producer_folders(StateDir(state_dir).journals)]
    return [identity.name for identity in identities if identity is not None]


@pytest.mark.slow
def test_a_drain_timeout_ships_before_the_end(host: Host) -> None:
    """With one, the upstream has everything before gunicorn ends: for a disk that dies with the host."""
    host.upstream.fault(Fault.answering(503, when="before", times=2))
    conf = "from settle_mp.integrations.gunicorn import *\nrun_collector(drain_timeout=30)"
    server = host.gunicorn(APP, conf=conf)
    server.wait_said("collector_started")
    assert server.post(100) == 100
    server.end()
    assert host.upstream.quantity() == 100
    assert host.pids() == []
