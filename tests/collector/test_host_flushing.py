"""Host-wide flushes: nothing that any worker tracked before the command is missed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from settle_mp.collector import host_flushing
from settle_mp.collector.adoption import SCAN_S, SILENT_S
from settle_mp.core import wire
from settle_mp.sandbox.faults import Fault
from tests.collectors import Bench, bench, bind, folder_of, make_journal, track
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.worker.journal import Journal
    from tests.upstreams import Upstream

__all__ = ["upstream"]

COMMAND = b"a command"
LONG_S = 20.0


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir, upstream) as made:
        yield made
        made.parts.adoption.drop()


def ask(
    made: Bench, timeout_s: float = LONG_S, *, identity: bytes = COMMAND, ticket: int = 1
) -> list[tuple[bytes, wire.Message]]:
    """Ask for a host-wide flush; returns the questions to workers."""
    return made.parts.answer(identity, wire.HostFlush(ticket, timeout_s))


def greet(made: Bench, journal: Journal) -> None:
    """Let a worker's courier say hello, and take it up."""
    hello = wire.Hello(journal.producer, journal.tail, journal.header.image, is_volatile=False)
    made.parts.answer(journal.producer, hello)
    made.parts.reception.commit()


def look_once(made: Bench) -> None:
    """One turn of the loop's intake."""
    made.parts.adoption.is_urgent = made.parts.host_flushing.is_waiting
    made.parts.adoption.turn(made.now_s)
    if made.parts.reception.is_gathering:
        made.parts.reception.commit()
    made.parts.adoption.settle()


def finish(made: Bench) -> wire.Flushed:
    """Turn until the command is answered."""
    deadline_s = time.monotonic() + LONG_S
    while True:
        look_once(made)
        made.send_out()
        for identity, message in made.answers:
            if isinstance(message, wire.Flushed):
                assert identity == COMMAND
                made.answers.clear()
                return message
        assert time.monotonic() < deadline_s, "the command is not answered"
        time.sleep(0.002)


def test_nothing_to_do_is_done(parts: Bench) -> None:
    """On a host where nobody tracks, it ends after one look."""
    ask(parts)
    assert finish(parts) == wire.Flushed(1, 0, 0, 0, "")
    assert not parts.parts.host_flushing.is_waiting


def test_dead_and_silent_workers_are_read(state_dir: Path, parts: Bench, upstream: Upstream) -> None:
    """What the dead left, and what a live worker wrote whose courier is silent, without waiting for it."""
    make_journal(state_dir, "ada").close()
    silent = make_journal(state_dir, "bob", "bob")
    ask(parts)
    assert finish(parts) == wire.Flushed(1, 3, 0, 0, "")
    assert parts.now_s < SILENT_S, "not because it had been silent for long"
    assert upstream.quantity() == 3
    silent.close()


