"""Events are recorded as they were tracked, whichever client and process they come from; no more happens."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import AsyncSettle, Settle
from settle_mp.testing import Event, record_events
from tests.worker.conftest import client, end, make_client, quiet
from tests.worker.reading import events, only_journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.testing import RecordedEvents

__all__ = ["client", "make_client", "quiet"]


@pytest.fixture
def settle(tmp_path: Path) -> Iterator[Settle]:
    """Make a client whose state folder may not be made."""
    settle = Settle(state_dir=tmp_path / "untouched")
    yield settle
    end(settle)
    assert list(tmp_path.iterdir()) == []


def in_child(work: Callable[[], object]) -> None:
    """Run something in a forked child, which ends as a killed one does, and wait for it."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# --- What is recorded ---


def test_what_was_tracked_can_be_read(settle: Settle, settle_events: RecordedEvents) -> None:
    """In order, each with its four fields, exact; nothing of it before, and nothing afterwards."""
    assert list(settle_events) == []
    settle.events.track("ada", "AI_QUERY")
    settle.events.track("bob", "VIDEO_MINUTE", quantity=0.1, metadata={"size": (3, 4)})
    settle.events.track("bob", "VIDEO_MINUTE", quantity=Decimal("0.2"))
    assert list(settle_events) == [
        Event("ada", "AI_QUERY", 1, None),
        Event("bob", "VIDEO_MINUTE", Decimal("0.1"), {"size": [3, 4]}),
        Event("bob", "VIDEO_MINUTE", Decimal("0.2"), None),
    ]
    assert (len(settle_events), settle_events[-1].user_id) == (3, "bob")
    assert settle_events[:1] == [("ada", "AI_QUERY", 1, None)]


def test_every_client_is_meant(settle: Settle, tmp_path: Path, settle_events: RecordedEvents) -> None:
    """Made before or after, sync or async, disabled or of another state folder; one order for all of them."""
    track = settle.events.track
    later = AsyncSettle(state_dir=tmp_path / "untouched_too")
    disabled = Settle(disabled=True)
    track("u", "FIRST")
    later.events.track("u", "SECOND")
    disabled.events.track("u", "THIRD")
    track("u", "FOURTH")
    assert [each.event_type for each in settle_events] == ["FIRST", "SECOND", "THIRD", "FOURTH"]
    end(later._client)


def test_a_forked_child_is_recorded(settle: Settle, settle_events: RecordedEvents) -> None:
    """Also its own children, although they end without any good-bye."""

    def work() -> None:
        settle.events.track("u", "CHILD", metadata={"from": 1})
        in_child(lambda: settle.events.track("u", "GRANDCHILD"))

    settle.events.track("u", "PARENT")
    in_child(work)
    settle.events.track("u", "PARENT")
    assert settle_events.totals() == {"PARENT": 2, "CHILD": 1, "GRANDCHILD": 1}
    assert settle_events.where(metadata={"from": 1})[0].event_type == "CHILD"
    assert settle.events.pending_count == 2


