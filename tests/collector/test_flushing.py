"""Workers' flushes at the collector: when they are answered, with what, and what is then forgotten."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from settle_mp.collector import flushing
from settle_mp.collector.flushing import ALL_COUNT
from settle_mp.collector.ledger import LedgerError
from settle_mp.core import wire
from settle_mp.core.ticket import Trouble
from settle_mp.sandbox.faults import Fault
from tests.collector.ledgers import FailingConnection, put_connection, real_connection
from tests.collectors import Bench, bench, make_journal, track
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.worker.journal import Journal
    from tests.upstreams import Upstream

__all__ = ["upstream"]

#: Longer than any of these tests may take.
LONG_S = 60.0


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir, upstream) as made:
        yield made
        made.parts.adoption.drop()


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    """The journal of a live worker, with two events."""
    made = make_journal(state_dir, "ada", "bob")
    yield made
    made.close()


def ask(made: Bench, journal: Journal, ticket: int = 1, timeout_s: float = LONG_S) -> list[wire.Flushed]:
    """Ask for a flush of all that a journal holds now, and give what is answered at once."""
    flush = wire.Flush(journal.producer, ticket, journal.tail, timeout_s)
    answers = made.parts.answer(journal.producer, flush)
    assert all(identity == journal.producer for identity, _ in answers)
    return [message for _, message in answers if isinstance(message, wire.Flushed)]


def answers(made: Bench) -> list[wire.Flushed]:
    """What flushes were answered since the last call."""
    found = [message for _, message in made.answers if isinstance(message, wire.Flushed)]
    made.answers.clear()
    return found


def take_in_live(made: Bench) -> None:
    """Read the live journals at once, as for a host-wide flush."""
    made.parts.adoption.is_urgent = True
    made.take_in()


def test_it_waits_for_events_that_are_not_read(parts: Bench, journal: Journal) -> None:
    """Rule J2: a flush waits for its position, committed, sealed and settled, and is answered then."""
    assert ask(parts, journal) == []
    assert (parts.parts.flushing.wants_commit, parts.parts.flushing.wants_seal) == (True, False)
    parts.send_out()
    assert answers(parts) == []
    take_in_live(parts)
    assert (parts.parts.flushing.wants_commit, parts.parts.flushing.wants_seal) == (False, True)
    parts.ship()
    assert (parts.parts.flushing.wants_commit, parts.parts.flushing.wants_seal) == (False, False)
    parts.send_out()
    assert answers(parts) == [wire.Flushed(1, 0, 0, 0, "")]
    assert parts.parts.flushing.left_s(0.0) == float("inf")


def test_at_its_deadline_all_are_unconfirmed_that_were_not_read(parts: Bench, journal: Journal) -> None:
    """Nobody here knows how many they are: the worker does."""
    ask(parts, journal, timeout_s=0.0)
    parts.send_out()
    (flushed,) = answers(parts)
    assert (flushed.unconfirmed_count, flushed.failed_count) == (ALL_COUNT, 0)
    assert flushed.reason == "the collector has not read it all yet"


def test_the_reason_that_nothing_is_taken_is_told(parts: Bench, journal: Journal) -> None:
    """While the ledger takes nothing in, the flush says why."""
    parts.parts.trouble = "the ledger is full"
    ask(parts, journal, timeout_s=0.0)
    parts.send_out()
    assert answers(parts)[0].reason == "the ledger is full"


def test_the_upstreams_trouble_is_told(parts: Bench, journal: Journal, upstream: Upstream) -> None:
    """At the deadline the events that are committed are counted, with what is wrong upstream."""
    take_in_live(parts)
    upstream.stop()
    ask(parts, journal, timeout_s=0.3)
    deadline_s = time.monotonic() + LONG_S
    while not parts.answers:
        parts.send_out()
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    (flushed,) = answers(parts)
    assert (flushed.unconfirmed_count, flushed.failed_count) == (2, 0)
    assert flushed.reason.startswith("the upstream is down")


def test_seals_of_an_earlier_life_are_waited_for(
    state_dir: Path, journal: Journal, upstream: Upstream
) -> None:
    """A seal's positions are in the ledger: a flush that outlives a restart waits for its old batches."""
    with bench(state_dir, upstream) as first:
        take_in_live(first)
        first.parts.shipping._seal(time.time())
        first.parts.adoption.drop()
    with bench(state_dir, upstream) as second:
        ask(second, journal)
        second.answers += second.parts.flushing.turn(time.monotonic())
        assert answers(second) == []
        second.ship()
        second.send_out()
        assert answers(second) == [wire.Flushed(1, 0, 0, 0, "")]


def trouble(made: Bench, journal: Journal) -> None:
    """Let an event of a journal have failed."""
    troubles = {journal.producer: Trouble(0, 1, "refused: mallory")}
    made.parts.state.ledger.put_troubles(troubles)
    made.parts.state.seals.troubles.update(troubles)


