"""The supervisor: a real process over stand-ins for the collector, and a real collector where it matters."""

from __future__ import annotations

import os
import re
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from settle_mp import supervisor
from settle_mp.cli import exit_codes
from tests.hosts import DEADLINE_S, host
from tests.upstreams import upstream, wait_until
from tests.users import NOBODY, reachable, skip_unless_permitted

if TYPE_CHECKING:
    from tests.hosts import Host, Program

__all__ = ["host", "upstream"]

pytestmark = pytest.mark.slow

#: Runs a supervisor over the given code; a file "elsewhere" says that another collector has the folder.
SUPERVISE = """
import pathlib, sys
from settle_mp import supervisor
supervisor._configure_log("info")
supervisor.WELL_S = float(sys.argv[2])
supervisor.Supervisor(
    [sys.executable, "-c", sys.argv[1]], is_elsewhere=pathlib.Path("elsewhere").exists, end_s=0.5
).run()
"""

#: A stand-in that says when it is up and waits for signals.
UP = "import signal; print('up', flush=True); signal.pause()"

#: A host that holds a supervisor over a real collector, and obeys SIGUSR1.
HOST = """
import os, signal
from settle_mp.supervised import Supervised
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
supervised = Supervised(["--state-dir", os.environ["SETTLE_MP_STATE_DIR"]])
"""


def supervise(host: Host, child: str, *, well_s: float = 60.0) -> Program:
    """Start a supervisor over a stand-in; one that has lived so long was well."""
    return host.run([sys.executable, "-c", SUPERVISE, child, str(well_s)])


def children(program: Program) -> list[int]:
    """List the process ids of all children so far."""
    return [int(pid) for pid in re.findall(r"collector_spawned pid=(\d+)", program.said)]


def test_the_exit_codes_are_those_of_the_program() -> None:
    """Both sides of the house write the same numbers, and none at which gunicorn halts."""
    ours = (supervisor.ALREADY_RUNNING, supervisor.CONFIG, supervisor.USAGE)
    assert ours == (exit_codes.ALREADY_RUNNING, exit_codes.CONFIG, exit_codes.USAGE)
    assert not {3, 4} & {*ours, exit_codes.OK, exit_codes.FAILED, exit_codes.INTERRUPTED}


def test_each_death_doubles_the_pause(host: Host) -> None:
    """A child that ends with 3 is started again, later each time; the supervisor itself ends with 0."""
    program = supervise(host, "raise SystemExit(3)")
    said = program.wait_said("collector_died", 4)
    pauses = re.findall(r'reason="exit code 3" .*starts_again_in_s=([\d.]+)', said)
    assert pauses[:4] == ["0.25", "0.5", "1.0", "2.0"]
    program.end()


def test_a_child_that_was_well_is_started_again_soon(host: Host) -> None:
    """Only deaths in a row lengthen the pause."""
    program = supervise(host, UP, well_s=0.0)
    for times in range(1, 4):
        program.wait_said("up\n", times)
        os.kill(children(program)[-1], signal.SIGKILL)
        said = program.wait_said("collector_died", times)
        assert said.count("starts_again_in_s=0.25") == times
    program.end()


def test_a_wrong_setting_is_not_tried_in_a_hurry_but_at_a_sighup(host: Host) -> None:
    """Code 78 waits for half a minute, or for a word that something was mended."""
    program = supervise(host, "raise SystemExit(78)")
    assert "starts_again_in_s=30.0" in program.wait_said("collector_died")
    program.send(signal.SIGHUP)
    program.wait_said("collector_died", 2)
    program.end()


def test_a_sighup_reaches_the_collector(host: Host) -> None:
    """It is passed on, as the collector reads its settings again by it."""
    listening = "import signal; signal.signal(1, lambda *_: print('heard', flush=True))"
    program = supervise(host, f"{listening}; print('up', flush=True)\nwhile True: signal.pause()")
    program.wait_said("up")
    program.send(signal.SIGHUP)
    program.wait_said("heard")
    program.end()
    assert len(children(program)) == 1


def test_another_collector_is_watched_and_not_disturbed(host: Host) -> None:
    """After code 75 nothing is started while another has the folder; then it is."""
    elsewhere = host.folder / "elsewhere"
    elsewhere.touch()
    taken = "75 if pathlib.Path('elsewhere').exists() else 0"
    program = supervise(host, f"import pathlib; raise SystemExit({taken})")
    program.wait_said("collector_runs_elsewhere")
    elsewhere.unlink()
    said = program.wait_said("collector_died")
    assert said.count("collector_spawned") == 2
    assert said.count("collector_runs_elsewhere") == 1
    program.end()


