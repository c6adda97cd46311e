"""Hooks for gunicorn: a quicker shutdown, names for operators, and the collector as gunicorn's child.

    # gunicorn.conf.py
    from settle_mp.integrations.gunicorn import *

    run_collector()     # leave it out where a collector runs already

Nothing here is needed for events to be counted. Without `worker_exit` the collector reads what a worker left
from its journal; without `post_fork` a worker is called by its process id. A hook of your own calls ours:

    from settle_mp.integrations import gunicorn as settle_mp_hooks

    def post_fork(server, worker):
        settle_mp_hooks.post_fork(server, worker)
        ...

gunicorn's own documentation says when it calls which: https://docs.gunicorn.org/en/stable/settings.html#server-hooks
"""

from __future__ import annotations

import os
from typing import Any, Final

from settle_mp.supervised import OwnCollector
from settle_mp.worker.producer import close_all, label_process

__all__ = ["child_exit", "on_exit", "on_reload", "on_starting", "post_fork", "run_collector", "worker_exit"]

#: How long an ending worker, or an ending arbiter that tracked events itself, hands over, in seconds. It is
#: a part of gunicorn's graceful_timeout; what does not fit stays in the journal.
HAND_OVER_S: Final = 1.0

_collector: Final = OwnCollector()


def run_collector(
    *,
    state_dir: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | None = None,
    drain_timeout: float = 0.0,
) -> None:
    """Run the collector as a child of the arbiter: started first, started again when it dies, ended last.

    For `gunicorn.conf.py`, together with the hooks. It only notes the wish; `on_starting` acts. The collector
    logs to gunicorn's standard error at gunicorn's level and runs as the workers' user. Where another
    collector has the state folder already, this one waits for that one's end.

    Args:
        state_dir: As for `Settle()`; None finds the same folder that the workers find.
        config: The settings file; None finds the same as the workers.
        drain_timeout: How long the collector may ship before it ends, in seconds. 0 is right where the disk
            stays: what was not shipped is shipped after the next start.

    Raises:
        TypeError, ValueError: If drain_timeout is not a number of seconds, or negative.
    """
    _collector.want(state_dir=state_dir, config=config, drain_timeout=drain_timeout)


def _ensure(server: Any) -> None:
    is_other_user = os.geteuid() == 0 and server.cfg.uid != 0
    trouble = _collector.ensure(
        log_level=str(server.cfg.loglevel),
        user=server.cfg.uid if is_other_user else None,
        group=server.cfg.gid if is_other_user else None,
    )
    if trouble:
        server.log.error("settle-mp: %s", trouble)


def on_starting(server: Any) -> None:
    """In the arbiter, before anything else: start the collector, if `run_collector` was called."""
    _ensure(server)


def on_reload(server: Any) -> None:
    """In the arbiter, at SIGHUP: the collector goes on, and reads its settings again as the workers do."""
    _collector.reload()
    _ensure(server)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    """In a new worker, before the application is loaded: name the process for operators."""
    label_process(f"gunicorn:{worker.cfg.proc_name} worker {worker.age}")


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    """In an ending worker: hand over what it tracked, within about a second.

    gunicorn calls this in the arbiter as well, for a worker that is gone already; then it does nothing.
    """
    if worker.pid == os.getpid():
        close_all(HAND_OVER_S)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    """In the arbiter, after a worker ended: whoever killed that may have killed the supervisor as well."""
    _ensure(server)


def on_exit(server: Any) -> None:
    """In the arbiter, after all workers ended: hand over what it tracked itself, then end the collector."""
    close_all(HAND_OVER_S)
    trouble = _collector.end()
    if trouble:
        server.log.warning("settle-mp: %s", trouble)
