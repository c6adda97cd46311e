"""`track()` interrupted at each point where a signal handler may run, by all that a handler may do."""

from __future__ import annotations

import collections
import itertools
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from settle_mp import Settle
from settle_mp.core.event import unpack_event
from settle_mp.core.record import HEAD_BYTES, mark_s
from settle_mp.worker import journal as journals
from tests.worker import children, reading
from tests.worker.conftest import end
from tests.worker.interruptions import interrupt, points
from tests.worker.journaling import EVENT_BYTES, LEDGER, folder_of, names, room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.worker.journal import Journal

#: What time limits and applications raise; the worker itself catches each of these somewhere.
ERRORS = (ValueError, TimeoutError, KeyError, RuntimeError, TypeError, OverflowError, OSError)
#: Bytes of a segment that is soon full.
TINY = 4096


class Tracker:
    """A client whose calls are noted when they return."""

    def __init__(self, client: Settle) -> None:
        self.client = client
        self.returned: list[str] = []
        self.committed: list[str] = []

    def track(self, user: str) -> None:
        """Track an event of a user; all take the same bytes."""
        self.client.events.track(user.ljust(60, "."), "AI_QUERY")
        self.returned.append(user)

    def track_many(self, label: str, count: int) -> None:
        """Track several."""
        for number in range(count):
            self.track(f"{label}-{number}")

    @property
    def journal(self) -> Journal:
        """The journal of this process."""
        life = self.client.events._producer._mine()
        assert life is not None
        return life.journal

    def fill(self) -> None:
        """Track until the next event needs another segment."""
        count = len(self.returned)
        while room(self.journal) >= EVENT_BYTES:
            self.track(f"filler-{count}")
            count += 1

    def appended_count(self) -> int:
        """How many events of this process were ever appended, whatever has returned."""
        life = self.client.events._producer._mine()
        return 0 if life is None else life.journal.census()[1]

    def users(self) -> list[str]:
        """Whose events are in this process's journal."""
        return names(reading.users(folder_of(self.journal)))

    def commit(self) -> None:
        """Take what is not committed, as frames would carry it, and commit it."""
        start, end = self.journal.committed, self.journal.tail
        users = []
        for segment in reading.segments(folder_of(self.journal)):
            at = segment.base
            for payload in segment.payloads:
                if start <= at < end and mark_s(payload) is None:
                    users.append(unpack_event(payload).user_id)
                at += HEAD_BYTES + len(payload)
        assert self.journal.commit(LEDGER, end)
        self.committed += names(users)


@pytest.fixture
def fresh(state_dir: Path) -> Iterator[Callable[[], Tracker]]:
    """Make trackers that have not opened a journal yet, each in a folder of its own."""
    made: list[Settle] = []
    numbers = itertools.count()

    def make() -> Tracker:
        for client in made:
            end(client)
        made[:] = [Settle(state_dir=state_dir / str(next(numbers)))]
        made[0].close(timeout=0)
        return Tracker(made[0])

    yield make
    for client in made:
        end(client)


