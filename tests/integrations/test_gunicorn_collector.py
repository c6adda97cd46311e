"""gunicorn with the collector as its child: started first, never two, started again, ended last."""

from __future__ import annotations

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hosts import DEADLINE_S
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from tests.hosts import Gunicorn, Host

pytestmark = pytest.mark.slow

APP = "tests.integrations.tracking_app:app"
CONF = "from settle_mp.integrations.gunicorn import *\nrun_collector()"


def collector_pid(server: Gunicorn, times: int = 1) -> int:
    """Wait until the collector listens for the nth time; returns its process id."""
    said = server.wait_said("collector_started", times)
    return int(re.findall(r"collector_spawned pid=(\d+)", said)[-1])


def supervisor_pid(server: Gunicorn) -> int:
    """Find the collector's parent."""
    stat = Path(f"/proc/{collector_pid(server)}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


def settle_with_another(host: Host, count: int) -> None:
    """Let a collector of the next start ship what was left, if anything was; nothing may run by now."""
    assert host.pids() == []
    books = host.status()
    assert books["balanced"]
    assert books["events"]["tracked"] == count
    host.collector()
    host.settle(count)


def test_a_killed_collector_comes_back_and_ends_last(host: Host) -> None:
    """SIGKILLed on the way it is started again; at SIGTERM it ends after the workers, and nothing is left."""
    server = host.gunicorn(APP, conf=CONF)
    pid = collector_pid(server)
    with ThreadPoolExecutor() as pool:
        answered = pool.submit(server.post, 1_030)
        host.upstream.wait_quantity(50)
        os.kill(pid, signal.SIGKILL)
        assert answered.result() == 1_030
    collector_pid(server, 2)
    said = server.end()
    assert 'collector_died reason="killed by SIGKILL"' in said
    assert said.count("collector_stopped") == 1
    assert said.index("Shutting down: Master") < said.index("collector_stopping")
    settle_with_another(host, 1_030)


def test_a_reload_keeps_the_collector(host: Host) -> None:
    """SIGHUP makes new workers; the collector goes on, reads its settings again, and is one."""
    server = host.gunicorn(APP, conf=CONF)
    pid = collector_pid(server)
    assert server.post(50) == 50
    server.send(signal.SIGHUP)
    server.wait_said("settings_reloaded")
    server.wait_said("Booting worker", 8)
    assert server.post(50, first=50) == 50
    os.kill(pid, 0)
    assert server.end().count("collector_started") == 1
    settle_with_another(host, 100)


def test_an_upgrade_hands_the_collector_over(host: Host) -> None:
    """At SIGUSR2 the new arbiter waits with its collector until the old one has ended its own."""
    server = host.gunicorn(APP, f"--pid={host.folder / 'pid'}", conf=CONF)
    collector_pid(server)
    assert server.post(50) == 50
    server.send(signal.SIGUSR2)
    server.wait_said("collector_runs_elsewhere")
    server.wait_said("Booting worker", 8)
    assert server.end().count("collector_started") == 1
    wait_until(
        lambda: server.said.count("collector_started") == 2,
        "the new one has its collector",
        DEADLINE_S,
    )
    assert server.said.index("collector_stopped") < server.said.rindex("collector_started")
    assert server.post(50, first=50) == 50
    os.kill(int((host.folder / "pid").read_text()), signal.SIGTERM)
    host.wait_empty()
    settle_with_another(host, 100)


def test_a_killed_arbiter_takes_its_collector_along(host: Host) -> None:
    """SIGKILL to the arbiter alone: the workers notice and hand over, then the collector ends by itself."""
    server = host.gunicorn(APP, "--timeout=2", conf=CONF)
    collector_pid(server)
    assert server.post(100) == 100
    server.end(signal.SIGKILL, -signal.SIGKILL)
    host.wait_empty()
    said = server.said
    assert said.rindex("Worker exiting") < said.index("collector_stopping")
    assert 'supervisor_stopping reason="the host and its workers are gone"' in said
    settle_with_another(host, 100)


def test_a_killed_process_group_leaves_nothing_running(host: Host) -> None:
    """SIGKILL to all of gunicorn at once: the collector is in no such group, and ends in good order."""
    server = host.gunicorn(APP, conf=CONF)
    collector_pid(server)
    assert server.post(100) == 100
    server.kill_group()
    host.wait_empty()
    assert "collector_stopped" in server.said
    settle_with_another(host, 100)


def test_a_collector_that_runs_already_is_left_alone(host: Host) -> None:
    """Where one runs under another's care there is no second; when that one ends, gunicorn's takes over."""
    other = host.collector()
    server = host.gunicorn(APP, conf=CONF)
    server.wait_said("collector_runs_elsewhere")
    assert server.post(50) == 50
    other.end()
    collector_pid(server)
    assert server.post(50, first=50) == 50
    server.end()
    settle_with_another(host, 100)


def test_a_wrong_setting_stops_no_request(host: Host) -> None:
    """A collector that can't start says why and is tried again; the workers' events wait for it."""
    server = host.gunicorn(APP, conf=CONF, SETTLESETTLE_API_KEY="", SETTLESETTLE_API_KEY_FILE="/nowhere/key")
    said = server.wait_said("collector_died")
    assert "SETTLESETTLE_API_KEY_FILE" in said
    assert 'reason="a setting can\'t be used"' in said
    assert server.post(50) == 50
    server.end()
    settle_with_another(host, 50)


def test_a_killed_supervisor_is_replaced(host: Host) -> None:
    """SIGKILL to the supervisor ends its collector too; the next worker that ends brings a new one."""
    server = host.gunicorn(APP, "--max-requests=20", conf=CONF)
    os.kill(supervisor_pid(server), signal.SIGKILL)
    server.wait_said("collector_stopped")
    assert server.post(200) == 200
    collector_pid(server, 2)
    server.end()
    settle_with_another(host, 200)


def test_a_patched_arbiter_has_its_collector_too(host: Host) -> None:
    """Where gunicorn.conf.py lets gevent patch all, workers still come and go, and the collector ends."""
    conf = f"from gevent import monkey; monkey.patch_all()\n{CONF}"
    server = host.gunicorn(APP, "--worker-class=gevent", "--preload", "--max-requests=50", conf=conf)
    collector_pid(server)
    answered = 0

    def are_two_replaced() -> bool:
        # A worker goes on for up to a second after its 50th request, and may take most of the others' share.
        nonlocal answered
        answered += server.post(50, first=answered)
        return server.said.count("Booting worker") >= 6

    wait_until(are_two_replaced, "two workers are replaced", DEADLINE_S)
    server.end()
    settle_with_another(host, answered)