def test_many_threads_and_children_at_once(settle: Settle, settle_events: RecordedEvents) -> None:
    """No record is torn or lost, and each one's events keep their order."""

    def track(name: str) -> None:
        for number in range(300):
            settle.events.track(name, "CALL", metadata={"number": number, "filling": "x" * number})

    def work() -> None:
        threads = [threading.Thread(target=track, args=[f"{os.getpid()}.{index}"]) for index in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()

    pids = []
    for _ in range(3):
        pids.append(os.fork())
        if pids[-1] == 0:
            try:
                work()
            finally:
                os._exit(0)
    work()
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    numbers: dict[str, list[int]] = {}
    for event in settle_events:
        numbers.setdefault(event.user_id, []).append((event.metadata or {})["number"])
    assert len(numbers) == 12
    assert all(each == list(range(300)) for each in numbers.values())


@pytest.mark.parametrize(
    "bad", [("", "CALL"), ("u", ""), ("u", "CALL", -1), ("u", "CALL", 1, {"a": object()})]
)
@pytest.mark.parametrize("is_disabled", [False, True])
def test_arguments_are_checked_as_always(
    tmp_path: Path, settle_events: RecordedEvents, bad: tuple[Any, ...], *, is_disabled: bool
) -> None:
    """A test that passes here does not fail in production."""
    settle = Settle(state_dir=tmp_path, disabled=is_disabled)
    with pytest.raises((TypeError, ValueError)):
        settle.events.track(*bad)
    assert list(settle_events) == []
    end(settle)


def test_what_was_only_counted_is_counted(
    tmp_path: Path, settle_events: RecordedEvents, caplog: pytest.LogCaptureFixture
) -> None:
    """With `on_invalid = "count"` the first flush that meets it is falsy, as it would be."""
    settle = Settle(state_dir=tmp_path, on_invalid="count")
    with caplog.at_level(logging.CRITICAL, "settle_mp"):
        settle.events.track("", "CALL")
    settle.events.track("u", "CALL")
    assert (len(settle_events), settle_events.dropped_count) == (1, 1)
    report = settle.events.flush()
    assert (bool(report), report.confirmed_count, report.unconfirmed_count) == (False, 1, 1)
    assert report.reason == "1 events were dropped"
    assert settle.events.flush()
    end(settle)


# --- What the rest of the client does meanwhile ---


def test_a_flush_confirms_what_this_process_tracked(settle: Settle, settle_events: RecordedEvents) -> None:
    """Pending until then, confirmed once, and without any waiting."""
    settle.events.track("u", "CALL")
    settle.events.track("u", "CALL")
    in_child(lambda: settle.events.track("u", "CALL"))
    assert settle.events.pending_count == 2
    report = settle.events.flush(timeout=0)
    assert (bool(report), report.confirmed_count) == (True, 2)
    assert settle.events.pending_count == 0
    assert settle.events.flush().confirmed_count == 0
    settle.events.track("u", "CALL")
    assert settle.events.pending_count == 1
    settle.close()
    settle.events.track("u", "CALL")
    assert len(settle_events) == 5


def test_the_summary_is_of_what_was_recorded(
    settle: Settle, settle_events: RecordedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No key is needed and nobody is asked; the same for asyncio, flush included."""
    monkeypatch.setenv("SETTLESETTLE_BASE_URL", "http://127.0.0.1:1")
    settle.events.track("ü/1", "CALL", quantity=1.5)
    settle.events.track("ü/1", "CALL", quantity=2)
    settle.events.track("u2", "CALL")

    async def ask() -> tuple[Any, Any]:
        async with AsyncSettle() as client:
            return await client.events.get_summary("ü/1"), await client.events.flush()

    summary, report = asyncio.run(ask())
    assert settle.events.get_summary("ü/1") == summary
    (total,) = summary.totals
    assert (total.event_type, total.total_quantity, total.count) == ("CALL", Decimal("3.5"), 2)
    assert settle.events.get_summary("nobody").totals == ()
    assert report.confirmed_count == 3
    assert len(settle_events) == 3


def test_the_real_journal_goes_on_afterwards(client: Settle, state_dir: Path) -> None:
    """What was tracked before and after is journaled, what was recorded is not, and the courier wakes up."""
    client.events.track("u", "BEFORE")
    producer = client.events._producer
    courier = producer._lives[producer._forks_count].courier
    assert courier is not None
    with record_events() as recorded:
        client.events.track("u", "DURING")
        producer.asleep.append(True)  # as its courier does when it goes to sleep
        client.events.track("u", "DURING")
        assert len(recorded) == 2
        assert producer.asleep == []
        producer.asleep.append(True)
    assert producer.asleep == []
    client.events.track("u", "AFTER")
    assert [each.event_type for each in events(only_journal(state_dir))] == ["BEFORE", "AFTER"]


def test_a_child_lets_go_of_its_parents_journal(quiet: Settle, state_dir: Path) -> None:
    """Recording or not, the lock is the parent's alone (rule J4)."""
    quiet.events.track("u", "BEFORE")
    with record_events() as recorded:

        def work() -> None:
            assert quiet.events._producer._lives == {}
            quiet.events.track("u", "CHILD")

        in_child(work)
        assert [each.event_type for each in recorded] == ["CHILD"]
    assert [each.event_type for each in events(only_journal(state_dir))] == ["BEFORE"]


def test_recordings_may_be_nested(settle: Settle, settle_events: RecordedEvents) -> None:
    """The inner one records while it lasts."""
    settle.events.track("u", "OUTER")
    with record_events() as inner:
        settle.events.track("u", "INNER")
        assert settle.events.get_summary("u").totals[0].event_type == "INNER"
    settle.events.track("u", "OUTER")
    assert settle_events.totals() == {"OUTER": 2}
    with pytest.raises(ValueError, match="closed"):
        inner.clear()


# --- Looking and claiming ---


def test_events_are_found_by_what_they_have(settle: Settle, settle_events: RecordedEvents) -> None:
    """Each field by itself and together; pairs of metadata among others."""
    settle.events.track("ada", "AI_QUERY", metadata={"model": "a", "tokens": 7})
    settle.events.track("ada", "PDF_PAGE", quantity=3)
    settle.events.track("bob", "AI_QUERY", quantity=1.5, metadata={"model": "b"})
    assert len(settle_events.where()) == 3
    assert [each.event_type for each in settle_events.where("ada")] == ["AI_QUERY", "PDF_PAGE"]
    assert [each.user_id for each in settle_events.where(event_type="AI_QUERY")] == ["ada", "bob"]
    assert settle_events.where(quantity=1.5) == settle_events.where(metadata={"model": "b"})
    assert settle_events.where("ada", metadata={"model": "b"}) == []
    assert settle_events.where(metadata={"model": "a", "tokens": 8}) == []
    assert settle_events.total() == Decimal("5.5")
    assert type(settle_events.total("ada")) is int
    assert settle_events.total("ada", "PDF_PAGE") == 3
    assert settle_events.total(metadata={"model": "a"}) == 1
    assert settle_events.totals("ada") == {"AI_QUERY": 1, "PDF_PAGE": 3}
    assert settle_events.totals("nobody") == {}


def test_sums_are_exact(settle: Settle, settle_events: RecordedEvents) -> None:
    """0.1 ten times is 1."""
    for _ in range(10):
        settle.events.track("u", "VIDEO_MINUTE", quantity=0.1)
    assert settle_events.total() == 1


def test_a_claim_that_holds_gives_the_events(settle: Settle, settle_events: RecordedEvents) -> None:
    """Once or more, or so many times."""
    settle_events.assert_not_tracked()
    settle.events.track("ada", "AI_QUERY", metadata={"model": "a"})
    settle.events.track("ada", "AI_QUERY")
    assert len(settle_events.assert_tracked("ada", "AI_QUERY")) == 2
    (event,) = settle_events.assert_tracked("ada", metadata={"model": "a"}, times=1)
    assert event.metadata == {"model": "a"}
    settle_events.assert_tracked("ada", quantity=1, times=2)
    settle_events.assert_not_tracked("bob")
    settle_events.assert_not_tracked(quantity=2)


def test_a_claim_that_fails_says_what_was_tracked(settle: Settle, settle_events: RecordedEvents) -> None:
    """The claim as a call, and the events likewise."""
    settle.events.track("ada", "AI_QUERY", quantity=2)
    with pytest.raises(AssertionError) as failed:
        settle_events.assert_tracked("ada", "PDF_PAGE", metadata={"a": 1})
    assert str(failed.value) == (
        "track('ada', 'PDF_PAGE', metadata={'a': 1}) should have been tracked at least once, not 0 times; "
        "recorded: 1 events\n  track('ada', 'AI_QUERY', quantity=2)"
    )
    with pytest.raises(AssertionError, match=r"track\('ada'\) should have been tracked 2 times, not 1 times"):
        settle_events.assert_tracked("ada", times=2)
    with pytest.raises(AssertionError, match=r"track\(event_type='AI_QUERY'\) should .* 0 times, not 1"):
        settle_events.assert_not_tracked(event_type="AI_QUERY")
    for _ in range(30):
        settle.events.track("ada", "AI_QUERY")
    assert str(settle_events).endswith("\n  and 11 more")


def test_what_comes_later_can_be_waited_for(settle: Settle, settle_events: RecordedEvents) -> None:
    """From a thread, with a deadline that says what did come."""
    go_on = threading.Event()

    def work() -> None:
        go_on.wait()
        settle.events.track("u", "CALL")

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(
        AssertionError, match=r"1 events should have been tracked within 0\.01 s; recorded: 0"
    ):
        settle_events.wait(1, timeout=0.01)
    go_on.set()
    assert settle_events.wait(1, timeout=20)[0].event_type == "CALL"
    thread.join()


def test_a_record_can_be_cleared(settle: Settle, settle_events: RecordedEvents) -> None:
    """What was before is not pending either."""
    settle.events.track("u", "BEFORE")
    settle_events.clear()
    assert (len(settle_events), settle.events.pending_count) == (0, 0)
    settle.events.track("u", "AFTER")
    assert settle_events.totals() == {"AFTER": 1}
    assert settle.events.flush().confirmed_count == 1
