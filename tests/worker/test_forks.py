"""Forks: whatever forks, and whether Python's hooks run or not, each process has a journal of its own."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import Settle
from settle_mp.worker import journal as journals
from tests.upstreams import wait_until
from tests.worker import children, reading
from tests.worker.conftest import end
from tests.worker.fake_collector import FakeCollector

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def folder_of(client: Settle) -> Path:
    """Find the journal of this process."""
    life = client.events._producer._mine()
    assert life is not None
    assert life.journal._folder is not None
    return life.journal._folder


def track(client: Settle, *users: str) -> None:
    """Track an event of each user."""
    for user in users:
        client.events.track(user, "AI_QUERY")


def track_and_look(client: Settle, *users: str) -> tuple[str, list[str]]:
    """Track in this process; returns its journal's name, and whose events are in it."""
    track(client, *users)
    return folder_of(client).name, reading.users(folder_of(client))


def track_and_flush(client: Settle, user: str) -> bool:
    """Track in this process; returns whether all of it was confirmed."""
    track(client, user)
    return bool(client.events.flush(timeout=20))


# Forks with Python's hooks.


def test_parent_and_child_go_on_apart(client: Settle, state_dir: Path) -> None:
    """Rule J4: events of the parent stay the parent's, and the child's are its own from the first one."""
    track(client, "parent-1")
    child = children.start(track_and_look, client, "child-1", "child-2")
    track(client, "parent-2")
    name, users = child.result()
    assert users == ["child-1", "child-2"]
    assert name != folder_of(client).name
    assert reading.users(folder_of(client)) == ["parent-1", "parent-2"]
    assert reading.all_users(state_dir) == ["child-1", "child-2", "parent-1", "parent-2"]


def test_a_child_of_a_child(client: Settle, state_dir: Path) -> None:
    """Rule J4: each generation has a journal of its own, whether its parent had tracked or not."""

    def generation(number: int) -> list[str]:
        mine: tuple[str, ...] = ()
        if number != 2:
            track(client, f"generation-{number}")
            mine = (folder_of(client).name,)
        return [*mine, *children.run(generation, number + 1)] if number < 4 else [*mine]

    names = generation(0)
    assert len(set(names)) == 4
    assert reading.all_users(state_dir) == [f"generation-{number}" for number in (0, 1, 3, 4)]


def test_a_child_begins_with_nothing_of_its_parents(client: Settle) -> None:
    """Rule J4: neither what is pending nor what a flush waits for; closing in it ends nobody's courier."""
    track(client, "parent")

    def work() -> tuple[int, bool, list[str]]:
        before = client.events.pending_count
        report = client.events.flush(timeout=0)
        client.close(timeout=0)
        return before, bool(report), reading.held_locks(folder.parent)

    folder = folder_of(client)
    assert children.run(work) == (0, True, [])
    life = client.events._producer._mine()
    assert life is not None
    assert life.courier is not None
    assert life.courier.is_running
    assert client.events.pending_count == 1


def test_a_dead_parent_reads_as_dead_while_its_child_lives(state_dir: Path) -> None:
    """Rule J4: the child's copy of the lock is closed, so that the parent's journal can be taken over."""
    client = Settle(state_dir=state_dir)
    go_in, go_out = os.pipe()

    def child() -> None:
        os.close(go_out)
        track(client, "child")
        os.read(go_in, 1)

    def parent() -> tuple[str, int]:
        track(client, "parent")
        name, pid = folder_of(client).name, children.start(child).pid
        wait_until(lambda: len(reading.journals(state_dir)) == 2, "the child has tracked")
        return name, pid

    name, pid = children.run(parent)
    try:
        os.kill(pid, 0)
        assert not reading.is_locked(state_dir / "journals" / name)
        (other,) = (each for each in reading.journals(state_dir) if each.name != name)
        assert reading.is_locked(other)
    finally:
        os.close(go_out)
        os.close(go_in)
    end(client)


def test_a_fork_in_a_thread(client: Settle, state_dir: Path) -> None:
    """Rule J4: only the forking thread goes on in the child; what others were about is not waited for."""
    results: list[tuple[str, list[str]]] = []
    is_over = threading.Event()

    def busy() -> None:
        while not is_over.is_set():
            track(client, "busy")

    def forking() -> None:
        results.extend(children.run(track_and_look, client, f"child-{number}") for number in range(10))

    others = [threading.Thread(target=busy) for _ in range(2)]
    for thread in others:
        thread.start()
    forker = threading.Thread(target=forking)
    forker.start()
    forker.join()
    is_over.set()
    for thread in others:
        thread.join()
    assert [users for _, users in results] == [[f"child-{number}"] for number in range(10)]
    assert len({name for name, _ in results}) == 10
    assert set(reading.users(folder_of(client))) == {"busy"}
    reading.all_users(state_dir)


