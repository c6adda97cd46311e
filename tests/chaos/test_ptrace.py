"""A traced process dies exactly where it should: before a call that is not made, or after one that was."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.chaos.ptrace import Call, Tracer, can_fail_calls, is_possible

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not is_possible(), reason="tracing one's own children is not possible here")

#: Renames a file to and fro, from a thread of its own.
PROGRAM = """
import os, sys, threading
def run():
    while True:
        os.rename("one", "two")
        os.rename("two", "one")
open("one", "w").close()
print(flush=True)
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


def killed_at(folder: Path, is_there: Callable[[Call], bool]) -> list[str]:
    """Kill the program at a call; returns what files it left."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=folder, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        tracer = Tracer(process.pid)
        tracer.attach()
        assert tracer.run(is_there)
        tracer.kill()
        process.returncode = os.waitstatus_to_exitcode(tracer.ended[process.pid])
    return sorted(path.name for path in folder.iterdir())


def is_rename(call: Call, path: str) -> bool:
    """Whether a file of this name gets another one."""
    return call.name in {"rename", "renameat"} and call.path == path


@pytest.mark.parametrize("turn", range(3))
def test_what_it_was_about_to_do_is_not_done(tmp_path: Path, turn: int) -> None:
    """Killed before the call."""
    left = [turn]

    def is_there(call: Call) -> bool:
        left[0] -= is_rename(call, "one") and call.is_before
        return left[0] < 0

    assert killed_at(tmp_path, is_there) == ["one"]


def test_what_it_did_is_done(tmp_path: Path) -> None:
    """Killed after the call."""
    assert killed_at(tmp_path, lambda call: is_rename(call, "one") and call.is_made) == ["two"]


def test_a_stopped_one_stays_stopped_and_goes_on(tmp_path: Path) -> None:
    """SIGSTOP means to a traced process what it means to any other."""
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        continued_s: list[float] = []
        renamed_s: list[float] = []

        def go_on() -> None:
            time.sleep(0.3)
            continued_s.append(time.monotonic())
            os.kill(process.pid, signal.SIGCONT)

        def is_there(call: Call) -> bool:
            if not renamed_s:
                # Not by Popen, which looks whether it lives, and takes a stop that is the tracer's to see.
                os.kill(process.pid, signal.SIGSTOP)
                threading.Thread(target=go_on).start()
            renamed_s.append(time.monotonic())
            return bool(continued_s) and is_rename(call, "one")

        tracer = Tracer(process.pid)
        tracer.attach()
        assert tracer.run(is_there)
        tracer.kill()
        process.returncode = os.waitstatus_to_exitcode(tracer.ended[process.pid])
    # Whatever was under way when the signal came was done with long before it was allowed to go on.
    assert max(b - a for a, b in itertools.pairwise(renamed_s)) > 0.2


def test_an_end_before_the_point_is_told() -> None:
    """Nobody waits for ever."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.2)"])
    tracer = Tracer(process.pid)
    tracer.attach()
    assert not tracer.run(lambda _: False)
    tracer.kill()
    process.returncode = os.waitstatus_to_exitcode(tracer.ended[process.pid])
    assert process.returncode == 0


#: Tries a rename until it works, and says what became of each try.
TRYING = """
import os
open("one", "w").close()
print(flush=True)
input()
while True:
    try:
        os.rename("one", "two")
        break
    except OSError as error:
        print(error.errno, os.path.exists("one"), flush=True)
print("done", os.path.exists("two"))
"""


@pytest.mark.skipif(not can_fail_calls(), reason="calls can't be made to fail here")
def test_a_call_that_fails_is_not_made_and_the_rest_goes_on(tmp_path: Path) -> None:
    """As often as was asked for, with the error that was asked for; then it runs on by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRYING], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    tracer = Tracer(process.pid)
    tracer.attach("first")
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.close()
    process.stdin = None
    assert tracer.fail(lambda call: errno.EIO if is_rename(call, "one") else 0, 3)
    tracer.let_go()
    said, _ = process.communicate(timeout=60)
    assert said.splitlines() == [f"{errno.EIO} True"] * 3 + ["done True"]
    assert process.returncode == 0
