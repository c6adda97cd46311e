"""Rows without a server: programs whose children are multiprocessing's, a pool's or their own."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Final

from tests.hosts.machine import DEADLINE_S
from tests.hosts.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.machine import Program
    from tests.hosts.stage import Stage

#: Processes that work, in each form.
WORKERS: Final = 3


def _go_on(program: Program) -> None:
    """Have everything end by itself."""
    os.killpg(program.pid, signal.SIGUSR1)


def _kill(program: Program) -> None:
    """SIGKILL to all at once."""
    os.killpg(program.pid, signal.SIGKILL)


ENDINGS: Final[dict[str, tuple[Callable[[Program], None], int]]] = {
    "they return": (_go_on, 0),
    "os._exit and return": (_go_on, 0),
    "an exception": (_go_on, 1),
    "exec of another program": (_go_on, 0),
    "SIGKILL to all": (_kill, -signal.SIGKILL),
}
_SUDDEN: Final = ("SIGKILL to all", "exec of another program")
#: What the app calls each form, and the endings.
FORMS: Final = {
    "fork": ("multiprocessing, fork", ("they return", "SIGKILL to all")),
    "spawn": ("multiprocessing, spawn", ("they return", "SIGKILL to all")),
    "forkserver": ("multiprocessing, forkserver", ("they return", "SIGKILL to all")),
    "pool": ("concurrent.futures.ProcessPoolExecutor", ("they return",)),
    "twice": ("os.fork twice", ("os._exit and return", "SIGKILL to all")),
    "fail": ("plain script", ("an exception",)),
    "exec": ("plain script", ("exec of another program",)),
}

#: What `make test` plays.
_FAST: Final = {("twice", "os._exit and return")}


def _row(kind: str, name: str) -> Row:
    end, code = ENDINGS[name]

    def play(stage: Stage) -> None:
        program = stage.run([sys.executable, "-m", "tests.apps.children", kind])
        stage.wait_word("has worked", WORKERS)
        with stage.ending():
            end(program)
            assert program.process.wait(DEADLINE_S) == code, program.said

    return Row(
        host="Python",
        form=FORMS[kind][0],
        ending=name,
        play=play,
        variants=("no hooks",),
        without=(("shutdown", "nothing of Python's runs then"),) if name in _SUDDEN else (),
        host_says="the script fails",
        is_fast=(kind, name) in _FAST,
    )


ROWS: Final = [_row(kind, name) for kind, (_, names) in FORMS.items() for name in names]