def test_a_scan_that_began_before_is_not_enough(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that the present scan has passed is looked at once more."""
    monkeypatch.setattr("settle_mp.collector.adoption.TURN_JOURNALS_MAX", 1)
    journals = [make_journal(state_dir, "ada") for _ in range(3)]
    look_once(parts)
    ask(parts)
    for journal in journals:
        track(journal, "bob")
    assert finish(parts).confirmed_count == 6
    for journal in journals:
        journal.close()


def test_live_workers_are_asked_for_their_positions(
    state_dir: Path, parts: Bench, upstream: Upstream
) -> None:
    """Rule J2: what a courier says stands in its journal is waited for, whatever was read of it before."""
    journal = make_journal(state_dir)
    greet(parts, journal)
    (question,) = ask(parts)
    assert question[0] == journal.producer
    assert isinstance(question[1], wire.AskPosition)
    look_once(parts)
    parts.send_out()
    assert parts.answers == [], "the worker has not answered"
    track(journal, "ada")
    position = wire.Position(journal.producer, question[1].request, journal.tail)
    parts.parts.answer(journal.producer, position)
    look_once(parts)
    parts.send_out()
    assert parts.answers == [], "the event behind its position has not come"
    parts.now_s += SCAN_S
    assert finish(parts) == wire.Flushed(1, 1, 0, 0, "")
    assert upstream.quantity() == 1
    journal.close()


def test_a_worker_that_does_not_answer_is_waited_for_no_longer_than_bounded(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its journal is read; a courier that hangs keeps nobody."""
    journal = make_journal(state_dir, "ada")
    greet(parts, journal)
    assert len(ask(parts)) == 1
    look_once(parts)
    parts.ship()
    assert parts.answers == []
    monkeypatch.setattr(host_flushing, "ASK_S", 0.0)
    assert finish(parts).reason == ""
    journal.close()


def test_a_worker_that_died_is_not_waited_for(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose journal was adopted has nothing more to say, whether it was asked or not."""
    monkeypatch.setattr(host_flushing, "ASK_S", 2 * LONG_S)
    journal = make_journal(state_dir, "ada")
    greet(parts, journal)
    assert len(ask(parts)) == 1
    journal.close()
    assert finish(parts) == wire.Flushed(1, 1, 0, 0, "")
    assert ask(parts) == []
    assert finish(parts).reason == ""


def test_commands_are_told_apart(state_dir: Path, parts: Bench) -> None:
    """Two commands ask under the same number: a worker's answer to the first is none to the second."""
    journal = make_journal(state_dir)
    greet(parts, journal)
    requests = [
        message.request
        for identity in (b"one", b"two")
        for _, message in ask(parts, identity=identity)
        if isinstance(message, wire.AskPosition)
    ]
    assert len(set(requests)) == 2
    parts.parts.answer(journal.producer, wire.Position(journal.producer, requests[0], journal.tail))
    waiting = parts.parts.host_flushing._tickets
    assert [len(ticket.positions) for ticket in waiting.values()] == [1, 0]
    journal.close()


def test_the_same_question_again_is_the_same_command(parts: Bench) -> None:
    """A command that asks again, since it heard nothing, is asked about once."""
    ask(parts)
    ask(parts)
    assert len(parts.parts.host_flushing._tickets) == 1


def test_old_batches_are_waited_for(state_dir: Path, upstream: Upstream) -> None:
    """After a restart the unsettled batches of earlier seals belong to the flush as well."""
    make_journal(state_dir, "ada").close()
    with bench(state_dir, upstream) as first:
        first.take_in()
        first.parts.shipping._seal(time.time())
    with bench(state_dir, upstream) as second:
        ask(second)
        look_once(second)
        turned = second.parts.host_flushing.turn(
            time.monotonic(), scans_done=second.parts.adoption.done_count
        )
        assert turned == []
        assert finish(second).confirmed_count == 1


def test_at_its_deadline_it_says_what_is_left_and_why(
    state_dir: Path, parts: Bench, upstream: Upstream
) -> None:
    """With the upstream down: how many are unconfirmed, and its trouble."""
    make_journal(state_dir, "ada", "bob").close()
    upstream.stop()
    ask(parts, timeout_s=0.3)
    flushed = finish(parts)
    assert (flushed.confirmed_count, flushed.unconfirmed_count) == (0, 2)
    assert flushed.reason.startswith("the upstream is down")


def test_what_fails_meanwhile_is_told(state_dir: Path, parts: Bench, upstream: Upstream) -> None:
    """Refused events are no success, though nothing waits any more."""
    make_journal(state_dir, "ada", "mallory").close()
    upstream.fault(Fault.refuse("mallory"))
    ask(parts)
    flushed = finish(parts)
    assert (flushed.confirmed_count, flushed.unconfirmed_count, flushed.failed_count) == (1, 1, 1)
    assert flushed.reason == "1 events were refused or are held"


def test_a_journal_that_waits_for_a_person_is_told(state_dir: Path, parts: Bench) -> None:
    """Rule L3: what nobody may take is not confirmed."""
    journal = make_journal(state_dir, "ada")
    bind(state_dir, journal, bytes(range(16)), 0)
    ask(parts)
    flushed = finish(parts)
    assert journal.producer.hex() in flushed.reason
    assert flushed.unconfirmed_count == 1
    journal.close()


def test_a_journal_that_cant_be_read_is_told(state_dir: Path, parts: Bench) -> None:
    """What nobody could read is not confirmed, nor all shipped that a stop is to ship; later it is."""
    journal = make_journal(state_dir, "ada")
    journal.close()
    folder = folder_of(state_dir, journal)
    header = folder / "header"
    image = header.read_bytes()
    header.unlink()
    header.mkdir()
    ask(parts)
    flushed = finish(parts)
    assert flushed.unconfirmed_count == 1
    assert f"{folder.name} can't be read: Is a directory" in flushed.reason
    assert not parts.parts.is_drained()
    header.rmdir()
    header.write_bytes(image)
    ask(parts, ticket=2)
    assert finish(parts) == wire.Flushed(2, 1, 0, 0, "")
    assert parts.parts.is_drained()


def test_commands_are_bounded(parts: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 3: more commands than that are not heard, and ask again."""
    monkeypatch.setattr(host_flushing, "TICKETS_MAX", 3)
    for number in range(10):
        ask(parts, identity=b"command %d" % number)
    assert len(parts.parts.host_flushing._tickets) == 3
    assert parts.parts.host_flushing.left_s(time.monotonic()) <= host_flushing.ASK_S
