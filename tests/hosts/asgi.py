"""Rows of ASGI servers that start their workers by themselves, as fresh interpreters."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from tests.hosts.machine import DEADLINE_S, is_answered
from tests.hosts.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.machine import Program
    from tests.hosts.stage import Stage

#: Requests before the ending, and again after each change.
REQUESTS: Final = 60
WORKERS: Final = 2


class Playing:
    """A server that is being played with."""

    def __init__(self, stage: Stage, server: str) -> None:
        self._stage = stage
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
            self._port = int(taken.getsockname()[1])
        command = [sys.executable, "-m", "tests.apps.serve", server, str(self._port)]
        self._server: Final[Program] = stage.run(command)
        self.wait_workers(WORKERS)

    def wait_workers(self, count: int) -> None:
        """Wait until so many workers have come up in all."""
        self._stage.wait_word("worker is up", count)

    def post(self) -> None:
        """Send requests. One that meets a worker on its way out may get no answer."""
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: is_answered(self._port, str(number)), range(REQUESTS)))

    def send(self, number: int) -> None:
        """Send the server a signal."""
        self._server.send(number)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the server, with whatever exit code, by a signal to it alone."""
        with self._stage.ending():
            self._server.send(number)
            self._server.process.wait(DEADLINE_S)

    def interrupt(self) -> None:
        """End it as a terminal does, where workers hear the signal as well."""
        with self._stage.ending():
            os.killpg(self._server.pid, signal.SIGINT)
            self._server.process.wait(DEADLINE_S)


def _end(playing: Playing) -> None:
    playing.post()
    playing.end()


def _interrupt(playing: Playing) -> None:
    playing.post()
    playing.interrupt()


def _reload(playing: Playing) -> None:
    """SIGHUP: new workers, and the old ones end."""
    playing.post()
    playing.send(signal.SIGHUP)
    playing.wait_workers(2 * WORKERS)
    playing.post()
    playing.end()


ENDINGS: Final[dict[str, Callable[[Playing], None]]] = {
    "SIGTERM": _end,
    "Ctrl-C": _interrupt,
    "SIGHUP reload": _reload,
}
SERVERS: Final = {"uvicorn --workers (spawn)": "uvicorn", "Granian": "granian"}

#: What `make test` plays.
_FAST: Final = {("uvicorn", "SIGTERM")}


def _row(form: str, name: str) -> Row:
    def play(stage: Stage) -> None:
        ENDINGS[name](Playing(stage, SERVERS[form]))

    return Row(
        host="ASGI servers",
        form=form,
        ending=name,
        play=play,
        is_fast=(SERVERS[form], name) in _FAST,
    )


ROWS: Final = [_row(form, name) for form in SERVERS for name in ENDINGS]
