"""gunicorn's rows: each worker class, preloaded or not, in each way that a worker or the whole may end."""

from __future__ import annotations

import os
import re
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.hosts.row import Row
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.machine import Gunicorn
    from tests.hosts.stage import Stage

WSGI: Final = "tests.apps.wsgi:app"
ASGI: Final = "tests.apps.asgi:app"
#: Requests before the ending, and again after each change.
REQUESTS: Final = 60

#: The user's own hooks track as well: in the parent before any fork, and in an ending worker.
_CONF: Final = """
from tests.apps.tracking import connect, write as _write
workers = 2
_track = connect()
_track("parent")

def post_worker_init(worker):
    _write("~ worker is up")

def worker_exit(server, worker):
    _track("shutdown")
"""
#: Ours with a hook of the user's own, as the documentation says.
_HOOKS: Final = """
from settle_mp.integrations.gunicorn import *
from settle_mp.integrations import gunicorn as settle_mp_hooks
_their_exit = worker_exit

def worker_exit(server, worker):
    _track("shutdown")
    settle_mp_hooks.worker_exit(server, worker)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One way to end workers or gunicorn as a whole.

    Attributes:
        conf: What gunicorn is told for it.
        run: From requests answered to everything ended.
        host_says: See `Row`.
    """

    run: Callable[[Stage, Gunicorn], None]
    conf: str = ""
    host_says: str = ""


def _end(number: int) -> Callable[[Stage, Gunicorn], None]:
    def run(stage: Stage, server: Gunicorn) -> None:
        with stage.ending():
            server.end(number)

    return run


def _reload(stage: Stage, server: Gunicorn) -> None:
    """SIGHUP: two new workers, and the old ones end."""
    olds = _workers(server)
    server.send(signal.SIGHUP)
    _wait_workers(stage, 4)
    wait_until(lambda: not any(map(_is_alive, olds)), "the old workers have ended")
    server.post(REQUESTS, first=REQUESTS)
    _end(signal.SIGTERM)(stage, server)


def _upgrade(stage: Stage, server: Gunicorn) -> None:
    """SIGUSR2: a new arbiter beside the old one, which then ends; then the new one does."""
    server.send(signal.SIGUSR2)
    _wait_workers(stage, 4)
    new = int(re.findall(r"\[(\d+)\] \[INFO\] Starting gunicorn", server.said)[1])
    server.post(REQUESTS, first=REQUESTS)
    server.end(signal.SIGTERM)
    server.post(REQUESTS, first=2 * REQUESTS)
    with stage.ending():
        os.kill(new, signal.SIGTERM)


def _time_out(stage: Stage, server: Gunicorn) -> None:
    """A worker that does not beat: SIGABRT, and another one takes its place."""
    _ask(server, "hang")
    stage.wait_word("hangs")
    server.wait_said("WORKER TIMEOUT")
    _wait_workers(stage, 3)
    server.post(REQUESTS, first=REQUESTS)
    _end(signal.SIGTERM)(stage, server)


def _overstay(stage: Stage, server: Gunicorn) -> None:
    """A request that goes on beyond graceful_timeout: SIGKILL."""
    _ask(server, "slow")
    stage.wait_word("is slow")
    _end(signal.SIGTERM)(stage, server)


def _wait_workers(stage: Stage, count: int) -> None:
    """Wait until so many workers have come up: one that is told to end before that does not hear it."""
    stage.wait_word("worker is up", count)


def _ask(server: Gunicorn, name: str) -> None:
    """Send a request that will never be answered."""
    threading.Thread(target=server.ask, args=(name,), daemon=True).start()


def _workers(server: Gunicorn) -> list[int]:
    return [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", server.said)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


ENDINGS: Final = {
    "SIGTERM": Ending(run=_end(signal.SIGTERM)),
    "SIGQUIT": Ending(run=_end(signal.SIGQUIT), conf="graceful_timeout = 5"),
    "SIGHUP reload": Ending(run=_reload),
    "SIGUSR2 upgrade": Ending(run=_upgrade),
    "max_requests 10": Ending(run=_end(signal.SIGTERM), conf="max_requests = 10"),
    "worker timeout (SIGABRT)": Ending(run=_time_out, conf="timeout = 2"),
    "graceful_timeout exceeded": Ending(run=_overstay, conf="graceful_timeout = 1"),
}

#: Each worker class with what it needs.
CLASSES: Final = {
    "sync": (WSGI, "sync"),
    "gthread": (WSGI, "gthread"),
    "gevent": (WSGI, "gevent"),
    "uvicorn's worker": (ASGI, "uvicorn_worker.UvicornWorker"),
    "gunicorn's ASGI worker": (ASGI, "asgi"),
}

#: What `make test` plays.
_FAST: Final = {
    ("sync", True, "max_requests 10"),
    ("gevent", False, "SIGTERM"),
}


def _without(form: str, ending: str, *, is_preloaded: bool) -> tuple[tuple[str, str], ...]:
    """Phases that can't be had: preloaded, the arbiter's own end is a shutdown, too."""
    if form == "uvicorn's worker" and ending == "SIGQUIT" and not is_preloaded:
        return (("shutdown", "uvicorn's worker goes on after SIGQUIT until gunicorn kills it"),)
    return ()


def _row(form: str, name: str, *, is_preloaded: bool) -> Row:
    app, worker_class = CLASSES[form]
    ending = ENDINGS[name]

    def play(stage: Stage) -> None:
        hooks = _HOOKS if stage.variant == "hooks" else ""
        conf = f"worker_class = {worker_class!r}\nthreads = 4\npreload_app = {is_preloaded}\n{ending.conf}"
        server = stage.gunicorn(app, conf=_CONF + hooks + conf)
        _wait_workers(stage, 2)
        server.post(REQUESTS)
        ending.run(stage, server)

    return Row(
        host="gunicorn",
        form=f"{form}, preload_app" if is_preloaded else form,
        ending=name,
        play=play,
        host_says=ending.host_says,
        without=_without(form, name, is_preloaded=is_preloaded),
        is_fast=(form, is_preloaded, name) in _FAST,
    )


ROWS: Final = [
    _row(form, name, is_preloaded=is_preloaded)
    for form in CLASSES
    for is_preloaded in (False, True)
    for name in ENDINGS
]
