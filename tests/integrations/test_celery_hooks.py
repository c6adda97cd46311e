"""Celery's signals, one by one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from settle_mp.integrations import celery as hooks
from settle_mp.journals import read_header
from settle_mp.statedir import StateDir, producer_folders
from tests.brokers import files
from tests.hosts import DEADLINE_S
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host

APP = "tests.integrations.celery_app"


def test_connecting_twice_is_connecting_once() -> None:
    """Each signal has one receiver of ours, however many modules of a project call connect()."""
    code = """
from celery import signals
from settle_mp.integrations import celery as hooks
hooks.connect()
hooks.connect()
names = ["worker_init", "worker_process_init", "worker_process_shutdown", "worker_shutdown"]
counts = [len(getattr(signals, name).receivers or ()) for name in names]
assert counts == [1, 1, 1, 1], counts
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=DEADLINE_S)


def test_importing_the_hooks_stays_light() -> None:
    """Programs that only send tasks import no HTTP client, database or command line, and start nothing."""
    code = """
import sys, threading
import celery, celery.signals
before = set(sys.modules)
import settle_mp.integrations.celery as hooks
hooks.connect()
hooks.run_collector()
heavy = {"httpx", "sqlite3", "click", "settle_mp.collector"} & (sys.modules.keys() - before)
sys.exit(f"{heavy} {threading.enumerate()}" if heavy or threading.active_count() > 1 else 0)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=DEADLINE_S)


@pytest.mark.parametrize("drain_timeout", [True, "5", None, -1, float("nan"), float("inf")])
def test_a_drain_timeout_is_a_number_of_seconds(drain_timeout: object) -> None:
    """Anything else is refused where it is written, and named."""
    with pytest.raises((TypeError, ValueError), match="drain_timeout must be"):
        hooks.run_collector(drain_timeout=drain_timeout)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_child_is_named_for_operators(host: Host) -> None:
    """A prefork child has its number of Celery's own log."""
    with files() as broker:
        worker = broker.worker(host, APP, "--pool=prefork", "--concurrency=1")
        broker.send("track", 1)
        what = "the child has tracked"
        wait_until(lambda: _names(host.state_dir) == ["celery:shop worker 1"], what, DEADLINE_S)
        worker.end()
    host.collector()
    host.settle(1)


def test_a_pool_within_the_main_process_has_the_apps_name(state_dir: Path) -> None:
    """Of the solo pool, which says that it is a child as well, and of those that say nothing."""
    code = """
from celery import Celery, signals
from settle_mp import Settle
from settle_mp.integrations import celery as hooks
class Worker:
    app, loglevel = Celery("shop"), 20
hooks.connect()
signals.worker_init.send(sender=Worker)
signals.worker_process_init.send(sender=None)
Settle().events.track("ada", "TASK")
"""
    environ = {"SETTLE_MP_STATE_DIR": str(state_dir)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=DEADLINE_S)
    assert _names(state_dir) == ["celery:shop"]


def _names(state_dir: Path) -> list[str]:
    if not StateDir(state_dir).journals.exists():
        return []
    identities = [read_header(each).identity for each in producer_folders(StateDir(state_dir).journals)]
    return [identity.name for identity in identities if identity is not None]


@pytest.mark.slow
def test_an_ending_child_hands_over(host: Host) -> None:
    """What a child has tracked is with the collector when its process ends, not with its journal alone."""
    host.collector()
    code = """
from celery import signals
from settle_mp import Settle
from settle_mp.integrations import celery as hooks
hooks.connect()
settle = Settle()
settle.events.track("ada", "TASK")
life = settle.events._producer._mine()
signals.worker_process_shutdown.send(sender=None, pid=1, exitcode=0)
assert not life.courier.is_running
assert settle.events.pending_count == 0
"""
    subprocess.run([sys.executable, "-c", code], env=host.environ, check=True, timeout=DEADLINE_S)
    host.settle(1)
