"""Real signals and real ends in the midst of `track()`, thousands of times."""

from __future__ import annotations

import collections
import gc
import mmap
import operator
import os
import random
import signal
import struct
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import Settle
from settle_mp.worker import journal as journals
from tests.upstreams import wait_until
from tests.worker import children, reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Interruptions that a test waits for.
ENOUGH = 2000


class StopRequest(ValueError):  # noqa: N818  no error
    """What an application raises to end a request that takes too long: of a kind that the worker catches."""


@pytest.fixture(autouse=True)
def _soon_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make segments small, so that they change all the time."""
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MIN", 4096)
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MAX", 4096)


def quiet(state_dir: Path) -> Settle:
    """Make a client without a courier, in the child that needs it."""
    client = Settle(state_dir=state_dir)
    client.close(timeout=0)
    return client


def by_timer(handler: Callable[[], None]) -> Callable[[], None]:
    """Have the system interrupt this thread every now and then; returns what ends that."""

    def fire(*_: Any) -> None:
        try:
            handler()
        finally:
            # One shot each, or the next one comes before anything else was done.
            signal.setitimer(signal.ITIMER_REAL, random.uniform(20e-6, 200e-6))  # noqa: S311

    signal.signal(signal.SIGALRM, fire)
    signal.setitimer(signal.ITIMER_REAL, 1e-4)

    def end() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)

    return end


def by_thread(handler: Callable[[], None]) -> Callable[[], None]:
    """The same from another thread."""
    is_over = threading.Event()
    main = threading.get_ident()

    def kill() -> None:
        while not is_over.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            time.sleep(random.uniform(20e-6, 200e-6))  # noqa: S311

    signal.signal(signal.SIGUSR1, lambda *_: handler())
    thread = threading.Thread(target=kill)
    thread.start()

    def end() -> None:
        is_over.set()
        thread.join()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    return end


def be_stopped(state_dir: Path, interrupting: Callable[..., Callable[[], None]]) -> dict[str, Any]:
    """Track while requests are stopped by exceptions; says what returned and what did not."""
    # Python swallows an exception that falls into one; hypothesis, where it ran before, has left one here.
    gc.callbacks.clear()
    client = quiet(state_dir)
    client.events.track("first", "AI_QUERY")
    returned = ["first"]
    stopped: list[str] = []
    raised = [0]
    is_inside = [False]

    def handler() -> None:
        if is_inside[0]:
            is_inside[0] = False  # once a request: an exception in the handler itself would hide this one
            raised[0] += 1
            raise StopRequest("too long")

    end = interrupting(handler)
    number = 0
    while len(stopped) < ENOUGH:
        number += 1
        name = f"user-{number}"
        try:
            is_inside[0] = True
            client.events.track(name, "AI_QUERY", metadata={"model": "x" * (number % 40)})
            is_inside[0] = False
            returned.append(name)
        except StopRequest:
            stopped.append(name)
    end()
    return {"returned": returned, "stopped": stopped, "raised": raised[0]}


@pytest.mark.parametrize("interrupting", [by_timer, by_thread])
def test_exceptions_of_signal_handlers(
    state_dir: Path, interrupting: Callable[..., Callable[[], None]]
) -> None:
    """Rule J2: 2,000 requests are stopped by exceptions in the midst of `track()`.

    What returned is in the journal once, what was stopped at most once, and no exception was swallowed.
    """
    result = children.run(be_stopped, state_dir, interrupting)
    assert result["raised"] == len(result["stopped"]) >= ENOUGH
    found = collections.Counter(reading.all_users(state_dir))
    extra = found - collections.Counter(result["returned"])
    assert collections.Counter(result["returned"]) - found == collections.Counter()
    assert set(extra) <= set(result["stopped"])
    assert set(found.values()) == {1}


def track_in_handlers(state_dir: Path, interrupting: Callable[..., Callable[[], None]]) -> list[str]:
    """Track while signal handlers track; says what returned."""
    client = quiet(state_dir)
    returned: list[str] = []
    calls, depth = [0], [0]

    def handler() -> None:
        if depth[0] > 3:
            return  # signals come faster than they are handled
        depth[0] += 1
        calls[0] += 1
        call = calls[0]
        for number in range(3):
            name = f"handler-{call}-{number}"
            client.events.track(name, "AI_QUERY")
            returned.append(name)
        depth[0] -= 1

    end = interrupting(handler)
    number = 0
    while calls[0] < ENOUGH:
        number += 1
        client.events.track(f"user-{number}", "AI_QUERY")
        returned.append(f"user-{number}")
    end()
    return returned


@pytest.mark.parametrize("interrupting", [by_timer, by_thread])
def test_signal_handlers_that_track(state_dir: Path, interrupting: Callable[..., Callable[[], None]]) -> None:
    """Rule J6: 2,000 signal handlers track in the midst of `track()`; each event is there once."""
    returned = children.run(track_in_handlers, state_dir, interrupting)
    assert len(returned) > 3 * ENOUGH
    assert reading.all_users(state_dir) == sorted(returned)


FORKS = 200


def fork_in_handlers(state_dir: Path) -> tuple[str, list[str], list[int]]:
    """Track while signal handlers fork; says which journal, what returned in it, and who was forked."""
    client = quiet(state_dir)
    client.events.track("first", "AI_QUERY")
    returned = ["first"]
    forked: list[int] = []
    is_child = [False]

    def handler() -> None:
        if is_child[0] or len(forked) >= FORKS:
            return
        pid = children.fork()
        if pid == 0:
            is_child[0] = True
        else:
            forked.append(pid)

    end = by_timer(handler)
    number = 0
    while len(forked) < FORKS:
        number += 1
        client.events.track(f"user-{number}", "AI_QUERY")
        if is_child[0]:
            client.events.track(f"child-{os.getpid()}", "AI_QUERY")
            os._exit(0)
        returned.append(f"user-{number}")
    end()
    life = client.events._producer._mine()
    assert life is not None
    for pid in forked:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return life.journal.producer.hex(), returned, forked


def test_signal_handlers_that_fork(state_dir: Path) -> None:
    """Rule J4: 200 children forked by a signal handler in the midst of `track()` go on with that call.

    None of them writes into its parent's pages, and each has its own events in a journal of its own.
    """
    mine, returned, forked = children.run(fork_in_handlers, state_dir)
    journals_of = {folder.name: reading.users(folder) for folder in reading.journals(state_dir)}
    assert journals_of.pop(mine) == returned
    found = {users[-1]: users[:-1] for users in journals_of.values()}
    assert set(found) == {f"child-{pid}" for pid in forked}
    # The call that was interrupted is the child's as well, unless the parent had appended it before.
    assert all(len(users) <= 1 and set(users) <= set(returned) for users in found.values())


def track_until_the_end(state_dir: Path, counter: mmap.mmap, *, ends_itself: bool) -> None:
    """Track numbered events, and note each that returned in memory that outlives this process."""
    client = quiet(state_dir)
    if ends_itself:
        threading.Timer(random.uniform(0.001, 0.03), os._exit, [9]).start()  # noqa: S311
    for number in range(10**9):
        client.events.track(f"user-{number}", "AI_QUERY", metadata={"x": "y" * (number % 100)})
        counter[:8] = struct.pack("<q", number + 1)


@pytest.mark.parametrize("ends_itself", [True, False])
def test_ends_in_the_midst_of_appends(state_dir: Path, *, ends_itself: bool) -> None:
    """Rule J3: SIGKILL and os._exit at any moment: every event that returned can be read, in its order."""
    for _ in range(15):
        counter = mmap.mmap(-1, 4096)  # shared with the child
        child = children.start(partial(track_until_the_end, state_dir, counter, ends_itself=ends_itself))
        if not ends_itself:
            wait_until(partial(operator.ne, memoryview(counter)[:8], bytes(8)), "it tracks")
            time.sleep(random.uniform(0, 0.02))  # noqa: S311
            os.kill(child.pid, signal.SIGKILL)
        assert child.wait() == (9 if ends_itself else -signal.SIGKILL)
        (returned_count,) = struct.unpack("<q", counter[:8])
        for folder in reading.journals(state_dir):
            found = reading.users(folder)
            assert found == [f"user-{number}" for number in range(len(found))]
            assert len(found) in (returned_count, returned_count + 1)
            folder.rename(folder.with_name(f".old-{folder.name}"))
