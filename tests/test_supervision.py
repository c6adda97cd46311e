"""Those who keep the collector running: systemd, supervisord, and containers with a volume between them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from settle_mp import supervisor
from settle_mp.collector.notify import Notifier
from tests.collectors import command, worker
from tests.hosts import CLI, ROOT, Host, host
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["host", "upstream"]

EXAMPLES = ROOT / "examples"
UNIT = EXAMPLES / "systemd" / "settle-mp.service"
#: Where the examples' programs are installed; here they are in the environment of the tests.
INSTALLED, HERE = "/opt/settle-mp/bin", str(Path(sys.executable).parent)


class Manager:
    """A stand-in for systemd's end of the notify socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(60)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def hear(self, wanted: str) -> dict[str, str]:
        """Wait for a message that begins so; others are signs of life."""
        while True:
            said = dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))
            if wanted in said:
                return said
            assert said == {"WATCHDOG": "1"}

    def close(self) -> None:
        """End."""
        self._socket.close()


@pytest.fixture
def manager(state_dir: Path) -> Iterator[Manager]:
    """Listen in the state folder."""
    made = Manager(f"{state_dir}/notify")
    yield made
    made.close()


# --- systemd ---


def test_systemd_hears_when_it_listens_lives_reloads_and_ends(host: Host, manager: Manager) -> None:
    """READY only once a worker could connect; then signs of life, and each turn of its fate."""
    key_file = host.folder / "key"
    key_file.write_text(host.upstream.api_key)
    collector = host.run(
        [*CLI, "collector", "--drain-timeout=3"],
        NOTIFY_SOCKET=f"{host.state_dir}/notify",
        WATCHDOG_USEC="400000",
        SETTLESETTLE_API_KEY="",
        SETTLESETTLE_API_KEY_FILE=str(key_file),
    )
    assert manager.hear("READY")["READY"] == "1"
    assert (host.state_dir / "frames").is_socket()
    for _ in range(3):
        manager.hear("WATCHDOG")
    collector.send(signal.SIGHUP)
    assert int(manager.hear("RELOADING")["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    manager.hear("READY")
    key_file.write_text("")  # can't be used: said, and it goes on as before
    collector.send(signal.SIGHUP)
    manager.hear("RELOADING")
    manager.hear("READY")
    collector.send(signal.SIGTERM)
    assert int(manager.hear("STOPPING")["EXTEND_TIMEOUT_USEC"]) >= 3_000_000
    assert collector.process.wait(60) == 0


def test_a_loop_that_stands_still_gives_no_sign_of_life() -> None:
    """It is the loop that speaks, and no thread beside it: at half of the time that is allowed."""
    notifier = Notifier({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "10000000"})
    notifier.alive(100.0)
    assert notifier.left_s(100.0) == 5.0
    assert notifier.left_s(104.0) == 1.0


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "/nowhere"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
    ],
)
def test_where_nobody_watches_nothing_is_said(environ: dict[str, str]) -> None:
    """And a manager that is gone is no trouble."""
    notifier = Notifier(environ)
    assert notifier.left_s(0.0) == float("inf")
    notifier.alive(0.0)
    notifier.ready()
    notifier.stopping(1.0)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="abstract addresses are Linux's")
def test_an_abstract_address_is_understood() -> None:
    """Systemd uses those for services in some containers."""
    address = f"@settle-mp-test-{os.getpid()}"
    manager = Manager(address)
    Notifier({"NOTIFY_SOCKET": address}).ready()
    assert manager.hear("READY")["STATUS"] == "collecting"
    manager.close()