def test_a_childs_courier_ships_its_events(client: Settle, state_dir: Path) -> None:
    """Rule J4: the courier's thread does not survive a fork; the child has its own at its first event."""
    with FakeCollector(state_dir) as collector:
        track(client, "parent")

        with collector.serving():
            assert children.run(track_and_flush, client, "child")
            assert client.events.flush(timeout=20)
        assert collector.users() == ["child", "parent"]
        assert len(collector.positions) == 2


def test_a_child_gets_a_courier_though_its_parent_closed(client: Settle, state_dir: Path) -> None:
    """A master that preloads the application and closes its client says nothing about its workers."""
    client.close(timeout=0)
    with FakeCollector(state_dir) as collector, collector.serving():
        assert children.run(track_and_flush, client, "child")
        assert collector.users() == ["child"]


# Forks without hooks, as uWSGI's are by default.


def fork_without_hooks(work: Callable[[], Any]) -> Any:
    """Run a function in a child that no at-fork hook of Python's has run in.

    A thread that has waited for the GIL for a switch interval asks for it, and a child that inherits this
    request gives the GIL up to nobody, and waits for ever. So no thread asks while we fork.
    """
    libc = ctypes.PyDLL(None)
    pipe_in, pipe_out = os.pipe()
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(children.DEADLINE_S)
    time.sleep(0.01)  # who has asked gets it now, and whoever waits from here on waits by the new interval
    pid = libc.fork()
    sys.setswitchinterval(interval_s)
    if pid == 0:
        children._result_pipe[0] = pipe_out
        children.answer(work)
    os.close(pipe_out)
    return children.Child(pid, pipe_in).result()


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the module that uWSGI puts into its workers."""
    monkeypatch.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))


@pytest.mark.usefixtures("uwsgi")
def test_without_hooks_a_child_finds_out_at_its_first_event(quiet: Settle, state_dir: Path) -> None:
    """Rule J4: nothing told the child that the journal is its parent's, and it writes into its own."""
    track(quiet, "parent-1")
    name, users = fork_without_hooks(lambda: track_and_look(quiet, "child-1", "child-2"))
    track(quiet, "parent-2")
    assert (users, name == folder_of(quiet).name) == (["child-1", "child-2"], False)
    assert reading.users(folder_of(quiet)) == ["parent-1", "parent-2"]
    assert reading.identity(folder_of(quiet)).facts["uwsgi"] == "loaded"
    assert len(reading.journals(state_dir)) == 2


@pytest.mark.usefixtures("uwsgi")
def test_without_hooks_a_full_segment_is_not_taken_for_ones_own(
    quiet: Settle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule J4: a child whose parent's segment is just full makes no next one in its parent's folder."""
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MIN", 4096)
    for number in range(50):
        before = len(list(folder_of(quiet).iterdir())) if number else 0
        track(quiet, f"parent-{number}".ljust(200, "."))
        _, users = fork_without_hooks(lambda: track_and_look(quiet, "child"))
        assert users == ["child"]
        assert len(list(folder_of(quiet).iterdir())) - before in (0, 1, 3)
    assert len(reading.users(folder_of(quiet))) == 50


@pytest.mark.usefixtures("uwsgi")
def test_without_hooks_a_sleeping_couriers_wake_up_is_the_parents(client: Settle, state_dir: Path) -> None:
    """Rule J4: the time mark that wakes the courier belongs to whoever owns the journal."""
    with FakeCollector(state_dir) as collector:
        with collector.serving():
            track(client, "parent")
            assert client.events.flush(timeout=20)
            wait_until(lambda: client.events._producer.asleep, "the courier sleeps")
        before = sorted(folder_of(client).iterdir())
        payloads_count = len(reading.payloads(folder_of(client)))
        _, users = fork_without_hooks(lambda: track_and_look(client, "child"))
        assert users == ["child"]
        assert sorted(folder_of(client).iterdir()) == before
        assert len(reading.payloads(folder_of(client))) == payloads_count


@pytest.mark.usefixtures("uwsgi")
def test_without_hooks_a_childs_flush_and_close_are_its_own(client: Settle) -> None:
    """Rule J4: they ask whose life it is before they touch a courier."""
    track(client, "parent")

    def work() -> tuple[int, bool]:
        client.close(timeout=0)
        return client.events.pending_count, bool(client.events.flush(timeout=0))

    assert fork_without_hooks(work) == (0, True)
    assert client.events.pending_count == 1
