"""The stage: what a row's `play` works with, the same for each take of it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from tests.apps import tracking
from tests.hosts import oracle
from tests.hosts.machine import DEADLINE_S
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.hosts.machine import Gunicorn, Host, Program
    from tests.hosts.row import Take


class Stage:
    """A machine with everything in place for one take.

    Attributes:
        machine: The machine; what is started through the stage knows its client and its oracle.
        take: What is played.
        shutdown_s: How long the ending took, once there was one.
    """

    def __init__(self, machine: Host, take: Take, collector: Program | None) -> None:
        self.machine = machine
        self.take = take
        self.shutdown_s: float | None = None
        self.oracle: Final = machine.folder / "oracle"
        machine.environ[tracking.CLIENT] = take.client
        machine.environ[tracking.ORACLE] = str(self.oracle)
        machine.environ[tracking.VARIANT] = take.variant
        self._collector = collector

    @property
    def variant(self) -> str:
        """With which integration of ours; "" where the client is not ours, so that none is loaded."""
        return self.take.variant

    def run(self, command: Sequence[str], **environ: str) -> Program:
        """Start the host."""
        return self.machine.run(command, **environ)

    def gunicorn(self, app: str, *options: str, conf: str = "", **environ: str) -> Gunicorn:
        """Start gunicorn as the host, and return once it listens."""
        return self.machine.gunicorn(app, *options, conf=conf, **environ)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Measure how long the host takes to end: from here until none of its processes is left."""
        start_s = time.monotonic()
        yield
        self.wait_over()
        self.shutdown_s = time.monotonic() - start_s

    def wait_over(self) -> None:
        """Wait until no process is left but the collector."""
        left = set() if self._collector is None else {self._collector.pid}
        what = "no process of the host is left"
        wait_until(lambda: set(self.machine.pids()) <= left, what, DEADLINE_S, every_s=0.02)

    def wait_account(self, is_so: Callable[[oracle.Account], object], what: str) -> None:
        """Wait until what has been tracked is as it should be.

        Where the app tracks nothing, only words come: ask for those where a take without us must get on.
        """
        wait_until(lambda: is_so(oracle.read(self.oracle)), what, DEADLINE_S)

    def wait_word(self, word: str, times: int = 1) -> None:
        """Wait until the app has left this word so often; see `tracking.write`."""
        self.wait_account(lambda account: account.words.count(word) >= times, f"the app says {word!r}")
