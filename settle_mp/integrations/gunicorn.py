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
from typing import TYPE_CHECKING, Any, Final

from settle_mp.supervised import Supervised
from settle_mp.worker.producer import close_all, label_process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["child_exit", "on_exit", "on_reload", "on_starting", "post_fork", "run_collector", "worker_exit"]

#: How long an ending worker, or an ending arbiter that tracked events itself, hands over, in seconds. It is
#: a part of gunicorn's graceful_timeout; what does not fit stays in the journal.
HAND_OVER_S: Final = 1.0

#: Names of log levels that gunicorn and settle-mp share; gunicorn has "critical" as well.
_LEVELS: Final = ("debug", "info", "warning", "error")


class _Collector:
    """The collector that this arbiter runs, if it was asked to. Workers have a copy of this and ignore it."""

    def __init__(self) -> None:
        self.start: Callable[[Any], Supervised] | None = None
        self.supervised: Supervised | None = None

    def ensure(self, server: Any) -> None:
        """Start it if it is wanted and does not run; a host that can't have it serves all the same."""
        if self.start is None or (self.supervised is not None and self.supervised.is_alive):
            return
        try:
            self.supervised = self.start(server)
        except (OSError, ValueError) as error:
            msg = "settle-mp: the collector was not started, journals keep all events: %s"
            server.log.error(msg, error)  # noqa: TRY400  operators need the reason, not our stack


_collector: Final = _Collector()


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
    if isinstance(drain_timeout, bool) or not isinstance(drain_timeout, int | float):
        msg = f"drain_timeout must be a number of seconds, not {type(drain_timeout).__name__}"
        raise TypeError(msg)
    if not 0 <= drain_timeout < float("inf"):
        msg = f"drain_timeout must be 0 or more seconds, and finite, not {drain_timeout!r}"
        raise ValueError(msg)
    arguments = [f"--state-dir={os.fspath(state_dir)}"] if state_dir is not None else []
    arguments += [f"--config={os.fspath(config)}"] if config is not None else []

    def start(server: Any) -> Supervised:
        level = str(server.cfg.loglevel).lower()
        is_other_user = os.geteuid() == 0 and server.cfg.uid != 0
        return Supervised(
            [*arguments, f"--log-level={level if level in _LEVELS else 'error'}"],
            drain_timeout_s=drain_timeout,
            user=server.cfg.uid if is_other_user else None,
            group=server.cfg.gid if is_other_user else None,
        )

    _collector.start = start


def on_starting(server: Any) -> None:
    """In the arbiter, before anything else: start the collector, if `run_collector` was called."""
    _collector.ensure(server)


def on_reload(server: Any) -> None:
    """In the arbiter, at SIGHUP: the collector goes on, and reads its settings again as the workers do."""
    if _collector.supervised is not None:
        _collector.supervised.reload()
    _collector.ensure(server)


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
    _collector.ensure(server)


def on_exit(server: Any) -> None:
    """In the arbiter, after all workers ended: hand over what it tracked itself, then end the collector."""
    close_all(HAND_OVER_S)
    if _collector.supervised is not None and not _collector.supervised.end():
        server.log.warning("settle-mp: the collector did not end in time; it goes on to its own end")
