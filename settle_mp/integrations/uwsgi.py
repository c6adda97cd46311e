"""Hooks for uWSGI: events shipped at once where they can be, a quicker shutdown, names for operators.

    # in the module with your application
    from settle_mp.integrations import uwsgi as settle_mp_uwsgi

    settle_mp_uwsgi.connect()

Nothing here is needed for events to be counted: what a process tracked, the collector reads from its journal.
uWSGI's `post_fork_hook` and `atexit` are chained, so that yours run as well; import `uwsgidecorators` before
`connect()` where you use it. See https://uwsgi-docs.readthedocs.io/en/latest/PythonModule.html.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from settle_mp.worker.producer import after_fork, close_all, label_process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["connect"]

#: How long an ending worker hands over what it tracked, in seconds; what does not fit stays in the journal.
HAND_OVER_S: Final = 1.0

#: Options that name an application, the first that is given.
_APPLICATIONS: Final = ("module", "wsgi", "wsgi-file", "mount", "file")

_connected: Final[list[Any]] = []


def connect() -> None:
    """Chain our hooks to uWSGI's. May be called again, and does nothing under another server."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or uwsgi in _connected:
        return
    _connected.append(uwsgi)
    their_begin, their_end = getattr(uwsgi, "post_fork_hook", None), getattr(uwsgi, "atexit", None)
    # What theirs tracks has the right name, and is handed over as well.
    uwsgi.post_fork_hook = _chain(_worker_begins, their_begin)
    uwsgi.atexit = _chain(their_end, _worker_ends)
    if uwsgi.worker_id():
        _worker_begins()  # loaded by the worker itself, as with lazy-apps


def _chain(*hooks: Callable[[], object] | None) -> Callable[[], None]:
    def all_of_them() -> None:
        for hook in hooks:
            if hook is not None:
                hook()

    return all_of_them


def _worker_begins() -> None:
    uwsgi: Any = sys.modules["uwsgi"]
    label_process(f"uwsgi:{_application(uwsgi.opt)} worker {uwsgi.worker_id()}")
    after_fork()


def _worker_ends() -> None:
    close_all(HAND_OVER_S)


def _application(options: dict[str, Any]) -> str:
    """What uWSGI was told to serve; a name is bytes, or a list of them when it was given more than once."""
    for name in _APPLICATIONS:
        value = options.get(name)
        value = value[0] if isinstance(value, list) and value else value
        if isinstance(value, bytes):
            return value.decode(errors="replace")
    return "app"
