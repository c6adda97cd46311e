"""The keeper: a small process that forks all that a house needs, and kills one of it at a point.

It has imported everything and opened nothing, so that a start costs a fork and not half a second of imports;
being their parent it may trace its children, and until it reaps them their process ids stay theirs.
`python -m tests.chaos.keeper` reads a JSON object a line and answers each with one:

    {"do": "spawn", "kind": "cli" | "contained" | "worker" | "forker", "arguments": …, "environ": …,
     "output": path, "waits": bool}
        -> {"pid": …}; with "waits" it does nothing until it is traced. A contained cli is process 1
    {"do": "trace", "pid": …, "point": …, "skip": N, "timeout_s": …, "state_dir": …}
        -> {"is_hit": …}; it is dead then, killed the N+1st time it came to the point or at the deadline
    {"do": "fail", "pid": …, "plan": {…}, "timeout_s": …, "state_dir": …}
        -> {"is_hit": …}: whether any call failed; when all have it runs on, or is killed right then, as it is
        at the deadline
    {"do": "reap"} -> {"ended": {pid: wait status}}

When its standard input ends, so does everything that it has started.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from settle_mp.upstream import TRY_TIMEOUT_S
from tests.chaos import clock, errors, forks, load, points
from tests.chaos.ptrace import Call, Tracer, hurry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from tests.chaos.ptrace import Threads

_PR_SET_PDEATHSIG: Final = 1
#: Environment variable with the seconds that a try may take.
TRY_TIMEOUT: Final = "CHAOS_TRY_TIMEOUT_S"


class _TooLateError(Exception):
    """A point was not reached in time."""


class Keeper:
    """The commands."""

    def __init__(self) -> None:
        self._gates: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._alive: set[int] = set()

    def spawn(
        self, *, kind: str, arguments: Any, environ: dict[str, str], output: str, waits: bool
    ) -> dict[str, Any]:
        """Fork a child that runs a command or a worker."""
        read, write = os.pipe()
        with forks.pid_namespace() if kind == "contained" else contextlib.nullcontext():
            pid = os.fork()
            if pid == 0:
                os.close(write)
                _become(kind, arguments, environ, output, read)
        os.close(read)
        self._alive.add(pid)
        self._gates[pid] = write
        if not waits:
            self._open_gate(pid)
        return {"pid": pid}

    def trace(self, *, pid: int, point: str, skip: int, timeout_s: float, state_dir: str) -> dict[str, Any]:
        """Kill a child where it comes to a point."""
        tracer, watch, there = Tracer(pid), points.Watch(Path(state_dir)), points.BY_NAME[point]
        left = [skip]

        def is_there(call: Call) -> bool:
            watch.look(call)
            if not there.is_there(call, watch):
                return False
            left[0] -= 1
            return left[0] < 0

        is_hit = self._trace(
            tracer, pid, lambda: tracer.run(is_there), there.threads, timeout_s, comes_of=there.comes_of
        )
        self._kill(tracer, pid)
        return {"is_hit": is_hit}

    def fail(self, *, pid: int, plan: dict[str, Any], timeout_s: float, state_dir: str) -> dict[str, Any]:
        """Have calls of a child fail, from a certain one on."""
        planned = errors.Plan(**plan)
        tracer, watch, failing = Tracer(pid), points.Watch(Path(state_dir)), errors.Failing(planned)

        def error_of(call: Call) -> int:
            watch.look(call)
            return failing.error_of(call, watch) if call.is_before else 0

        are_all_hit = self._trace(
            tracer,
            pid,
            lambda: tracer.fail(error_of, planned.count),
            "first",
            timeout_s,
            comes_of=failing.failure.comes_of,
        )
        if are_all_hit and not planned.is_killed:
            tracer.let_go()
        else:
            self._kill(tracer, pid)
        return {"is_hit": failing.is_begun}

    def reap(self) -> dict[str, Any]:
        """Say who has ended since the last time."""
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            self._note({pid: status})
        ended, self._ended = self._ended, {}
        return {"ended": ended}

    def end(self) -> None:
        """Kill whatever lives."""
        for pid in self._alive:
            os.kill(pid, signal.SIGKILL)

    def _trace(
        self,
        tracer: Tracer,
        pid: int,
        run: Callable[[], bool],
        threads: Threads,
        timeout_s: float,
        *,
        comes_of: int | None,
    ) -> bool:
        is_hit = False
        patience = os.getpriority(os.PRIO_PROCESS, 0)
        hurry(0)
        signal.signal(signal.SIGALRM, _too_late)
        with contextlib.suppress(_TooLateError, FileNotFoundError, ProcessLookupError):
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            tracer.attach(threads)
            self._open_gate(pid)
            if comes_of is not None:
                os.kill(pid, comes_of)
            is_hit = run()
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.setpriority(os.PRIO_PROCESS, 0, patience)
        return is_hit

    def _kill(self, tracer: Tracer, pid: int) -> None:
        if pid in self._alive:
            tracer.kill()
        self._note(tracer.ended)

    def _note(self, ended: dict[int, int]) -> None:
        for pid, status in ended.items():
            if pid in self._alive:
                self._alive.discard(pid)
                self._open_gate(pid)
                self._ended[pid] = status

    def _open_gate(self, pid: int) -> None:
        gate = self._gates.pop(pid, None)
        if gate is not None:
            os.close(gate)


def _too_late(_number: int, _frame: FrameType | None) -> None:
    raise _TooLateError


def _become(kind: str, arguments: Any, environ: dict[str, str], output: str, gate: int) -> NoReturn:
    """Be the child, and never come back."""
    code = 70
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.environ.clear()
        os.environ.update(environ)
        said = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for descriptor, target in ((nothing, 0), (said, 1), (said, 2)):
            os.dup2(descriptor, target)
        os.read(gate, 1)
        os.closerange(3, 64)
        clock.obey()
        code = _KINDS[kind](**arguments) if kind in _KINDS else _command(arguments)
    except BaseException:  # noqa: BLE001  nothing may come back into the keeper
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


_KINDS: Final[dict[str, Callable[..., int]]] = {"worker": load.run, "forker": forks.run}


def _command(arguments: list[str]) -> int:
    from settle_mp.cli.main import main
    from settle_mp.upstream import Upstream

    # A try may take 30 s, and a round may not.
    defaults: dict[str, Any] = Upstream.__init__.__kwdefaults__ or {}
    defaults["try_timeout_s"] = float(os.environ.get(TRY_TIMEOUT, TRY_TIMEOUT_S))
    try:
        main(arguments)
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else 1


def _import_everything() -> None:
    # What children would import one by one.
    import settle_mp.cli.collector
    import settle_mp.cli.sandbox
    import settle_mp.cli.status
    import settle_mp.sandbox.server
    import settle_mp.worker.client  # noqa: F401


def main() -> None:
    """Obey until standard input ends."""
    _import_everything()
    # Ctrl-C is for who started us, and then our input ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keeper = Keeper()
    try:
        for line in sys.stdin:
            command = json.loads(line)
            answer = getattr(keeper, command.pop("do"))(**command)
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        keeper.end()


if __name__ == "__main__":
    main()
