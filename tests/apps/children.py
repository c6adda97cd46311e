"""A program whose work is done by children of its own: `python -m tests.apps.children KIND`.

KIND is fork, spawn or forkserver (multiprocessing), pool (concurrent.futures), twice (os.fork in a fork), or
what the program itself does in the end: fail (an exception) or exec. It goes on when it gets SIGUSR1.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import util
from typing import TYPE_CHECKING, Any, Final

from tests.apps.tracking import connect, start_thread, write

if TYPE_CHECKING:
    from collections.abc import Callable

#: Children, and events of each.
CHILDREN: Final = 3
COUNT: Final = 30

track = connect()
track("import")


def work(_: int = 0) -> None:
    """Track as a request or a job does."""
    start_thread(track)
    for _number in range(COUNT):
        track("request")


def live(may_end: Callable[[], object]) -> None:
    """Be a child of multiprocessing: its way to say that something is to be done at the end."""
    util.Finalize(None, track, args=("shutdown",), exitpriority=1)
    work()
    write("~ has worked")
    may_end()


def with_multiprocessing(method: str) -> None:
    """Start children in one of its ways, and join them."""
    context: Any = multiprocessing.get_context(method)
    event = context.Event()
    children = [context.Process(target=live, args=(event.wait,)) for _ in range(CHILDREN)]
    for child in children:
        child.start()
    _wait()
    event.set()
    for child in children:
        child.join()
        assert child.exitcode == 0


def with_pool() -> None:
    """Have a pool do the work."""
    with ProcessPoolExecutor(CHILDREN) as pool:
        list(pool.map(work, range(2 * CHILDREN)))
        for _ in range(CHILDREN):
            write("~ has worked")
        _wait()


def with_two_forks() -> None:
    """Fork, and fork in the fork; each of the two ends in a way of its own."""
    child = os.fork()
    if child == 0:
        work()
        grandchild = os.fork()
        work()
        write("~ has worked")
        _wait()
        if grandchild == 0:
            os._exit(0)  # runs nothing of Python's
        os.waitpid(grandchild, 0)
        sys.exit(0)
    work()
    write("~ has worked")
    _wait()
    assert os.waitpid(child, 0)[1] == 0


def and_fail() -> None:
    """Do it here, and fail."""
    _work_alone()
    raise RuntimeError("the script fails")


def and_exec() -> None:
    """Do it here, and become another program."""
    _work_alone()
    os.execv(sys.executable, [sys.executable, "-c", "pass"])  # noqa: S606  our own program


def _work_alone() -> None:
    work()
    for _ in range(CHILDREN):
        write("~ has worked")
    _wait()


def _wait() -> None:
    signal.sigwait([signal.SIGUSR1])


# Children of spawn and forkserver import this file, too, under another name.
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    track("parent")
    atexit.register(track, "shutdown")
    kind = sys.argv[1]
    others = {"pool": with_pool, "twice": with_two_forks, "fail": and_fail, "exec": and_exec}
    others[kind]() if kind in others else with_multiprocessing(kind)
