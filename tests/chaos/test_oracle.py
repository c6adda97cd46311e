"""The oracle can see: each way of being wrong is found in a bill that was right before."""

from __future__ import annotations

import sqlite3
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.chaos import oracle, tally, traffic
from tests.chaos.oracle import Bill, Life
from tests.chaos.traffic import Stream

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 200
STREAMS = [Stream(life, thread, slot=life % 2) for life in range(3) for thread in range(4)]


def lives(*, is_killed: bool = False) -> list[Life]:
    """Twelve threads that tracked as much each."""
    return [Life(stream, COUNT, is_killed) for stream in STREAMS]


def bill(*extra: traffic.Event, without: tuple[traffic.Event, ...] = ()) -> Bill:
    """The right bill, and what is wrong with it."""
    made: Bill = {}
    missing = list(without)
    for stream in STREAMS:
        for n in range(COUNT):
            each = traffic.event(stream, n)
            if each in missing:
                missing.remove(each)
            else:
                oracle._add(made, *oracle._tracked(each))
    for each in extra:
        oracle._add(made, *oracle._tracked(each))
    assert not missing
    return made


def of_kind(kind: str, at: int = 0) -> traffic.Event:
    """Some event of a kind, tracked by the second stream."""
    events = [traffic.event(STREAMS[1], n) for n in range(COUNT)]
    return [each for each in events if each.event_type == kind][at]


def test_a_right_bill_is_right() -> None:
    """Nothing is found where nothing is wrong."""
    verdict = oracle.judge(lives(), bill())
    assert (verdict.tracked, verdict.lost, verdict.twice, verdict.complaints) == (COUNT * 12, 0, 0, [])


def test_what_else_is_wrong_is_told_however_many_keys_differ() -> None:
    """A fault that destroys events has many such keys, and is judged by the other complaints."""
    verdict = oracle.judge(lives(), {})
    assert len(verdict.complaints) == oracle.DIFFERENCES_MAX
    verdict.complain("the ledger was believed")
    assert verdict.complaints[-1] == "the ledger was believed"


@pytest.mark.parametrize("kind", sorted(traffic.SUMMED))
def test_one_event_too_few_or_too_many_is_seen(kind: str) -> None:
    """Whichever way it is folded."""
    each = of_kind(kind)
    lost = oracle.judge(lives(), bill(without=(each,)))
    assert (lost.lost, lost.twice, len(lost.complaints)) == (1, 0, 1)
    twice = oracle.judge(lives(), bill(each))
    assert (twice.lost, twice.twice, len(twice.complaints)) == (0, 1, 1)


@pytest.mark.parametrize("kind", [traffic.EACH, traffic.FOLD, traffic.SHARED])
def test_one_in_the_place_of_another_is_seen(kind: str) -> None:
    """The count is right, and the set is not."""
    one = of_kind(kind)
    same_key = [of_kind(kind, at) for at in range(1, 3) if kind == traffic.EACH] or [
        each
        for each in (of_kind(kind, at) for at in range(1, 9))
        if oracle._tracked(each)[0] == oracle._tracked(one)[0]
    ]
    verdict = oracle.judge(lives(), bill(same_key[0], without=(one,)))
    assert verdict.lost >= 1
    assert verdict.twice >= 1


def test_two_pairs_with_the_same_sum_are_told_apart() -> None:
    """Numbers 1 and 4 in the place of 2 and 3 have their count and their sum, and not their squares."""
    assert 1 + 4 == 2 + 3
    amounts = [(Decimal(2), Decimal(a + b), Decimal(a * a + b * b)) for a, b in ((1, 4), (2, 3))]
    assert amounts[0][:2] == amounts[1][:2]
    assert amounts[0] != amounts[1]


def test_what_was_never_tracked_is_seen() -> None:
    """By user, by type, by metadata."""
    strangers = [
        traffic.Event("somebody", traffic.PLAIN, 1, None),
        traffic.Event(STREAMS[0].user_id, "CHAOS_OTHER", 1, None),
        traffic.Event(STREAMS[0].user_id, traffic.FOLD, 1, {"model": "z", "n": 1, "square": 1}),
    ]
    for each in strangers:
        assert oracle.judge(lives(), bill(each)).twice == 1


@pytest.mark.parametrize("count", range(COUNT, COUNT + 64))
def test_a_killed_thread_may_have_one_more(count: int) -> None:
    """The very next one, whatever its kind; of a thread that ended in good order it is one too many."""
    streams = [Life(stream, count if stream is STREAMS[1] else 0, is_killed=True) for stream in STREAMS]
    made: Bill = {}
    for n in range(count + 1):
        oracle._add(made, *oracle._tracked(traffic.event(STREAMS[1], n)))
    killed = oracle.judge(streams, made)
    assert (killed.lost, killed.twice, killed.complaints, killed.allowed) == (0, 0, [], 1)
    assert oracle.judge([each._replace(is_killed=False) for each in streams], made).twice == 1


def test_a_killed_thread_may_not_have_another() -> None:
    """Neither one after the next, nor one twice."""
    beyond = traffic.event(STREAMS[1], COUNT + 1)
    assert oracle.judge(lives(is_killed=True), bill(beyond)).twice == 1
    assert oracle.judge(lives(is_killed=True), bill(of_kind(traffic.SHARED))).twice == 1
    assert oracle.judge(lives(is_killed=True), bill(without=(of_kind(traffic.SHARED),))).lost == 1


def test_a_key_with_two_bodies_is_seen() -> None:
    """A repeat of the same is none."""
    assert oracle.two_bodies([("a", "1"), ("b", "1"), ("a", "1"), ("b", "2")]) == ["b"]


def test_a_bill_is_read_from_the_upstreams_own_file(tmp_path: Path) -> None:
    """Row by row, with exact decimals, sums apart from what tells events apart."""
    database = tmp_path / "sandbox.db"
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE requests (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")
    body = """{"events": [
      {"userId": "u", "eventType": "CHAOS_FOLD", "quantity": 0.1,
       "metadata": {"model": "a", "n": 1, "square": 1}},
      {"userId": "u", "eventType": "CHAOS_FOLD", "quantity": 0.2,
       "metadata": {"square": 8, "n": 4, "model": "a", "settle_mp": {"count": 2}}}]}"""
    connection.execute("INSERT INTO requests (body) VALUES (?)", (body.encode(),))
    connection.commit()
    connection.close()
    key = oracle.Key("u", "CHAOS_FOLD", '{"model": "a"}')
    assert oracle.read_bill(database) == {key: (Decimal(3), Decimal("0.3"), Decimal(5), Decimal(9))}


def test_counts_survive_in_the_file(tmp_path: Path) -> None:
    """What one process stores another one sees."""
    one, other = tally.Tally(tmp_path / "tally"), tally.Tally(tmp_path / "tally")
    one.returned[7] = 2**40
    one.stop(3)
    assert (other.returned[7], other.returned[6], other.is_stopped(3), other.is_stopped(2)) == (
        2**40,
        0,
        True,
        False,
    )
    one.close()
    other.close()