def test_a_hosts_child_says_nothing_to_the_hosts_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gunicorn's own READY is gunicorn's to say, and so is its STOPPING."""
    for name in supervisor.SYSTEMDS:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("SETTLE_MP_STATE_DIR", "/s")
    environ = supervisor._environ()
    assert not set(supervisor.SYSTEMDS) & environ.keys()
    assert environ["SETTLE_MP_STATE_DIR"] == "/s"


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(INSTALLED, HERE).replace("=app\n", "=root\n"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    if "Failed to" in verified.stderr and UNIT.name not in verified.stderr:
        pytest.skip(f"systemd-analyze can't work here: {verified.stderr.strip()}")
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_the_units_exit_codes_are_those_of_the_collector() -> None:
    """What it does not try again is what is of no use to try again."""
    assert f"RestartPreventExitStatus={supervisor.CONFIG}\n" in UNIT.read_text()


# --- supervisord ---


def test_supervisord_keeps_it_running(host: Host) -> None:
    """The example's file with the real supervisord: started, started again, reloaded, ended."""
    program = (EXAMPLES / "supervisord" / "settle-mp.conf").read_text().replace(INSTALLED, HERE)
    output = host.folder / "collector.log"
    program = re.sub(r"(?m)^(user|environment)=.*$", "", program).replace("AUTO", str(output))
    port = host.state_dir / "supervisor.sock"
    config = host.folder / "supervisord.conf"
    config.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={host.folder}/pid\n"
        f"childlogdir={host.folder}\n[unix_http_server]\nfile={port}\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl=unix://{port}\n{program}"
    )
    # Its own warning about running as root, and those of its old code, are not ours.
    manager = host.run([f"{HERE}/supervisord", "-c", str(config)], PYTHONWARNINGS="ignore")
    wait_until(lambda: said_in(output, "collector_started"), "it is started", 60)
    with worker(host) as ada:
        ada.track(2)
        assert ada.flush().is_ok
        (pid,) = re.findall(r"collector_started .*?pid=(\d+)", output.read_text())
        os.kill(int(pid), signal.SIGKILL)
        ada.track(3)
        wait_until(lambda: said_in(output, "collector_started") == 2, "it is started again", 60)
        assert ada.flush().is_ok
        said = subprocess.run(
            [f"{HERE}/supervisorctl", "-c", str(config), "signal", "HUP", "settle-mp"],
            env={**host.environ, "PYTHONWARNINGS": "ignore"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "signalled" in said.stdout
        wait_until(lambda: said_in(output, "settings_reloaded"), "settings and key are read again", 60)
    assert host.upstream.quantity() == 5
    manager.end()
    assert said_in(output, "collector_stopped") == 1


def said_in(output: Path, text: str) -> int:
    """How often a log says something."""
    return output.read_text().count(text) if output.exists() else 0


# --- Containers ---


def contained(command: list[str]) -> list[str]:
    """A command with process ids of its own, of which it is the first, as in a container."""
    enter = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--ipc", "--uts"]
    return [*enter, "sh", "-c", 'hostname "$0" && exec "$@"', f"c-{os.urandom(3).hex()}", *command]


@pytest.fixture
def containers(host: Host) -> Host:
    """A host whose workers run in containers that share its state folder and nothing else."""
    if shutil.which("unshare") is None or shutil.which("hostname") is None:
        pytest.skip("needs unshare and hostname (Debian: util-linux, hostname)")
    tried = subprocess.run(contained(["true"]), capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"this system permits no namespaces for process ids: {tried.stderr.strip()}")
    host.wrap = contained
    return host


def test_a_volume_between_containers_is_enough(containers: Host) -> None:
    """Promise 1 where all have the same process id: a killed one's journal is adopted, a live one's not."""
    collecting = [*CLI, "collector"]
    first = containers.run(contained(collecting))
    assert re.search(r"collector_started .*pid=1\b", first.wait_said("collector_started"))
    with worker(containers) as ada, worker(containers, "--silent") as bob:
        ada.track(10)
        bob.track(20)
        bob.kill()
        wait_until(lambda: containers.upstream.quantity() == 30, "what the dead left is adopted", 60)
        assert len(containers.journals()) == 1
        first.kill_group()
        ada.track(5)
        second = containers.run(contained(collecting))
        second.wait_said("collector_started")
        assert command(containers, "collector").code == 75
        assert ada.flush().is_ok
    assert containers.upstream.quantity() == 35
    books = containers.status()
    assert books["balanced"], books


def test_the_compose_file_says_what_the_docs_say() -> None:
    """One volume, one user, the key with the collector alone, and time to end."""
    compose: dict[str, Any] = yaml.safe_load((EXAMPLES / "containers" / "compose.yaml").read_text())
    app, collector = compose["services"]["app"], compose["services"]["collector"]
    assert app["volumes"] == collector["volumes"] == ["settle-mp:/var/lib/settle-mp"]
    assert app["user"] == collector["user"]
    folders = [each["environment"]["SETTLE_MP_STATE_DIR"] for each in (app, collector)]
    assert folders == ["/var/lib/settle-mp"] * 2
    assert "SETTLESETTLE_API_KEY_FILE" not in app["environment"]
    assert not {"pid", "network_mode", "ipc"} & (app.keys() | collector.keys())
    assert set(compose["volumes"]) == {"settle-mp"}
    assert "secrets" not in app