def test_a_child_that_does_not_end_is_killed(host: Host) -> None:
    """A collector that hangs cannot keep its host from ending; journals and ledger have all."""
    program = supervise(host, f"import signal; signal.signal(15, signal.SIG_IGN); {UP}")
    program.wait_said("up")
    assert "collector_killed" in program.end()
    assert host.pids() == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl(2) is Linux's")
def test_a_killed_supervisor_leaves_no_collector(host: Host) -> None:
    """The child is told to end when the supervisor is gone, so that nobody runs unseen."""
    program = supervise(host, UP)
    program.wait_said("up")
    program.end(signal.SIGKILL, -signal.SIGKILL)
    host.wait_empty()


def test_a_fork_of_the_host_has_no_hold_on_the_supervisor(host: Host) -> None:
    """What a worker inherits does nothing: the supervisor goes on until the host itself ends it."""
    code = """
if os.fork() == 0:
    assert not supervised.is_alive
    supervised.reload()
    assert supervised.end()
    os._exit(0)
assert os.wait()[1] == 0
assert supervised.is_alive
signal.sigwait([signal.SIGUSR1])
assert supervised.end()
assert not supervised.is_alive
"""
    program = host.run([sys.executable, "-c", HOST + code])
    program.wait_said("collector_started")
    said = program.end(signal.SIGUSR1)
    assert said.count("collector_stopped") == 1
    assert host.pids() == []


def test_the_hosts_listeners_are_not_kept(host: Host) -> None:
    """What a host lets its children inherit, such as gunicorn's sockets, is closed: its port gets free."""
    code = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
listener.set_inheritable(True)
"""
    after = """
signal.sigwait([signal.SIGUSR1])
port = listener.getsockname()[1]
listener.close()
try:
    socket.create_connection(("127.0.0.1", port)).close()
except ConnectionRefusedError:
    print("refused", flush=True)
supervised.end()
"""
    program = host.run([sys.executable, "-c", code + HOST + after])
    program.wait_said("collector_started")
    assert "refused" in program.end(signal.SIGUSR1)


def test_the_collector_outlives_a_killed_host_until_its_workers_end(host: Host) -> None:
    """The lifeline is held by the host's children as well: whoever may still track has a collector."""
    code = """
if os.fork() == 0:
    print("pids", supervised.pid, os.getpid(), flush=True)
    signal.sigwait([signal.SIGUSR1])
    from settle_mp import Settle
    events = Settle().events
    events.track("ada", "REQUEST")
    print("confirmed:", bool(events.flush(timeout=20)), flush=True)
signal.sigwait([signal.SIGUSR1])
"""
    program = host.run([sys.executable, "-c", HOST + code])
    said = program.wait_said("collector_started")
    program.end(signal.SIGKILL, -signal.SIGKILL)
    wait_until(lambda: "host_gone" in program.said, "the supervisor sees that the host is gone", DEADLINE_S)
    overseer, worker = (int(pid) for pid in re.findall(r"pids (\d+) (\d+)", said)[0])
    os.kill(overseer, signal.SIGHUP)
    wait_until(lambda: "settings_reloaded" in program.said, "the collector is looked after", DEADLINE_S)
    os.kill(worker, signal.SIGUSR1)
    wait_until(lambda: "confirmed: True" in program.said, "the worker's event is confirmed", DEADLINE_S)
    assert "collector_stopping" not in program.said
    os.kill(worker, signal.SIGUSR1)
    host.wait_empty()
    assert 'supervisor_stopping reason="the host and its workers are gone"' in program.said
    assert "collector_stopped" in program.said


def test_it_runs_as_the_user_of_the_workers(host: Host) -> None:
    """A host that is root for its port leaves no file of root's in the state folder."""
    skip_unless_permitted()
    os.chown(host.state_dir, NOBODY, NOBODY)
    code = HOST.replace('"]])', f'"]], user={NOBODY}, group={NOBODY})') + "signal.sigwait([signal.SIGUSR1])"
    program = host.run(reachable([sys.executable, "-c", code]))
    program.wait_said("collector_started")
    program.end(signal.SIGUSR1)
    host.wait_empty()
    assert {path.stat().st_uid for path in host.state_dir.rglob("*")} == {NOBODY}
