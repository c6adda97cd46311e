"""uWSGI's rows: with and without a master, threads and fork hooks, and what ends its workers.

Release 2.0.26 is the last whose threads are off unless one asks for them: the harder case. Newer ones behave
like the forms that name --enable-threads.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.hosts.machine import is_answered
from tests.hosts.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.machine import Program
    from tests.hosts.oracle import Account
    from tests.hosts.stage import Stage

#: Requests before the ending, and again after each change.
REQUESTS: Final = 60
WORKERS: Final = 2
#: Where it listens, in what it says.
PORT: Final = re.compile(r"bound to TCP address 127\.0\.0\.1:(\d+)")

_NO_THREADS: Final = ("thread", "without --enable-threads an app's threads get no turn of their own")
_LAZY: Final = ("parent", "with lazy-apps nothing of the app runs before the fork")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One way to run it: its options, and the phases that can't be had."""

    options: tuple[str, ...] = ()
    without: tuple[tuple[str, str], ...] = (_NO_THREADS,)


FORMS: Final = {
    "default flags": Form(),
    "master": Form(options=("--master",)),
    "master, lazy-apps": Form(options=("--master", "--lazy-apps"), without=(_NO_THREADS, _LAZY)),
    "master, enable-threads": Form(options=("--master", "--enable-threads"), without=()),
    "master, enable-threads, fork hooks": Form(
        options=("--master", "--enable-threads", "--py-call-uwsgi-fork-hooks"), without=()
    ),
    "master, enable-threads, lazy-apps": Form(
        options=("--master", "--enable-threads", "--lazy-apps"), without=(_LAZY,)
    ),
}


class Server:
    """A running uWSGI."""

    def __init__(self, stage: Stage, *options: str) -> None:
        self.stage = stage
        command = [sys.executable, str(Path(sys.executable).with_name("uwsgi"))]
        # A port that uWSGI chose itself would be another one after a reload.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port: int = taken.getsockname()[1]
        command += [
            f"--http-socket=127.0.0.1:{self.port}",
            "--module=tests.apps.uwsgi:app",
            f"--processes={WORKERS}",
        ]
        # A reload starts the program anew, which the wheel takes to be the Python behind our environment's.
        command += [f"--binary-path={sys.executable}"]
        self.program: Program = stage.run([*command, *options], HOST_VARIANT=stage.variant)
        self.wait_workers(WORKERS)

    def wait_workers(self, count: int) -> None:
        """Wait until so many workers have come up in all."""
        self.stage.wait_word("worker is up", count)

    def wait_steady(self) -> None:
        """Wait until the master has its two workers again: one that is just born hears no signal."""

        def is_steady(account: Account) -> bool:
            pids = self.stage.machine.pids()
            return sum(f"up {pid}" in account.words for pid in pids) == WORKERS

        self.stage.wait_account(is_steady, "both workers have come up")

    def post(self, count: int = REQUESTS) -> None:
        """Send requests one by one, so that both workers get some."""
        for number in range(count):
            if not is_answered(self.port, str(number)):
                pytest.fail(f"request {number} was not answered")

    def ask(self, name: str) -> None:
        """Send a request that will never be answered."""
        threading.Thread(target=is_answered, args=(self.port, name), daemon=True).start()

    def signal_all(self, number: int) -> None:
        """Signal the master, or each worker where there is none."""
        if "--master" in self.program.command:
            self.program.send(number)
        else:
            os.killpg(self.program.pid, number)


def _end(server: Server, number: int = signal.SIGINT) -> None:
    server.wait_steady()
    with server.stage.ending():
        server.signal_all(number)


def _quit(server: Server) -> None:
    _end(server, signal.SIGQUIT)


def _reload(server: Server) -> None:
    """SIGHUP: workers end when they are free, and the master starts anew in the same process."""
    server.program.send(signal.SIGHUP)
    server.wait_workers(4)
    server.post()
    _end(server)


def _time_out(server: Server) -> None:
    """A request over --harakiri: SIGKILL, and another worker takes its place."""
    server.ask("slow")
    server.stage.wait_word("is slow")
    server.wait_workers(3)
    server.post()
    _end(server)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One way to end workers, or all."""

    run: Callable[[Server], None] = _end
    options: tuple[str, ...] = ()
    without_master: tuple[tuple[str, str], ...] = ()


ENDINGS: Final = {
    "SIGINT": Ending(),
    "SIGQUIT": Ending(
        run=_quit, without_master=(("shutdown", "without a master nothing catches SIGQUIT: it kills"),)
    ),
    "max-requests 10": Ending(options=("--max-requests=10", "--min-worker-lifetime=0")),
    "graceful reload (SIGHUP)": Ending(run=_reload),
    "harakiri (SIGKILL)": Ending(run=_time_out, options=("--harakiri=2",)),
}

_FAST: Final = {("default flags", "SIGINT")}


def _row(form_name: str, ending_name: str) -> Row:
    form, ending = FORMS[form_name], ENDINGS[ending_name]

    def play(stage: Stage) -> None:
        server = Server(stage, *form.options, *ending.options)
        server.post()
        ending.run(server)

    return Row(
        host="uWSGI",
        form=form_name,
        ending=ending_name,
        play=play,
        without=(*form.without, *(() if "--master" in form.options else ending.without_master)),
        is_fast=(form_name, ending_name) in _FAST,
    )


ROWS: Final = [
    _row(form, ending)
    for form in FORMS
    for ending in (ENDINGS if "--master" in FORMS[form].options else ("SIGINT", "SIGQUIT"))
]
