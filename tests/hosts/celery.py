"""Celery's rows: each pool on each broker, in each way that a task, a child or the whole worker may end."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests import brokers
from tests.hosts.machine import DEADLINE_S
from tests.hosts.row import Row

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from tests.brokers import Broker
    from tests.hosts.machine import Program
    from tests.hosts.stage import Stage

APP: Final = "tests.apps.tasks"
#: Tasks before the ending, and again after each change.
TASKS: Final = 30

BROKERS: Final[dict[str, Callable[[], AbstractContextManager[Broker]]]] = {
    "Redis": brokers.redis,
    "files": brokers.files,
}


class Playing:
    """A worker that is being played with."""

    def __init__(self, stage: Stage, broker: Broker, *options: str) -> None:
        self.stage = stage
        self._broker = broker
        self.worker: Final[Program] = broker.worker(stage.machine, APP, *options)

    def work(self, count: int = TASKS) -> None:
        """Have so many tasks run."""
        done = self.worker.said.count(" succeeded in ")
        for number in range(count):
            self._broker.send("work", number)
        self.worker.wait_said(" succeeded in ", done + count)

    def begin_slow(self, **options: object) -> str:
        """Have a task begun that does not end; returns its id."""
        task = self._broker.send("be_slow", **options)
        self.stage.wait_word("is slow")
        return task

    def revoke(self, task: str) -> None:
        """End a task that runs."""
        self._broker.revoke(task, terminate=True)

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the worker, with whatever exit code."""
        with self.stage.ending():
            self.worker.send(number)
            self.worker.process.wait(DEADLINE_S)


def _warm(playing: Playing) -> None:
    playing.work()
    playing.end()


def _cold(playing: Playing) -> None:
    playing.work()
    playing.end(signal.SIGQUIT)


def _cold_amid(playing: Playing) -> None:
    """SIGQUIT kills the child that has a task."""
    playing.work()
    playing.begin_slow()
    playing.end(signal.SIGQUIT)


def _revoke(playing: Playing) -> None:
    """The task's child is killed, and another takes its place."""
    playing.work()
    playing.revoke(playing.begin_slow())
    playing.worker.wait_said("Terminating ")
    playing.work()
    playing.end()


def _overstay(playing: Playing) -> None:
    """The same, by the worker itself."""
    playing.work()
    playing.begin_slow(time_limit=1)
    playing.worker.wait_said("Hard time limit")
    playing.work()
    playing.end()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """One way to end tasks, children or the worker as a whole.

    Attributes:
        run: From a worker that is ready to everything ended.
        options: What the worker is told for it.
        host_says: See `Row`.
    """

    run: Callable[[Playing], None]
    options: tuple[str, ...] = ()
    host_says: str = ""


ENDINGS: Final = {
    "warm shutdown": Ending(run=_warm),
    "cold shutdown": Ending(run=_cold),
    "cold shutdown amid a task": Ending(run=_cold_amid),
    "max_tasks_per_child=1": Ending(run=_warm, options=("--max-tasks-per-child=1", "--concurrency=8")),
    "a task revoked with terminate": Ending(run=_revoke),
    "a task over its hard time limit": Ending(run=_overstay),
}

#: The endings of pools within the main process, where no task can be killed alone.
_OF_ONE: Final = ("warm shutdown", "cold shutdown")
#: The endings of each pool.
POOLS: Final = {
    "prefork": tuple(name for name in ENDINGS if name != "cold shutdown"),
    "threads": _OF_ONE,
    "gevent": (*_OF_ONE, "a task revoked with terminate"),
    "solo": _OF_ONE,
}

#: What `make test` plays.
_FAST: Final = {("files", "prefork", "warm shutdown")}


def _row(broker_name: str, pool: str, name: str) -> Row:
    ending = ENDINGS[name]

    def play(stage: Stage) -> None:
        with BROKERS[broker_name]() as broker:
            options = [f"--pool={pool}", "--concurrency=2", *ending.options]
            ending.run(Playing(stage, broker, *options))

    return Row(
        host="Celery",
        form=f"{pool}, {broker_name}",
        ending=name,
        play=play,
        host_says=ending.host_says,
        is_fast=(broker_name, pool, name) in _FAST,
    )


#: Where a child is killed: without an event loop Celery's prefork pool then hangs, without us too.
_KILLS: Final = (
    "cold shutdown amid a task",
    "a task revoked with terminate",
    "a task over its hard time limit",
)

ROWS: Final = [
    _row(broker_name, pool, name)
    for broker_name in BROKERS
    for pool in POOLS
    for name in POOLS[pool]
    if not (broker_name == "files" and pool == "prefork" and name in _KILLS)
]
