"""A Celery app that tracks in every phase: in tasks, beside them, and wherever else Celery lets it."""

from __future__ import annotations

import atexit
import time
from typing import Final

from celery import Celery, signals

from settle_mp.integrations import celery as settle_mp_celery
from tests.apps.tracking import connect, has_hooks, start_thread, write
from tests.brokers import configure

#: Longer than any patience here: who asks for it is killed.
FOR_EVER_S: Final = 600.0

track = connect()
track("import")
# What the main process does last after a cold shutdown, which sends no signal.
atexit.register(track, "shutdown")

app = Celery("matrix")
configure(app)
if has_hooks():
    settle_mp_celery.connect()


@signals.worker_init.connect  # type: ignore[untyped-decorator]  # Celery has no types
def _main_begins(**_: object) -> None:
    track("parent")


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator]
@signals.worker_shutdown.connect  # type: ignore[untyped-decorator]
def _ends(**_: object) -> None:
    track("shutdown")


@app.task(name="work", ignore_result=True)  # type: ignore[untyped-decorator]
def work(_: int) -> None:
    """Track one event, and go on doing so in a thread."""
    start_thread(track)
    track("request")


# A cold shutdown waits for tasks that have been acknowledged.
@app.task(name="be_slow", ignore_result=True, acks_late=True)  # type: ignore[untyped-decorator]
def be_slow() -> None:
    """Begin something that does not end."""
    start_thread(track)
    track("request")
    write("~ is slow")
    time.sleep(FOR_EVER_S)