@pytest.fixture
def tiny(quiet: Settle, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    """Make a tracker whose segments are soon full."""
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MIN", TINY)
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MAX", TINY)
    tracker = Tracker(quiet)
    tracker.track("first")
    return tracker


def first_use(fresh: Callable[[], Tracker], every: int) -> Iterator[tuple[Tracker, int]]:
    """Make a tracker for each point, or every so many-th, of the `track()` that opens the journal."""
    probe = fresh()
    for at in range(1, points(lambda: probe.track("probe")) + 1, every):
        yield fresh(), at


def segment_change(tracker: Tracker, every: int) -> Iterator[int]:
    """Stand before each point, or every so many-th, of a `track()` that changes segments.

    What was before is committed each time: the longer the chain of segments, the more points.
    """

    def prepare() -> None:
        tracker.fill()
        tracker.commit()

    prepare()
    for at in range(1, points(lambda: tracker.track("probe")) + 1, every):
        prepare()
        yield at
    tracker.commit()


def test_exceptions_at_first_use(fresh: Callable[[], Tracker]) -> None:
    """Rule J2: what a handler raises reaches the caller, and the event is journaled once or not at all."""
    for tracker, at in first_use(fresh, every=2):
        error = ERRORS[at % len(ERRORS)]("of the handler")
        with pytest.raises(type(error)) as caught:
            interrupt(partial(tracker.track, "interrupted"), at, raiser(error))
        assert caught.value is error, at
        tracker.track("after")
        assert tracker.users() in (["after"], ["interrupted", "after"]), at
        assert not tracker.journal.is_volatile


def raiser(error: Exception) -> Callable[[], None]:
    """Make a handler that raises."""

    def handler() -> None:
        raise error

    return handler


def test_exceptions_at_a_segment_change(tiny: Tracker) -> None:
    """Rule J2: the interrupted event is in the journal or not; every other one is there once."""
    interrupted = set()
    for at in segment_change(tiny, every=1):
        error = ERRORS[at % len(ERRORS)]("of the handler")
        with pytest.raises(type(error)) as caught:
            interrupt(partial(tiny.track, f"interrupted-{at}"), at, raiser(error))
        assert caught.value is error, at
        interrupted.add(f"interrupted-{at}")
    found = collections.Counter(tiny.committed)
    extra = found - collections.Counter(tiny.returned)
    assert collections.Counter(tiny.returned) - found == collections.Counter()
    assert set(extra) <= interrupted


def test_calls_within_the_first_call(fresh: Callable[[], Tracker]) -> None:
    """Rule J6: a handler that tracks while the journal is being opened: one journal, each event once."""
    for tracker, at in first_use(fresh, every=3):
        interrupt(
            partial(tracker.track, "outer"),
            at,
            partial(tracker.track_many, "inner", 3),
        )
        tracker.track("after")
        assert sorted(tracker.users()) == sorted(tracker.returned), at
        assert [path.name for path in folder_of(tracker.journal).parent.iterdir()] == [
            folder_of(tracker.journal).name
        ]


def test_calls_within_a_segment_change(tiny: Tracker) -> None:
    """Rule J6: a handler that changes segments three times itself, in the midst of a change."""
    for at in segment_change(tiny, every=2):
        interrupt(
            partial(tiny.track, f"outer-{at}"),
            at,
            partial(tiny.track_many, f"inner-{at}", 150),
        )
    assert sorted(tiny.committed) == sorted(tiny.returned)


def test_segments_that_come_and_go_within_a_change(tiny: Tracker) -> None:
    """Rule J6: a change that is interrupted while its successor is made, filled, committed and freed.

    The late one must not be taken for a new segment: what is written there stands before the committed
    position, where nobody looks.
    """

    def handler(at: int) -> None:
        tiny.track_many(f"inner-{at}", 150)
        tiny.commit()
        tiny.track_many(f"later-{at}", 2)

    for at in segment_change(tiny, every=2):
        interrupt(
            partial(tiny.track, f"outer-{at}"),
            at,
            partial(handler, at),
        )
    assert sorted(tiny.committed) == sorted(tiny.returned)


def fork_at(tracker: Tracker, at: int, *, is_child_first: bool) -> dict[str, list[str]]:
    """Fork in a handler at a point; one goes on to the end and tracks one more, then the other does.

    The call that both return from is the parent's alone if it had appended before the fork, and the child's
    own otherwise.

    Returns whose events are in the child's journal, by its name.
    """
    forked: list[children.Child | None] = []
    has_appended: list[bool] = []
    results: list[dict[str, list[str]]] = []
    turn_in, turn_out = os.pipe()
    appended_before = tracker.appended_count()

    def handler() -> None:
        has_appended.append(tracker.appended_count() > appended_before)
        forked.append(children.split())
        child = forked[0]
        if child is None and not is_child_first:
            os.read(turn_in, 1)
        if child is not None and is_child_first:
            results.append(child.result())

    interrupt(lambda: tracker.track("both"), at, handler)
    (child,) = forked
    if child is None:
        children.answer(go_on_as_child, tracker)
    tracker.track("parent")
    os.write(turn_out, b"!")
    if not results:
        results.append(child.result())
    os.close(turn_in)
    os.close(turn_out)
    (users,) = results[0].values()
    assert users == (["child"] if has_appended[0] else ["both", "child"]), at
    return results[0]


def go_on_as_child(tracker: Tracker) -> dict[str, list[str]]:
    """Track one more in the child, and say what it journaled and where."""
    tracker.track("child")
    assert not tracker.journal.is_volatile
    return {folder_of(tracker.journal).name: tracker.users()}


@pytest.mark.parametrize("is_child_first", [True, False])
def test_forks_within_the_first_call(fresh: Callable[[], Tracker], *, is_child_first: bool) -> None:
    """Rule J4: a child forked while the journal is being opened never works on its parent's folder."""
    for tracker, at in first_use(fresh, every=6):
        (name,) = fork_at(tracker, at, is_child_first=is_child_first)
        assert name != folder_of(tracker.journal).name, at
        assert tracker.users() == ["both", "parent"], at


@pytest.mark.parametrize("is_child_first", [True, False])
def test_forks_within_a_call(quiet: Settle, *, is_child_first: bool) -> None:
    """Rule J4: a child that was about to append has what it appends with closed under its hands."""
    tracker = Tracker(quiet)
    tracker.track("first")
    for at in range(1, points(partial(tracker.track, "probe")) + 1):
        fork_at(tracker, at, is_child_first=is_child_first)
    assert tracker.users() == tracker.returned


@pytest.mark.parametrize("is_child_first", [True, False])
def test_forks_within_a_segment_change(tiny: Tracker, *, is_child_first: bool) -> None:
    """Rule J4: a child forked in the midst of a change writes nothing into its parent's pages."""
    for at in segment_change(tiny, every=3):
        (name,) = fork_at(tiny, at, is_child_first=is_child_first)
        assert name != folder_of(tiny.journal).name, at
    assert sorted(tiny.committed) == sorted(tiny.returned)


def test_a_child_that_stays_in_the_handler_holds_no_lock(
    fresh: Callable[[], Tracker], state_dir: Path
) -> None:
    """Rule J4: wherever the fork came from, the parent's lock is free as soon as the parent lets go of it."""
    held: list[str] = []
    for tracker, at in first_use(fresh, every=5):
        held.clear()
        interrupt(
            partial(tracker.track, "parent"),
            at,
            lambda: held.extend(children.run(reading.held_locks, state_dir)),
        )
        assert held == [], at
