"""`track()` interrupted at each point where a signal handler may run, by all that a handler may do."""

from __future__ import annotations

import collections
import itertools
from typing import TYPE_CHECKING

import pytest

from settle_mp import Settle
from settle_mp.core.event import unpack_event
from settle_mp.core.record import mark_s
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

    def users(self) -> list[str]:
        """Whose events are in this process's journal."""
        return names(reading.users(folder_of(self.journal)))


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
    """Stand before each point, or every so many-th, of a `track()` that changes segments."""
    tracker.fill()
    for at in range(1, points(lambda: tracker.track("probe")) + 1, every):
        tracker.fill()
        yield at


def test_exceptions_at_first_use(fresh: Callable[[], Tracker]) -> None:
    """Rule J2: whatever a handler raises reaches the caller, and the event is journaled once or not at all."""
    for tracker, at in first_use(fresh, every=1):
        error = ERRORS[at % len(ERRORS)]("of the handler")
        track = tracker.track
        with pytest.raises(type(error)) as caught:
            interrupt(lambda track=track: track("interrupted"), at, raiser(error))  # type: ignore[misc]
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
            interrupt(lambda at=at: tiny.track(f"interrupted-{at}"), at, raiser(error))  # type: ignore[misc]
        assert caught.value is error, at
        interrupted.add(f"interrupted-{at}")
    found = collections.Counter(tiny.users())
    extra = found - collections.Counter(tiny.returned)
    assert collections.Counter(tiny.returned) - found == collections.Counter()
    assert set(extra) <= interrupted


def test_calls_within_the_first_call(fresh: Callable[[], Tracker]) -> None:
    """Rule J6: a handler that tracks while the journal is being opened: one journal, each event once."""
    for tracker, at in first_use(fresh, every=3):
        interrupt(
            lambda tracker=tracker: tracker.track("outer"),  # type: ignore[misc]
            at,
            lambda tracker=tracker: tracker.track_many("inner", 3),  # type: ignore[misc]
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
            lambda at=at: tiny.track(f"outer-{at}"),  # type: ignore[misc]
            at,
            lambda at=at: tiny.track_many(f"inner-{at}", 150),  # type: ignore[misc]
        )
    assert sorted(tiny.users()) == sorted(tiny.returned)


def test_segments_that_come_and_go_within_a_change(tiny: Tracker) -> None:
    """Rule J6: a change that is interrupted while its successor is made, filled, committed and freed.

    The late one must not be taken for a new segment: what is written there stands before the committed
    position, where nobody looks.
    """
    taken: list[str] = []

    def commit() -> None:
        taken.extend(committed(tiny.journal))

    def handler(at: int) -> None:
        tiny.track_many(f"inner-{at}", 150)
        commit()
        tiny.track_many(f"later-{at}", 2)

    for at in segment_change(tiny, every=2):
        interrupt(
            lambda at=at: tiny.track(f"outer-{at}"),  # type: ignore[misc]
            at,
            lambda at=at: handler(at),  # type: ignore[misc]
        )
    commit()
    assert sorted(taken) == sorted(tiny.returned)


def committed(journal: Journal) -> list[str]:
    """Take what is not committed, as frames would carry it, and commit it; returns whose events it was."""
    position, end = journal.committed, journal.tail
    users: list[str] = []
    for segment in reading.segments(folder_of(journal)):
        at = segment.base
        for payload in segment.payloads:
            if position <= at < end and mark_s(payload) is None:
                users.append(unpack_event(payload).user_id)
            at += 10 + len(payload)
    assert journal.commit(LEDGER, end)
    return names(users)


def fork_at(tracker: Tracker, at: int) -> tuple[dict[str, list[str]], children.Child]:
    """Fork in a handler at a point; both go on with the call and track one more.

    Returns whose events are in the child's journal, by its name, and the child.
    """
    forked: list[children.Child | None] = []
    interrupt(lambda: tracker.track("both"), at, lambda: forked.append(children.split()))
    (child,) = forked
    if child is None:
        children.answer(go_on_as_child, tracker)
    assert child is not None
    tracker.track("parent")
    return child.result(), child


def go_on_as_child(tracker: Tracker) -> dict[str, list[str]]:
    """Track one more in the child, and say what it journaled and where."""
    tracker.track("child")
    assert not tracker.journal.is_volatile
    return {folder_of(tracker.journal).name: tracker.users()}


def test_forks_within_the_first_call(fresh: Callable[[], Tracker]) -> None:
    """Rule J4: a child forked while the journal is being opened never works on its parent's folder."""
    for tracker, at in first_use(fresh, every=4):
        found, _ = fork_at(tracker, at)
        ((name, users),) = found.items()
        assert name != folder_of(tracker.journal).name, at
        # The call that both return from is the parent's alone if it had appended before the fork.
        assert users in (["both", "child"], ["child"]), at
        assert tracker.users() == ["both", "parent"], at


def test_forks_within_a_segment_change(tiny: Tracker) -> None:
    """Rule J4: a child forked in the midst of a change writes nothing into its parent's pages."""
    for at in segment_change(tiny, every=5):
        found, _ = fork_at(tiny, at)
        ((name, users),) = found.items()
        assert name != folder_of(tiny.journal).name, at
        assert users in (["both", "child"], ["child"]), at
    assert sorted(tiny.users()) == sorted(tiny.returned)


def test_a_child_that_stays_in_the_handler_holds_no_lock(fresh: Callable[[], Tracker]) -> None:
    """Rule J4: wherever the fork came from, the parent's lock is free as soon as the parent lets go of it."""
    for tracker, at in first_use(fresh, every=3):
        held: list[str] = []
        interrupt(
            lambda tracker=tracker: tracker.track("parent"),  # type: ignore[misc]
            at,
            lambda held=held: held.extend(children.run(reading.held_locks)),  # type: ignore[misc]
        )
        assert held == [], at
