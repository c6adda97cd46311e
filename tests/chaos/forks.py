"""A process that forks others in ways that servers seldom do; each is a life of its own, with its own stream.

Runs in a process that the keeper has forked. Every child ends without a farewell.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from tests.chaos import traffic
from tests.chaos.tally import Tally
from tests.chaos.traffic import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Track = Callable[..., None]

#: How many live at a time.
CROWD: Final = 20
#: Events of a short life.
FEW: Final = 20
#: Generations of one line.
GENERATIONS: Final = 4
#: Seconds that a container lives.
CONTAINER_S: Final = 0.15
_CLONE_NEWPID: Final = 0x20000000


class Forker:
    """The parent, whose own life is the first one."""

    def __init__(self, *, tally: str, slot: int, life: int, lives: int) -> None:
        from settle_mp import Settle

        self._counts = Tally(Path(tally))
        self._slot, self._life, self._lives = slot, life, lives
        self._settle = Settle()
        self._tracked: dict[int, int] = {}

    def track(self, life: int, count: int, thread: int = 0) -> None:
        """Track the next events of a stream."""
        stream = Stream(life, thread, self._slot)
        first = self._tracked.get(stream.number, 0)
        for n in range(first, first + count):
            self._settle.events.track(*traffic.event(stream, n))
            self._counts.returned[stream.number] = self._tracked[stream.number] = n + 1

    def _fork(self, life: int, count: int) -> int:
        """Have a child track so many events and die at once."""
        pid = os.fork()
        if pid == 0:
            self.track(life, count)
            os._exit(0)
        return pid

    def _others(self) -> range:
        return range(self._life + 1, self._life + self._lives)

    # --- Ways of forking ---

    def brief(self) -> None:
        """Lives of one event each, some at a time, of a parent that tracks before and after."""
        self.track(self._life, 1)
        others = self._others()
        for at in range(0, len(others), CROWD):
            for pid in [self._fork(life, 1) for life in others[at : at + CROWD]]:
                _wait(pid)
            self.track(self._life, 1)

    def beside_threads(self) -> None:
        """Forks while other threads are in the middle of track(); the parent goes on tracking."""
        is_over = threading.Event()

        def work(thread: int) -> None:
            while not is_over.is_set():
                self.track(self._life, FEW, thread)
                time.sleep(0.001)

        threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2, 3)]
        for each in threads:
            each.start()
        for life in self._others():
            _wait(self._fork(life, FEW))
            self.track(self._life, FEW)
        is_over.set()
        for each in threads:
            each.join()

    def generations(self) -> None:
        """Children that fork children and go on, each generation between two of its own events."""
        others = self._others()
        for at in range(0, len(others), GENERATIONS):
            line = others[at : at + GENERATIONS]
            self.track(self._life, 1)
            self._generation(list(line))
            self.track(self._life, 1)

    def _generation(self, line: list[int]) -> None:
        if not line:
            return
        pid = os.fork()
        if pid == 0:
            self.track(line[0], FEW)
            self._generation(line[1:])
            self.track(line[0], FEW)
            os._exit(0)
        _wait(pid)

    def containers(self) -> None:
        """Each child in a pid namespace of its own: all of them are process 1, and killed from outside."""
        for life in self._others():
            pid = os.fork()
            if pid == 0:
                _contain(self, life)
            _wait(pid)


@contextlib.contextmanager
def pid_namespace() -> Iterator[None]:
    """Whoever is forked meanwhile is process 1 of a namespace of its own; afterwards it is as before."""
    ours = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.unshare(_CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "no pid namespace can be made")
        yield
        if libc.setns(ours, _CLONE_NEWPID):
            raise OSError(ctypes.get_errno(), "the pid namespace of before can't be had again")
    finally:
        os.close(ours)


def _contain(forker: Forker, life: int) -> NoReturn:
    """Be the outside of a container: make it, let it live for a while, and kill it."""
    if ctypes.CDLL(None).unshare(_CLONE_NEWPID):
        os._exit(1)
    pid = os.fork()
    if pid == 0:
        assert os.getpid() == 1
        while True:
            forker.track(life, FEW)
            time.sleep(0.001)
    time.sleep(CONTAINER_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os._exit(0)


def _wait(pid: int) -> None:
    assert os.waitpid(pid, 0)[1] == 0


def run(*, how: str, **arguments: int | str) -> int:
    """Fork in one of the ways above, and end in good order."""
    forker = Forker(**arguments)  # type: ignore[arg-type]
    getattr(forker, how)()
    forker._settle.close()
    return 0


def cannot_contain() -> str:
    """Why there are no pid namespaces here."""
    pid = os.fork()
    if pid == 0:
        os._exit(1 if ctypes.CDLL(None).unshare(_CLONE_NEWPID) else 0)
    return "" if os.waitpid(pid, 0)[1] == 0 else "making a pid namespace needs root"
