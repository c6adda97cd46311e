"""Django's rows: a management command, and requests under gunicorn."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

from tests.hosts.machine import ROOT
from tests.hosts.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.stage import Stage

MANAGE: Final = ROOT / "tests" / "apps" / "site" / "manage.py"
#: Events of a command, requests of a server.
COUNT: Final = 60

_GUNICORN: Final = """
from tests.apps.tracking import connect, has_hooks, write as _write
if has_hooks():
    from settle_mp.integrations.gunicorn import *
workers = 2
preload_app = True
raw_env = ["DJANGO_SETTINGS_MODULE=tests.apps.site.settings"]
_track = connect()
_track("parent")

def post_worker_init(worker):
    _write("~ worker is up")
"""


def _command(*options: str, number: int, code: int) -> Callable[[Stage], None]:
    def play(stage: Stage) -> None:
        program = stage.run([sys.executable, str(MANAGE), "work", str(COUNT), *options])
        stage.wait_word("has worked")
        with stage.ending():
            program.end(number, code)

    return play


def _serve(stage: Stage) -> None:
    server = stage.gunicorn("tests.apps.site.wsgi:app", conf=_GUNICORN)
    stage.wait_word("worker is up", 2)
    assert server.post(COUNT) == COUNT
    with stage.ending():
        server.end()


def _row(form: str, ending: str, play: Callable[[Stage], None], *, is_fast: bool = False) -> Row:
    without = [("parent", "it is one process")] if form == "management command" else []
    if ending == "SIGTERM" and without:
        without.append(("shutdown", "a signal that nobody handles leaves no time for it"))
    return Row(
        host="Django",
        form=form,
        ending=ending,
        play=play,
        without=tuple(without),
        is_fast=is_fast,
    )


ROWS: Final = [
    _row("management command", "it returns", _command(number=signal.SIGUSR1, code=0), is_fast=True),
    _row("management command", "CommandError", _command("--fail", number=signal.SIGUSR1, code=1)),
    _row("management command", "SIGTERM", _command(number=signal.SIGTERM, code=-signal.SIGTERM)),
    _row("gunicorn sync, preload_app", "SIGTERM", _serve),
]
