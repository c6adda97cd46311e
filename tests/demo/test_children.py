"""Processes of the demo: they end with all of their children, and who waits for them hears of everything."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from settle_mp.demo.children import Child, DemoError, StoppedError, Watch
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENVIRON = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}

#: Says its child's pid; neither ends when asked.
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    print(f"child {child}.")
time.sleep(600)
"""


def start(folder: Path, code: str, name: str = "it") -> Child:
    """Run some Python."""
    return Child(name, [sys.executable, "-c", code], folder, ENVIRON)


def grandchild_of(child: Child) -> int:
    """Wait until a stubborn one has a child."""
    wait_until(lambda: "." in child.log(), "it has a child")
    return int(child.log().split()[1].rstrip("."))


def is_there(pid: int) -> bool:
    """Whether a process exists and is no zombie that waits for a parent who does not care."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:  # noqa: PTH123 - Not there on macOS.
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"


@pytest.mark.parametrize("grace_s", [0.0, 0.2])
def test_a_process_ends_with_its_children(tmp_path: Path, grace_s: float) -> None:
    """Even those that do not want to."""
    child = start(tmp_path, STUBBORN)
    grandchild = grandchild_of(child)
    assert child.has_member(grandchild)
    child.end(grace_s)
    wait_until(lambda: not is_there(grandchild), "its child is gone")
    assert child.code == -signal.SIGKILL


def test_children_end_although_their_parent_has(tmp_path: Path) -> None:
    """A killed arbiter leaves workers; its group is still there."""
    child = start(tmp_path, STUBBORN)
    grandchild = grandchild_of(child)
    child.kill()
    assert is_there(grandchild)
    child.end(0.0)
    wait_until(lambda: not is_there(grandchild), "its child is gone")


def test_a_process_that_obeys_ends_in_good_order(tmp_path: Path) -> None:
    """It is asked first; its code says that it was not killed."""
    code = "import signal, sys, time\nsignal.signal(15, lambda *_: sys.exit(5))\nprint('up')\ntime.sleep(600)"
    child = start(tmp_path, code)
    wait_until(lambda: "up" in child.log(), "it is up")
    child.end(20.0)
    assert child.code == 5


def test_a_stranger_is_no_member(tmp_path: Path) -> None:
    """Nobody else's process is taken for one of the group, nor one that is gone."""
    child = start(tmp_path, "")
    wait_until(lambda: child.code is not None, "it has ended")
    assert not child.has_member(os.getpid())
    assert not child.has_member(child.pid)
    child.end(0.0)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_told_by_the_next_wait(signum: int) -> None:
    """Never in the middle of something; afterwards the handlers are those of before."""
    before = signal.getsignal(signum)
    with Watch() as watch:
        signal.raise_signal(signum)
        with pytest.raises(StoppedError) as stopped:
            watch.wait_until(lambda: True, "nothing", 10)
    assert stopped.value.signum == signum
    assert signal.getsignal(signum) is before


def test_an_ignored_signal_stays_ignored() -> None:
    """Nohup is what it is for."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Watch() as watch:
            signal.raise_signal(signal.SIGHUP)
            watch.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_waiting_ends_when_a_process_does(tmp_path: Path) -> None:
    """It says which, with which code, and what its log said last."""
    with Watch() as watch:
        watch.over(start(tmp_path, "import sys; print('no such thing'); sys.exit(7)", "sandbox"))
        with pytest.raises(DemoError, match=r"sandbox ended with code 7\.(?s:.*)no such thing"):
            watch.wait_until(lambda: False, "anything", 60)


def test_a_released_process_may_end(tmp_path: Path) -> None:
    """One that was killed on purpose is no fault."""
    with Watch() as watch:
        child = watch.over(start(tmp_path, ""))
        watch.release(child)
        watch.release(child)
        watch.wait_until(lambda: child.code is not None, "it ends", 20)


def test_waiting_has_a_deadline(tmp_path: Path) -> None:
    """It says what did not come, and what the logs say."""
    with Watch() as watch:
        child = watch.over(start(tmp_path, "import time; print('busy'); time.sleep(600)", "collector"))
        wait_until(lambda: "busy" in child.log(), "it is up")
        with pytest.raises(DemoError, match=r"still waiting for this: peace\.(?s:.*)busy"):
            watch.wait_until(lambda: False, "peace", 0.1)
        child.end(0.0)


def test_somebody_may_look_on() -> None:
    """While something is waited for, progress can be shown; what that raises ends the wait."""
    looks: list[float] = []

    def look() -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise DemoError("enough")

    never: Callable[[], bool] = lambda: False  # noqa: E731 - A value.
    with Watch() as watch:
        watch.on_look = look
        with pytest.raises(DemoError, match="enough"):
            watch.wait_until(never, "anything", 60)
