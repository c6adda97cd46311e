"""Hosts in tests: a real collector, a real gunicorn and real HTTP requests, each a process of its own.

    def test_it(host: Host) -> None:              # has a state folder and a sandbox, host.upstream
        collector = host.collector()              # returns once it listens
        server = host.gunicorn("tests.integrations.tracking_app:app", "--preload", conf="timeout = 5")
        assert server.post(1_030) == 1_030        # requests that were answered with 200
        server.end(signal.SIGTERM)                # or server.kill_group()
        host.settle(1_030)                        # upstream, books and state folder say the same

Whatever is started runs in a session of its own, is ended with the test, and fails the test for a traceback,
a warning on its standard error, or a process that it leaves behind.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.upstreams import Upstream

ROOT: Final = Path(__file__).parent.parent.parent
CLI: Final = (sys.executable, "-m", "settle_mp.cli")

#: Seconds that anything here may take before a test is taken for failed: many processes on a busy machine.
DEADLINE_S: Final = 60.0
#: An environment variable that all processes of a host have, so that none can hide.
_MARK: Final = "HOST_UNDER_TEST"
#: A traceback to its last line, or a warning: what no program may say.
_COMPLAINT: Final = re.compile(
    r"Traceback \(most recent call last\):\n(?:[ \t].*\n|\n)*(?P<error>[^\n]*)|^.*\w+Warning: .*$",
    re.MULTILINE,
)
#: What is gunicorn's own: its workers leave their listeners and siblings' heartbeat files open at exit,
#: and from version 25 on it forks while a thread of its runs, which Python 3.12 warns of.
_NOT_OURS: Final = re.compile(
    r"unclosed <socket\.socket|unclosed file <_io\.FileIO name=\d+ mode='rb\+'|use of fork\(\)"
    r"|Enable tracemalloc to get"
    # Celery's word to root, whom some machines run tests as.
    r"|running the worker with superuser privileges"
)


class Program:
    """A program in a session of its own; what it says on both outputs is kept."""

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], cwd: Path, output: Path
    ) -> None:
        self.command = command
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environ,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id, which is its group's as well."""
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    @property
    def said(self) -> str:
        """Everything it and its children have said so far."""
        return self._output.read_text(errors="replace")

    def wait_said(self, text: str, times: int = 1, timeout_s: float = DEADLINE_S) -> str:
        """Wait until it has said something so often; returns all it said."""
        what = f"{self.command[2:5]} says {text!r} {times} times"
        try:
            wait_until(lambda: self.said.count(text) >= times or not self.is_running, what, timeout_s)
        except pytest.fail.Exception:
            pytest.fail(f"{what}, but only:\n{self.said}")
        assert self.said.count(text) >= times, f"{what}, but it ended:\n{self.said}"
        return self.said

    def send(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM, code: int = 0) -> str:
        """Send it a signal and wait until it has ended as it should; returns all it said."""
        self.send(number)
        try:
            assert self.process.wait(DEADLINE_S) == code, self.said
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.command[2:5]} did not end:\n{self.said}")
        return self.said

    def kill_group(self) -> None:
        """SIGKILL it and all of its process group at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(DEADLINE_S)

    @property
    def complaints(self) -> list[str]:
        """Tracebacks and warnings on its standard error."""
        return complaints_in(self.said)


def complaints_in(said: str) -> list[str]:
    """Tracebacks, each whole, and warnings; without what is gunicorn's own."""
    found = [(match[0], match["error"] or match[0]) for match in _COMPLAINT.finditer(said)]
    return [whole for whole, last in found if not _NOT_OURS.search(last) and not _is_quit(whole, last)]


def _is_quit(whole: str, last: str) -> bool:
    """Whether a worker of gunicorn was told to end at once amid a request: it logs its own exit then."""
    return "in handle_quit" in whole and last == "SystemExit: 0"


class Gunicorn(Program):
    """A gunicorn that listens on a port of its own."""

    @property
    def port(self) -> int:
        """Where it listens."""
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self.wait_said("Listening at"))
        assert found is not None
        return int(found[1])

    def post(self, count: int, first: int = 0, threads: int = 4) -> int:
        """Send requests /first, /first+1, … and return how many were answered with 200."""
        port = self.port
        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(lambda number: is_answered(port, str(number)), range(first, first + count)))

    def ask(self, name: str) -> bool:
        """Send the request /name, and return whether it was answered with 200."""
        return is_answered(self.port, name)


