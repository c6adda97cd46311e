"""Hooks for Celery workers: a quicker shutdown, names for operators, and the collector as the worker's child.

    # where the Celery app is made
    from settle_mp.integrations import celery as settle_mp_celery

    app = Celery("shop")
    settle_mp_celery.connect()
    settle_mp_celery.run_collector()    # leave it out where a collector runs already

Nothing here is needed for events to be counted: what a process left, the collector reads from its journal.

A prefork child sends `worker_process_init` and, before `os._exit`, `worker_process_shutdown`; a solo pool the
first of them; threads and gevent pools neither. The main process sends `worker_init`, and `worker_shutdown`
unless the shutdown is a cold one. Celery documents the signals and promises little of that:
https://docs.celeryq.dev/en/stable/userguide/signals.html
"""

from __future__ import annotations

import atexit
import logging
from typing import TYPE_CHECKING, Any, Final

from settle_mp.notices import notice
from settle_mp.supervised import OwnCollector
from settle_mp.worker.producer import close_all, label_process

if TYPE_CHECKING:
    import os

__all__ = ["connect", "run_collector"]

log: Final = logging.getLogger("settle_mp")

#: How long an ending process hands over, in seconds: a part of what recycling a child costs while no
#: collector runs. What does not fit stays in the journal.
HAND_OVER_S: Final = 0.5

_collector: Final = OwnCollector()


def connect() -> None:
    """Attach to the signals of Celery's workers. May be called again, and by what only sends tasks."""
    from celery import signals

    signals.worker_init.connect(_main_begins)
    signals.worker_process_init.connect(_child_begins)
    signals.worker_process_shutdown.connect(_child_ends)
    signals.worker_shutdown.connect(_main_ends)
    # Each comes from time to time in the main process: whoever killed that may have killed the supervisor.
    signals.heartbeat_sent.connect(_ensure)
    signals.worker_before_create_process.connect(_ensure)


def run_collector(
    *,
    state_dir: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    drain_timeout: float = 0.0,
) -> None:
    """Run the collector as a child of the worker's main process: started first, restarted, ended last.

    It only notes the wish; a worker whose signals are connected acts. The collector logs to the worker's
    standard error at the worker's level. Where another collector has the state folder already, another
    worker's of this host too, this one waits for that one's end.

    Args:
        state_dir: As for `Settle()`; None finds the same folder that the tasks find.
        config: The settings file; None finds the same as the tasks.
        drain_timeout: How long the collector may ship before it ends, in seconds. 0 is right where the disk
            stays: what was not shipped is shipped after the next start.

    Raises:
        TypeError, ValueError: If drain_timeout is not a number of seconds, or negative.
    """
    _collector.want(state_dir=state_dir, config=config, drain_timeout=drain_timeout)


class _Level:
    """The worker's log level by name, known once it has begun."""

    name = "info"


def _main_begins(sender: Any, **_: object) -> None:
    _Level.name = logging.getLevelName(sender.loglevel or logging.WARNING)
    label_process(f"celery:{sender.app.main}")
    # A cold shutdown sends no signal, and this is not called twice for one that is warm.
    atexit.register(_main_ends)
    _ensure()


def _child_begins(**_: object) -> None:
    from billiard.process import current_process
    from celery import current_app

    # "ForkPoolWorker-3", as in Celery's own log; the solo pool has its one process, which is named already.
    _, _, number = current_process().name.rpartition("Worker-")
    if number.isdigit():
        label_process(f"celery:{current_app.main} worker {number}")


def _child_ends(**_: object) -> None:
    close_all(HAND_OVER_S)


def _ensure(**_: object) -> None:
    trouble = _collector.ensure(log_level=_Level.name)
    if trouble:
        log.error("collector_not_started", extra=notice("collector_not_started", trouble))


def _main_ends(**_: object) -> None:
    atexit.unregister(_main_ends)
    close_all(HAND_OVER_S)
    trouble = _collector.end()
    if trouble:
        log.warning("collector_not_ended", extra=notice("collector_not_ended", trouble))
