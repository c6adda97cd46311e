"""The WSGI app with what is uWSGI's own: the parent before the fork, the workers after it, and their end."""

from __future__ import annotations

import os

import uwsgi

from tests.apps.phases import track
from tests.apps.tracking import write
from tests.apps.wsgi import app

__all__ = ["app"]


def _is_up() -> None:
    write("~ worker is up")
    write(f"~ up {os.getpid()}")


def _ends() -> None:
    track("shutdown")


uwsgi.post_fork_hook = _is_up
uwsgi.atexit = _ends
if uwsgi.worker_id() == 0:
    track("parent")
else:
    _is_up()  # loaded after the fork
if os.environ.get("HOST_VARIANT") == "hooks":
    from settle_mp.integrations.uwsgi import connect

    connect()
