"""Keepers as the matrix sees them: see `keeper` for the process at the other end of the pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.upstreams import sandbox_command, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from settle_mp.sandbox.pipeline import Options
    from tests.chaos.errors import Plan

#: Seconds that anything may take before it is taken for failed.
DEADLINE_S: Final = 60.0
ROOT: Final = Path(__file__).parent.parent.parent


@dataclass(slots=True, eq=False)
class Child:
    """A process that a keeper started.

    Attributes:
        pid: Its process id, its own until it is reaped.
        status: How it ended, as `os.waitpid` gives it; None while it is not known to have ended.
        is_doomed: Whether it was we who killed it.
    """

    pid: int
    name: str
    status: int | None = None
    is_doomed: bool = False

    @property
    def is_running(self) -> bool:
        """Whether it is not known to have ended."""
        return self.status is None

    @property
    def code(self) -> int:
        """Its exit code, or the negative number of the signal."""
        assert self.status is not None
        return os.waitstatus_to_exitcode(self.status)

    def signal(self, number: int) -> None:
        """Send it a signal; it can't hit another, since only `reap` gives its id away."""
        if self.is_running:
            os.kill(self.pid, number)


class Keeper:
    """One keeper process and its children.

    Args:
        folder: Where they work.
    """

    def __init__(self, folder: Path) -> None:
        #: What its children's environment begins with.
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SETTLE")},
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        self._children: dict[int, Child] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environ,
            cwd=folder,
            text=True,
            start_new_session=True,
        )

    def spawn(
        self,
        kind: str,
        arguments: Any,
        *,
        name: str,
        environ: Mapping[str, str],
        output: Path,
        waits: bool = False,
    ) -> Child:
        """Start a child; see `keeper`."""
        answer = self._ask(
            "spawn", kind=kind, arguments=arguments, environ=dict(environ), output=str(output), waits=waits
        )
        child = Child(answer["pid"], name)
        self._children[child.pid] = child
        return child

    def trace(self, child: Child, point: str, *, skip: int, timeout_s: float, state_dir: Path) -> bool:
        """Have a child killed at a point. Returns whether it was there; it is dead in any case."""
        child.is_doomed = True
        answer = self._ask(
            "trace", pid=child.pid, point=point, skip=skip, timeout_s=timeout_s, state_dir=str(state_dir)
        )
        self.reap()
        return bool(answer["is_hit"])

    def fail(self, child: Child, plan: Plan, *, timeout_s: float, state_dir: Path) -> bool:
        """Have calls of a child fail. Returns whether any did; it may be dead, or end by itself."""
        child.is_doomed = True
        answer = self._ask(
            "fail", pid=child.pid, plan=asdict(plan), timeout_s=timeout_s, state_dir=str(state_dir)
        )
        self.reap()
        return bool(answer["is_hit"])

    def reap(self) -> None:
        """Learn who has ended."""
        for pid, status in self._ask("reap")["ended"].items():
            self._children.pop(int(pid)).status = status

    def wait(self, child: Child) -> Child:
        """Wait until a child has ended."""
        deadline_s = time.monotonic() + DEADLINE_S
        while child.is_running:
            self.reap()
            if child.is_running:
                assert time.monotonic() < deadline_s, f"{child.name} does not end"
                time.sleep(0.003)
        return child

    def close(self) -> None:
        """End it, and with it whatever it has started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(DEADLINE_S)

    def _ask(self, what: str, **fields: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the keeper has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer


class KeptSandbox:
    """A sandbox that a keeper has forked, for `tests.upstreams.Upstream`."""

    def __init__(self, keeper: Keeper, folder: Path, options: Options) -> None:
        self.options = options
        self.port = 0
        self.db_path = folder / "sandbox.db"
        self._keeper = keeper
        self._folder = folder
        self._child: Child | None = None

    def start(self) -> None:
        """Serve, and return once it answers."""
        assert self._child is None, "it is running"
        port_file = self._folder / "port"
        port_file.unlink(missing_ok=True)
        child = self._child = self._keeper.spawn(
            "cli",
            sandbox_command(self.options, self.port, self._folder),
            name="sandbox",
            environ=self._keeper.environ,
            output=self._folder / "sandbox.log",
        )

        def is_decided() -> bool:
            self._keeper.reap()
            return port_file.exists() or not child.is_running

        wait_until(is_decided, "the sandbox answers", DEADLINE_S)
        assert child.is_running, (self._folder / "sandbox.log").read_text()
        self.port = int(port_file.read_text())

    def stop(self) -> None:
        """End in good order (SIGTERM)."""
        self._end(signal.SIGTERM, 0)

    def kill(self) -> None:
        """End at once (SIGKILL)."""
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def _end(self, number: int, code: int) -> None:
        if self._child is not None:
            child, self._child = self._child, None
            child.signal(number)
            assert self._keeper.wait(child).code == code, (self._folder / "sandbox.log").read_text()
