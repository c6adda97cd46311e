"""uWSGI embeds Python and tells it little: whether a thread may be started here.

It forks workers from the process that loaded the application, without Python's at-fork hooks. A thread that
waits for the GIL at that moment leaves its request behind in the child, whose main thread gives the GIL up
and waits for ever for somebody to take it (CPython's `drop_gil`). So a process that is going to fork gets no
thread of ours. Without `--enable-threads` threads get a turn only while the application waits for something.
In both cases the collector reads the journal itself, some two seconds later.
"""

from __future__ import annotations

import sys
from typing import Final

#: Why there is no courier; each says what would change it.
GOING_TO_FORK: Final = "uWSGI has not forked its workers yet"
NO_THREADS: Final = (
    "uWSGI runs without threads; start it with --enable-threads to have events shipped at once"
)


def why_no_thread(*, is_waited_for: bool = False) -> str:
    """Why no thread should be started in this process; "" where one may be.

    Args:
        is_waited_for: The caller waits for what the thread does, so that it gets its turn.
    """
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "worker_id"):
        return ""
    if uwsgi.worker_id() == 0 and uwsgi.mule_id() == 0 and not uwsgi.i_am_the_spooler():
        return GOING_TO_FORK
    return "" if uwsgi.has_threads or is_waited_for else NO_THREADS


def description() -> str:
    """What `doctor` wants to know of it; "" elsewhere."""
    uwsgi = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "worker_id"):
        return "" if uwsgi is None else "loaded"
    version = uwsgi.version.decode(errors="replace")
    return f"{version}, {'threads' if uwsgi.has_threads else 'no threads'}"
