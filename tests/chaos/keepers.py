"""Keepers as the matrix sees them: see `keeper` for the process at the other end of the pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Seconds that anything may take before it is taken for failed.
DEADLINE_S: Final = 60.0


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
    """One keeper process and its children."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._children: dict[int, Child] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environ,
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

    def begin_trace(self, child: Child, point: str, *, skip: int, timeout_s: float, state_dir: Path) -> None:
        """Have a child killed at a point; `end_trace` must follow, and nothing else before it."""
        child.is_doomed = True
        self._tell(
            "trace", pid=child.pid, point=point, skip=skip, timeout_s=timeout_s, state_dir=str(state_dir)
        )

    def end_trace(self) -> bool:
        """Wait until it is dead. Returns whether it was at the point."""
        is_hit = bool(self._hear()["is_hit"])
        self.reap()
        return is_hit

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
        self._tell(what, **fields)
        return self._hear()

    def _tell(self, what: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **fields}) + "\n")
        self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the keeper has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer
