"""The command `settle-mp demo`, as a process: what it shows, what it leaves behind, how it can be ended."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartDemo = Callable[..., "Demo"]

COMMAND = [sys.executable, "-m", "settle_mp.cli", "demo"]
#: Seconds that a small run may take on a slow and busy machine.
DEADLINE_S = 120


class Demo:
    """A run of the demo whose temporary folder is the test's own."""

    def __init__(self, folder: Path, *options: str, **more: str) -> None:
        self.temporary = folder / "t"
        self.temporary.mkdir()
        self._output = folder / "output"
        environ = {
            **os.environ,
            "TMPDIR": str(self.temporary),
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "80",
            **more,
        }
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *options], stdout=output, stderr=output, env=environ, cwd=folder
            )

    def close(self) -> None:
        """End what a failed test has left."""
        for pid in {self.process.pid, *self.processes()} if self.process.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def said(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text()

    def wait_said(self, text: str) -> None:
        """Wait until it has printed something."""
        what = f"it says {text}"
        wait_until(lambda: text in self.said or self.process.poll() is not None, what, DEADLINE_S)
        assert text in self.said

    def end(self) -> int:
        """Wait until it has ended; gives its code."""
        wait_until(lambda: self.process.poll() is not None, f"it ends, after saying {self.said}", DEADLINE_S)
        return self.process.wait()

    def processes(self) -> list[int]:
        """Processes that it has started and that still run. Linux only."""
        mine = os.fsencode(self.temporary)
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mine in path.read_bytes():
                    found.append(int(path.parent.name))
        return found

    def assert_nothing_left(self) -> None:
        """No file and no process."""
        assert [*self.temporary.iterdir()] == []
        assert self.processes() == []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a socket's path goes below it."""
    with tempfile.TemporaryDirectory(prefix="smp-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture
def start(folder: Path) -> Iterator[StartDemo]:
    """Start demos with options and more environment; what a failed test has left of them ends with it."""
    demos: list[Demo] = []

    def start_demo(*options: str, **more: str) -> Demo:
        demos.append(Demo(folder, *options, **more))
        return demos[-1]

    yield start_demo
    for demo in demos:
        demo.close()


@pytest.mark.slow
def test_what_was_answered_is_what_was_billed(start: StartDemo) -> None:
    """Two workers and the collector are killed, and the bill is exact; nothing is left behind."""
    demo = start("--requests=600")
    assert demo.end() == 0, demo.said
    assert re.search(r"\nEXACT: \d+ answered requests billed exactly once; 0 lost, 0 twice", demo.said)
    assert len(re.findall(r"kill -9 \d+: a worker", demo.said)) == 2
    assert len(re.findall(r"kill -9 \d+: the collector", demo.said)) == 1
    assert "the collector is back" in demo.said
    assert "the books balance" in demo.said
    demo.assert_nothing_left()


@pytest.mark.slow
def test_it_touches_nothing_of_the_user(start: StartDemo, folder: Path) -> None:
    """Settings, keys, proxies and gunicorn's own files of whoever runs it stay out of it."""
    (folder / "gunicorn.conf.py").write_text("raise RuntimeError('not this one')")
    (folder / "settle-mp.toml").write_text("no_such_setting = true")
    foreign = {
        "SETTLESETTLE_API_KEY": "ss_live_somebodys",
        "SETTLESETTLE_BASE_URL": "http://127.0.0.1:1",
        "SETTLE_MP_STATE_DIR": str(folder / "state"),
        "SETTLE_MP_DISABLED": "true",
        "HTTP_PROXY": "http://127.0.0.1:1",
        "all_proxy": "http://127.0.0.1:1",
        "GUNICORN_CMD_ARGS": "--bind=127.0.0.1:1 --workers=0",
        "WEB_CONCURRENCY": "1",
    }
    demo = start("--requests=200", **foreign)
    assert demo.end() == 0, demo.said
    assert {path.name for path in folder.iterdir()} == {"gunicorn.conf.py", "output", "settle-mp.toml", "t"}
    demo.assert_nothing_left()


@pytest.mark.slow
def test_sabotage_is_found(start: StartDemo) -> None:
    """One event of many was not tracked: code 1, and the request is named."""
    demo = start("--sabotage", "--requests=200")
    assert demo.end() == 1, demo.said
    assert re.search(r"\n- PDF_EXPORT of user_\d+ {\"request_id\": \"r000\d+\"}: 1 answered, ", demo.said)
    assert re.search(r"\nWRONG: \d+ answered requests; 1 lost, 0 twice, 1 wrong sums", demo.said)
    assert "and the check has found it" in demo.said
    demo.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    [
        "A usage event is money",  # Nothing runs.
        "of 2,000 requests",
        "the collector; events wait",  # It is dead.
        " cut off\n",  # All requests have ended; the flush runs.
        "EXACT",  # It is ending anyway.
    ],
)
def test_ctrl_c_leaves_nothing_behind(start: StartDemo, moment: str) -> None:
    """At any moment: no process, no file, no traceback."""
    demo = start("--requests=2000" if "2,000" in moment else "--requests=200")
    demo.wait_said(moment)
    demo.process.send_signal(signal.SIGINT)
    code = demo.end()
    assert "Traceback" not in demo.said
    assert code == 130 or (moment == "EXACT" and code == 0), demo.said
    demo.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "signum"),
    [
        ("sandbox.log", signal.SIGINT),
        ("gunicorn.log", signal.SIGTERM),
        ("sandbox.port", signal.SIGHUP),
        ("collector.log", signal.SIGINT),
    ],
)
def test_a_signal_amid_the_start_leaves_nothing_behind(start: StartDemo, name: str, signum: int) -> None:
    """Between two processes' starts, too; a second one while it cleans up changes nothing."""
    demo = start("--requests=200")
    wait_until(lambda: [*demo.temporary.glob(f"*/{name}")], f"{name} is there", DEADLINE_S)
    demo.process.send_signal(signum)
    demo.process.send_signal(signal.SIGINT)
    # Of two that come at once either may be noted first.
    assert demo.end() in {128 + signum, 128 + signal.SIGINT}, demo.said
    assert "Traceback" not in demo.said
    demo.assert_nothing_left()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sandbox", "gunicorn"])
