"""Forked children that run a function and hand back what it returned, or die on the way.

    child = children.start(work, 5)      # os.fork(), at-fork hooks and all
    child.kill()                         # SIGKILL, and its end is waited for
    assert children.run(work, 5) == 10   # what work(5) returned; its exception fails the test

Whatever is waited for has a deadline.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import time
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that anything here may take before a test is taken for failed.
DEADLINE_S = 30.0


def fork() -> int:
    """Fork although threads run, of which Python warns from 3.12 on: that it works is what we show."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Child:
    """A forked child, and the pipe that its result comes through."""

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid = pid
        self._pipe = pipe
        self._is_ended = False

    def result(self) -> Any:
        """Wait for the function's result."""
        data = b""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            if not select.select([self._pipe], [], [], max(0.0, deadline_s - time.monotonic()))[0]:
                self.kill()
                pytest.fail(f"the child did not answer within {DEADLINE_S} s")
            part = os.read(self._pipe, 65536)
            if not part:
                break
            data += part
        code = self.wait()
        if not data:
            pytest.fail(f"the child ended with {code} and no result")
        is_good, value = pickle.loads(data)  # noqa: S301  our own child's
        if not is_good:
            pytest.fail(f"in the child:\n{value}")
        return value

    def kill(self) -> None:
        """End it at once."""
        if not self._is_ended:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its exit code, or minus the number of the signal that ended it."""
        _, status = os.waitpid(self.pid, 0)
        self._is_ended = True
        os.close(self._pipe)
        return os.waitstatus_to_exitcode(status)


#: In a child: where its result goes.
_result_pipe = [-1]


def split() -> Child | None:
    """Fork, and go on in both: the parent gets the child, the child gets None and must call `answer`."""
    ours, theirs = os.pipe()
    pid = fork()
    if pid == 0:
        os.close(ours)
        if _result_pipe[0] >= 0:
            os.close(_result_pipe[0])  # a grandchild would keep its parent's parent waiting
        _result_pipe[0] = theirs
        return None
    os.close(theirs)
    return Child(pid, ours)


def answer(function: Callable[..., Any], *arguments: object) -> NoReturn:
    """End a child with what a function returns or raises."""
    try:
        result: tuple[bool, Any] = (True, function(*arguments))
    except BaseException:  # noqa: BLE001  all of it is the parent's to see
        result = (False, traceback.format_exc())
    try:
        with os.fdopen(_result_pipe[0], "wb") as file:
            file.write(pickle.dumps(result))
    finally:
        os._exit(0)


def start(function: Callable[..., Any], *arguments: object) -> Child:
    """Fork a child that runs a function."""
    child = split()
    if child is None:
        answer(function, *arguments)
    return child


def run(function: Callable[..., Any], *arguments: object) -> Any:
    """Run a function in a forked child, and return what it returned there."""
    return start(function, *arguments).result()