def test_a_failure_is_told_at_once_and_once(parts: Bench, journal: Journal) -> None:
    """One flush is told although others of its events still wait; the next one waits for those."""
    take_in_live(parts)
    trouble(parts, journal)
    ask(parts, journal, 1)
    ask(parts, journal, 2)
    parts.answers += parts.parts.flushing.turn(time.monotonic())
    (flushed,) = answers(parts)
    assert (flushed.ticket, flushed.failed_count, flushed.reason) == (1, 1, "refused: mallory")
    parts.ship()
    parts.send_out()
    assert answers(parts) == [wire.Flushed(2, 0, 0, 0, "")]
    assert parts.parts.state.ledger.troubles() == {}


def test_a_failure_of_later_events_is_not_told(parts: Bench, journal: Journal) -> None:
    """What failed behind a flush's position is for the next one."""
    take_in_live(parts)
    parts.ship()
    position = journal.tail
    track(journal, "cy")
    take_in_live(parts)
    troubles = {journal.producer: Trouble(position, 1, "refused")}
    parts.parts.state.seals.troubles.update(troubles)
    parts.parts.answer(journal.producer, wire.Flush(journal.producer, 1, position, LONG_S))
    parts.answers += parts.parts.flushing.turn(time.monotonic())
    assert answers(parts) == [wire.Flushed(1, 0, 0, 0, "")]
    assert parts.parts.state.seals.troubles == troubles


def test_a_failure_is_forgotten_only_after_it_was_sent(parts: Bench, journal: Journal) -> None:
    """A death between the two tells it twice, and never to nobody."""
    take_in_live(parts)
    parts.ship()
    trouble(parts, journal)
    ask(parts, journal)
    assert len(parts.parts.flushing.turn(time.monotonic())) == 1
    assert list(parts.parts.state.ledger.troubles()) == [journal.producer]
    parts.parts.flushing.sent()
    assert parts.parts.state.ledger.troubles() == {}


def test_an_error_while_forgetting_tells_it_again(parts: Bench, journal: Journal) -> None:
    """Rule L1: after an error of the ledger the failure is read again, and told by the next flush, too."""
    take_in_live(parts)
    parts.ship()
    trouble(parts, journal)
    ask(parts, journal)
    parts.parts.flushing.turn(time.monotonic())
    ledger = parts.parts.state.ledger
    real = real_connection(ledger)
    put_connection(ledger, FailingConnection(real, 2, is_after=False))
    with pytest.raises(LedgerError):
        parts.parts.flushing.sent()
    put_connection(ledger, real)
    parts.parts.reload()
    ask(parts, journal, 2)
    parts.send_out()
    assert [flushed.failed_count for flushed in answers(parts)] == [1]


def test_the_same_question_gets_the_same_answer(parts: Bench, journal: Journal) -> None:
    """A question that crossed its answer, or whose answer was lost, must not use up a later failure."""
    take_in_live(parts)
    parts.ship()
    ask(parts, journal, 1)
    parts.send_out()
    (first,) = answers(parts)
    trouble(parts, journal)
    assert ask(parts, journal, 1) == [first]
    ask(parts, journal, 2)
    parts.send_out()
    assert [flushed.failed_count for flushed in answers(parts)] == [1]


def test_refused_by_the_upstream_is_told_to_each_producer_of_the_row(
    state_dir: Path, parts: Bench, journal: Journal, upstream: Upstream
) -> None:
    """A sum of several producers' events failed: whose they were is not kept, so each of them is told."""
    other = make_journal(state_dir, "mallory", "ada")
    track(journal, "mallory")
    take_in_live(parts)
    upstream.fault(Fault.refuse("mallory"))
    parts.ship()
    for each in (journal, other):
        ask(parts, each, 1)
        ask(parts, each, 2)
    parts.send_out()
    parts.send_out()
    found = answers(parts)
    assert sorted(flushed.failed_count > 0 for flushed in found) == [False, False, True, True]
    assert {flushed.ticket for flushed in found if flushed.failed_count} == {1}
    other.close()


def test_tickets_and_answers_are_bounded(
    parts: Bench, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: a worker that asks without end fills no memory; the oldest of its questions make room."""
    monkeypatch.setattr(flushing, "TICKETS_MAX", 10)
    monkeypatch.setattr(flushing, "ANSWERS_MAX", 10)
    for ticket in range(50):
        ask(parts, journal, ticket)
    assert [key[1] for key in parts.parts.flushing._tickets] == list(range(40, 50))
    ask(parts, journal, 45)
    assert len(parts.parts.flushing._tickets) == 10
    take_in_live(parts)
    parts.ship()
    for ticket in range(50, 80):
        ask(parts, journal, ticket)
        parts.send_out()
    assert len(answers(parts)) == 40
    assert len(parts.parts.flushing._answered) == 10


def test_time_marks_are_no_events(parts: Bench, journal: Journal) -> None:
    """A journal's end may be a time mark, which is in no seal: nobody waits for it."""
    take_in_live(parts)
    parts.ship()
    journal.mark(time.time())
    take_in_live(parts)
    parts.parts.reload()
    ask(parts, journal)
    assert not parts.parts.flushing.wants_seal
    parts.send_out()
    assert answers(parts) == [wire.Flushed(1, 0, 0, 0, "")]