def test_what_dies_by_itself_ends_the_demo(start: StartDemo, name: str) -> None:
    """It says what died, and cleans up; it does not wait for ever, and does not say that all is well."""
    demo = start("--requests=20000")
    demo.wait_said("gunicorn on port")
    groups = {os.getpgid(pid) for pid in demo.processes()} - {os.getpgid(demo.process.pid)}
    leader = next(pid for pid in groups if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(leader, signal.SIGKILL)
    assert demo.end() == 1, demo.said
    assert f"settle-mp: {name} ended with code -9." in demo.said or "The load stopped" in demo.said
    assert "EXACT" not in demo.said
    demo.assert_nothing_left()


@pytest.mark.slow
def test_the_folder_can_be_kept(start: StartDemo) -> None:
    """With --keep, logs and the settings file stay, and nothing runs."""
    demo = start("--keep", "--requests=200")
    assert demo.end() == 0, demo.said
    (kept,) = demo.temporary.iterdir()
    assert f"Kept: {kept}" in demo.said
    assert {"collector.log", "gunicorn.log", "sandbox.db", "state"} <= {path.name for path in kept.iterdir()}
    assert "[events.AI_QUERY]" in (kept / "state" / "settle-mp.toml").read_text()
    assert demo.processes() == []


@pytest.mark.slow
def test_a_terminal_sees_a_live_line(folder: Path) -> None:
    """In a terminal the requests are counted in place, and the last word stands below the tables."""
    terminal, inner = pty.openpty()
    environ = {**os.environ, "TMPDIR": str(folder), "TERM": "xterm-256color"}
    command = [*COMMAND, "--requests=400"]
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environ, cwd=folder)
    os.close(inner)
    said = _read_to_end(terminal)
    assert process.wait(DEADLINE_S) == 0, said
    assert "\x1b[?25l" in said, "the cursor is hidden while a line is live"
    assert said.rfind("\x1b[?25h") > said.rfind("\x1b[?25l"), "and shown again"
    assert "EXACT" in said
    assert "of 400 requests" not in said


def _read_to_end(terminal: int) -> str:
    said, deadline_s = b"", time.monotonic() + DEADLINE_S
    # Linux says EIO when the last one has closed the other side.
    with contextlib.suppress(OSError):
        while time.monotonic() < deadline_s:
            if select.select([terminal], [], [], 1.0)[0]:
                data = os.read(terminal, 65_536)
                if not data:
                    break
                said += data
    os.close(terminal)
    return said.decode()


def test_too_few_requests_are_refused() -> None:
    """Fewer could end before the kills; the message says how many it takes."""
    run = subprocess.run([*COMMAND, "--requests=10"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert "100<=x<=10000000" in run.stderr


def test_help_has_examples() -> None:
    """`--help` shows what can be asked, and what the exit codes mean."""
    run = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0
    assert "settle-mp demo --sabotage" in run.stdout
    assert "Exit codes:" in run.stdout
