"""Hours: each stretch of the journal keeps the hour that it was tracked in, however late it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from settle_mp.core.event import pack_event
from settle_mp.core.record import Identity, mark_s, read_records, segment_seed
from settle_mp.core.window import HOUR_S, hour_of
from settle_mp.worker.hours import HourMarks
from settle_mp.worker.journal import CLOSED, Journal

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The begin of an hour of the year 2026.
TEN_S = 1_790_000_000 // HOUR_S * HOUR_S
ELEVEN_S = TEN_S + HOUR_S
FAR = 2**62


@pytest.fixture
def journal() -> Iterator[Journal]:
    """Make a journal in memory."""
    identity = Identity(producer=b"", key_mode="test", name="", host="", born_s=0.0, facts={})
    journal = Journal.in_memory([CLOSED], identity=identity)
    yield journal
    journal.close()


def track(journal: Journal) -> int:
    """Append an event; returns where it ends."""
    journal.append(pack_event("user", "CALL", 1, None))
    return journal.tail


def marks_after(journal: Journal, position: int) -> list[float]:
    """Read the time marks that the journal has from a position on."""
    base, body = journal.read(position, FAR)
    payloads, _ = read_records(body, segment_seed(journal.producer, base), position - base)
    return [at_s for at_s in map(mark_s, payloads) if at_s is not None]


def test_within_an_hour_nothing_is_cut(journal: Journal) -> None:
    """One stretch, as of now, and no mark in the journal."""
    hours = HourMarks()
    begin = end = journal.tail
    for now_s in (TEN_S, TEN_S + 0.1, ELEVEN_S - 0.1):
        hours.look(now_s, journal)
        end = track(journal)
    assert hours.next_end(begin) > FAR
    assert hours.time_of(begin) == hours.time_of(end) == ELEVEN_S - 0.1
    assert marks_after(journal, begin) == []


def test_a_new_hour_ends_the_stretch_where_the_journal_stands(journal: Journal) -> None:
    """What came up to the hour's begin is the old hour's, what comes then the new one's."""
    hours = HourMarks()
    hours.look(ELEVEN_S - 1, journal)
    begin = journal.tail
    end = track(journal)
    hours.look(ELEVEN_S, journal)
    later = track(journal)
    assert hours.next_end(begin) == end
    assert hour_of(hours.time_of(begin)) == hour_of(hours.time_of(end - 1)) == hour_of(TEN_S)
    assert hours.next_end(end) > FAR
    assert hour_of(hours.time_of(end)) == hour_of(hours.time_of(later)) == hour_of(ELEVEN_S)


def test_a_new_hour_is_noted_in_the_journal(journal: Journal) -> None:
    """What the collector adopts is told apart by the mark, which stands before the new hour's events."""
    hours = HourMarks()
    hours.look(ELEVEN_S - 1, journal)
    end = track(journal)
    hours.look(ELEVEN_S + 0.2, journal)
    track(journal)
    assert marks_after(journal, end) == [ELEVEN_S + 0.2]
    base, body = journal.read(end, FAR)
    payloads, _ = read_records(body, segment_seed(journal.producer, base), end - base)
    assert [mark_s(payload) is None for payload in payloads] == [False, True]


def test_what_came_while_the_courier_slept_is_the_new_hours(journal: Journal) -> None:
    """One that is woken long after the hour's begin cuts where it last looked: whatever came woke it."""
    hours = HourMarks()
    end = track(journal)
    hours.look(ELEVEN_S - 100, journal)
    track(journal)
    hours.look(ELEVEN_S + 100, journal)
    assert hours.next_end(end - 1) == end
    assert hour_of(hours.time_of(end)) == hour_of(ELEVEN_S)


def test_several_hours_wait_for_the_collector(journal: Journal) -> None:
    """Away for hours, and each stretch still has its own; what is committed is forgotten."""
    hours = HourMarks()
    ends = []
    for hour in range(4):
        hours.look(TEN_S + hour * HOUR_S, journal)
        ends.append(track(journal))
    begins = [0, *ends]
    for hour in range(3):
        assert hours.next_end(begins[hour]) == ends[hour]
        assert hour_of(hours.time_of(begins[hour])) == hour_of(TEN_S + hour * HOUR_S)
    hours.forget(ends[1] - 1)
    assert hours.next_end(ends[0]) == ends[1]
    hours.forget(ends[1])
    assert hours.next_end(ends[1]) == ends[2]
    assert [end for end, _ in hours._ends] == [ends[2]]
    hours.forget(FAR)
    assert hours.next_end(0) > FAR


def test_a_clock_that_is_set_back_begins_a_stretch_too(journal: Journal) -> None:
    """Other hour, other window, in either direction: a frame never has two."""
    hours = HourMarks()
    hours.look(ELEVEN_S + 10, journal)
    end = journal.tail
    track(journal)
    hours.look(ELEVEN_S - 10, journal)
    assert hours.next_end(end - 1) == end
    assert hour_of(hours.time_of(end - 1)) == hour_of(ELEVEN_S)
    assert hour_of(hours.time_of(end)) == hour_of(TEN_S)


def test_the_first_look_cuts_nothing(journal: Journal) -> None:
    """There is no old hour yet."""
    track(journal)
    hours = HourMarks()
    hours.look(ELEVEN_S, journal)
    assert hours.next_end(0) > FAR


@pytest.mark.parametrize(("now_s", "left_s"), [(TEN_S, HOUR_S), (ELEVEN_S - 1, 1), (ELEVEN_S - 0.5, 0.5)])
def test_how_long_an_hour_lasts(now_s: float, left_s: float) -> None:
    """A courier that sleeps gets up in time for the next one."""
    assert HourMarks.left_s(now_s) == left_s


def test_an_hour_that_is_noted_where_nothing_came_cuts_nothing_twice(journal: Journal) -> None:
    """Idle over many hours: no stretch is kept once all is committed, so nothing grows."""
    hours = HourMarks()
    for hour in range(100):
        hours.look(TEN_S + hour * HOUR_S, journal)
        hours.forget(journal.tail)
    assert len(hours._ends) == 0