def is_answered(port: int, name: str) -> bool:
    """Send the request /name to a server of this machine, and return whether it was answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        try:
            connection.request("POST", f"/{name}")
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        return answer.status == 200


class Host:
    """One machine, as settle-mp sees it: a state folder, and what runs on it."""

    def __init__(self, state_dir: Path, upstream: Upstream, folder: Path) -> None:
        self.state_dir = state_dir
        self.upstream = upstream
        self.folder = folder
        #: Makes a worker's command one that runs where this host is.
        self.wrap: Callable[[list[str]], list[str]] = list
        self.environ = {
            **os.environ,
            **upstream.environ,
            "SETTLE_MP_STATE_DIR": str(state_dir),
            "SETTLE_MP_FLUSH_INTERVAL_S": "0.1",
            _MARK: str(folder),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "default",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        }
        #: Everything that was started here.
        self.programs: list[Program] = []
        self._numbers = itertools.count()

    # --- What runs on it ---

    def run(self, command: Sequence[str], **environ: str) -> Program:
        """Start any program."""
        return self._add(Program, command, environ)

    def collector(self, *options: str, **environ: str) -> Program:
        """Start a collector, and return once it listens."""
        collector = self.run([*CLI, "collector", *options], **environ)
        collector.wait_said("collector_started")
        return collector

    def gunicorn(self, app: str, *options: str, conf: str = "", **environ: str) -> Gunicorn:
        """Start gunicorn with 4 workers and this configuration file, and return once it listens."""
        path = self.folder / f"gunicorn-{next(self._numbers)}.conf.py"
        # The control socket of gunicorn 25 and newer is one for all gunicorns of a user.
        path.write_text(f"workers = 4\nbind = '127.0.0.1:0'\ncontrol_socket_disable = True\n{conf}\n")
        # Its script: at SIGUSR2 it starts again by the name that it was started with, and in the folder of
        # `python -m gunicorn` lies a module named http.
        command = [sys.executable, str(Path(sys.executable).with_name("gunicorn"))]
        command += [f"--config={path}", *options, app]
        server = self._add(Gunicorn, self.wrap(command), environ)
        server.wait_said("Listening at")
        return server

    def _add(self, kind: type[_Kind], command: Sequence[str], environ: Mapping[str, str]) -> _Kind:
        output = self.folder / f"output-{next(self._numbers)}"
        program = kind(command, environ={**self.environ, **environ}, cwd=self.folder, output=output)
        self.programs.append(program)
        return program

    def pids(self) -> list[int]:
        """Every process that was started here, whoever its parent is now, zombies aside. Linux only."""
        mine = f"{_MARK}={self.environ[_MARK]}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mine in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
        return found

    def wait_empty(self) -> None:
        """Wait until no process of this host is left."""
        wait_until(lambda: not self.pids(), "no process is left", DEADLINE_S)

    def close(self) -> None:
        """End whatever runs, and complain of what should not have been."""
        running = [program for program in self.programs if program.is_running]
        left = self.end_all()
        complaints = {str(program.command[2:]): program.complaints for program in self.programs}
        assert not any(complaints.values()), "\n".join(program.said for program in self.programs)
        assert not left or running, f"left behind: {left}"

    def end_all(self) -> list[int]:
        """SIGKILL whatever runs. Returns the processes that were not in the group of a running program."""
        for program in self.programs:
            if program.is_running:
                program.kill_group()
        left = [pid for pid in self.pids() if pid != os.getpid()]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left

    # --- What it shows ---

    def status(self) -> dict[str, Any]:
        """The books, from `settle-mp status --json`."""
        asked = subprocess.run(
            [*CLI, "status", "--json"],
            env=self.environ,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert asked.stderr == "", asked.stderr
        books: dict[str, Any] = json.loads(asked.stdout)
        assert asked.returncode == (0 if books["balanced"] else 1)
        return books

    def journals(self) -> list[str]:
        """The folders of producers, those under construction and on their way out too."""
        return sorted(path.name for path in (self.state_dir / "journals").iterdir())

    def settle(self, count: int) -> None:
        """Wait until the upstream has `count` units; then nothing may be left, here or in the books.

        A collector must be running; every producer must have ended.
        """
        try:
            self.upstream.wait_quantity(count, timeout_s=DEADLINE_S)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}: {self.upstream.usage()} {self.status()}")
        wait_until(lambda: not self.journals(), "all journals are removed", DEADLINE_S)
        collectors = [each for each in self.programs if "collector" in each.command]
        collectors[-1].end()
        books = self.status()
        assert books["balanced"], books
        assert {name: n for name, n in books["events"].items() if n} == {"tracked": count, "confirmed": count}
        assert self.upstream.quantity() == count


if TYPE_CHECKING:
    from typing import TypeVar

    _Kind = TypeVar("_Kind", bound=Program)


@pytest.fixture
def host(state_dir: Path, upstream: Upstream, tmp_path: Path) -> Iterator[Host]:
    """A host of the test's own, with a sandbox upstream."""
    running = Host(state_dir, upstream, tmp_path)
    try:
        yield running
    finally:
        running.close()
