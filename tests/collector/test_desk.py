"""The desk: each decision does to ledger, memory and books what it says, once, and refuses the rest."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest

from settle_mp.collector import desk
from settle_mp.collector.startup import AlreadyRunningError
from settle_mp.core import decision, wire
from settle_mp.core.event import pack_event
from settle_mp.core.record import NO_LEDGER
from settle_mp.sandbox.faults import Fault
from tests.collectors import Bench, bench, bind, folder_of, make_journal, track
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.collector.batches import Batch
    from tests.upstreams import Upstream

__all__ = ["upstream"]

STRANGE_LEDGER = bytes(range(16))
COMMAND = b"command"
TICKETS = itertools.count(1)


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """A collector that holds what is in doubt, with a batch for each user."""
    with bench(state_dir, upstream, on_in_doubt="hold", batch_rows_max=1) as made:
        yield made


def ask(made: Bench, message: wire.Message) -> wire.Decided:
    """What a command is told."""
    ((identity, answer),) = made.parts.answer(COMMAND, message)
    assert identity == COMMAND
    assert isinstance(answer, wire.Decided)
    return answer


def decide(made: Bench, action: str, first: int, last: int | None = None) -> wire.Decided:
    """Decide about one, or a range."""
    return ask(made, wire.Decide(next(TICKETS), action, first, first if last is None else last))


def take_in(made: Bench, *users: str, quantity: float = 1) -> None:
    """Take in an event for each user."""
    journal = make_journal(made.settings.state_dir)
    track(journal, *users, quantity=quantity)
    journal.close()
    made.take_in()


def hold(made: Bench, upstream: Upstream, *users: str, quantity: float = 1) -> list[Batch]:
    """Have the events of some users held, each in a batch of its own."""
    upstream.fault(Fault.answering(500, when="before", times=len(users)))
    take_in(made, *users, quantity=quantity)
    made.ship()
    return held(made)


def held(made: Bench) -> list[Batch]:
    """The batches that a person decides about."""
    return made.parts.state.ledger.outbox.held()


def refuse(made: Bench, upstream: Upstream, *users: str) -> list[int]:
    """Have a row of each user refused for good. Returns the ids of the dead letters."""
    for user in users:
        upstream.fault(Fault.refuse(user))
    take_in(made, *users)
    made.ship()
    upstream.clear_faults()
    return letters(made)


def letters(made: Bench) -> list[int]:
    """The ids of all dead letters."""
    return [letter.id for letter in made.parts.state.ledger.outbox.dead_letters()]


def amounts(made: Bench) -> dict[str, str]:
    """Events and quantity by bucket, where there are any; the books balance."""
    assert made.faults() == []
    totals = made.parts.state.ledger.totals()
    return {
        name: f"{total.events}/{total.quantity}"
        for name, total in totals.items()
        if total.events and name != "committed"
    }


# --- Held batches ---


def test_a_retry_keeps_key_and_bytes(parts: Bench, upstream: Upstream) -> None:
    """Rule D2: it is sent although on_in_doubt is hold, as it was, and then confirmed."""
    (batch,) = hold(parts, upstream, "ann")
    assert decide(parts, decision.RETRY, batch.id).done_count == 1
    parts.ship()
    assert amounts(parts) == {"confirmed": "1/1"}
    one, two = upstream.log()
    assert one["idempotencyKey"] == two["idempotencyKey"] == batch.key
    assert one["bodySha256"] == two["bodySha256"]


def test_an_order_stands_until_a_try_gets_through(parts: Bench, upstream: Upstream) -> None:
    """Refused connections and a wrong key are no answer to it: it waits, and is not held again."""
    (batch,) = hold(parts, upstream, "ann")
    upstream.fault(Fault.answering(429, when="before"), Fault.answering(401, when="before"))
    decide(parts, decision.RETRY, batch.id)
    parts.ship()
    assert held(parts) == []
    assert upstream.requests_count == 4
    assert amounts(parts) == {"confirmed": "1/1"}
    assert len({each["idempotencyKey"] for each in upstream.log()}) == 1


@pytest.mark.parametrize("fault", [Fault.reset(when="after"), Fault.answering(400, when="before")])
def test_an_answer_of_no_use_ends_an_order(parts: Bench, upstream: Upstream, fault: Fault) -> None:
    """One order, one try that got through: in doubt again or refused, a person decides again."""
    (batch,) = hold(parts, upstream, "ann")
    upstream.fault(fault)
    decide(parts, decision.RETRY, batch.id)
    parts.ship()
    (again,) = held(parts)
    assert (again.id, again.key, again.tries) == (batch.id, batch.key, 2)
    assert amounts(parts) == {"in_doubt": "1/1"}


def test_an_order_outlives_its_collector(state_dir: Path, upstream: Upstream) -> None:
    """What was ordered and not sent is sent by the next one; what was under way is held."""
    with bench(state_dir, upstream, on_in_doubt="hold", batch_rows_max=1) as made:
        first, second = hold(made, upstream, "ann", "bob")
        decide(made, decision.RETRY, first.id)
        upstream.hold(when="after")
        made.send_out()
        upstream.wait_held(1)
        decide(made, decision.RETRY, second.id)
    upstream.release()
    with bench(state_dir, upstream, on_in_doubt="hold") as made:
        made.ship()
        assert [batch.id for batch in held(made)] == [first.id]
        assert amounts(made) == {"confirmed": "1/1", "in_doubt": "1/1"}


def test_an_old_key_is_sent_when_a_person_says_so(state_dir: Path, upstream: Upstream) -> None:
    """Older than the upstream remembers keys: not by itself, but ordered."""
    with bench(state_dir, upstream, on_in_doubt="hold", idempotency_ttl_s=60) as made:
        (batch,) = hold(made, upstream, "ann")
        made.parts.state._clock_offset_s += 3600
        decide(made, decision.RETRY, batch.id)
        made.ship()
        assert amounts(made) == {"confirmed": "1/1"}


@pytest.mark.parametrize(
    ("action", "bucket"), [(decision.CONFIRM, "confirmed"), (decision.DISCARD, "discarded")]
)
def test_what_a_person_knows_is_settled(parts: Bench, upstream: Upstream, action: str, bucket: str) -> None:
    """Nothing is sent; its events go where they belong, fractions exact; the other batch stays."""
    first, second = hold(parts, upstream, "ann", "bob", quantity=0.1)
    answer = decide(parts, action, first.id)
    assert (answer.done_count, answer.events_count, answer.quantity, answer.reason) == (1, 1, "0.1", "")
    assert amounts(parts) == {bucket: "1/0.1", "in_doubt": "1/0.1"}
    assert [batch.id for batch in held(parts)] == [second.id]
    parts.send_out()
    assert upstream.requests_count == 2
    counted = parts.parts.state.ledger.counters().get("confirmed_by_hand_events", 0)
    assert counted == (action == decision.CONFIRM)


def test_a_renewed_batch_is_like_a_new_one(state_dir: Path, upstream: Upstream) -> None:
    """A person says that nothing was applied: a new key, no doubt, and a bad row is found."""
    with bench(state_dir, upstream) as made:
        upstream.fault(Fault.answering(500, when="before"), Fault.refuse("bad"))
        take_in(made, "bad", "good")
        made.ship()
        (batch,) = held(made)
        assert decide(made, decision.RENEW, batch.id).done_count == 1
        assert amounts(made) == {"pending": "2/2"}
        made.ship()
        assert amounts(made) == {"confirmed": "1/1", "dead_lettered": "1/1"}
        assert [row.user_id for row in upstream.rows()] == ["good"]
        assert batch.key not in {each["idempotencyKey"] for each in upstream.log(after=2)}


def test_a_decision_is_made_once(parts: Bench, upstream: Upstream) -> None:
    """The same ticket again has the same answer; another one finds nothing left to decide."""
    (batch,) = hold(parts, upstream, "ann")
    message = wire.Decide(next(TICKETS), decision.DISCARD, batch.id, batch.id)
    assert ask(parts, message) == ask(parts, message)
    assert amounts(parts) == {"discarded": "1/1"}
    assert decide(parts, decision.DISCARD, batch.id).reason == f"there is no batch {batch.id}"


def test_answers_are_kept_for_so_many(parts: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest makes room."""
    monkeypatch.setattr(desk, "ANSWERS_MAX", 2)
    for _ in range(5):
        decide(parts, decision.DISCARD, 1)
    assert len(parts.parts.desk._answers) == 2


def test_only_what_is_held_can_be_decided_about(state_dir: Path, upstream: Upstream) -> None:
    """What is under way is the collector's."""
    with bench(state_dir, upstream) as made:
        upstream.hold()
        take_in(made, "ann")
        made.send_out()
        upstream.wait_held(1)
        for action in sorted(decision.BATCH_ACTIONS):
            answer = decide(made, action, 1)
            assert (answer.done_count, answer.reason) == (0, "batch 1 is not held (it is attempting)")
        upstream.release()
        made.ship()
    assert upstream.quantity() == 1


def test_residues_are_acknowledged_page_by_page(parts: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The open ones of a range; one that is named and not open is told."""
    monkeypatch.setattr(desk, "AT_ONCE_MAX", 2)
    ledger = parts.parts.state.ledger
    for number in range(1, 6):
        ledger.add_residue(f"span {number}", f"{number} bytes", 0)
    assert decide(parts, decision.ACKNOWLEDGE, 2).done_count == 1
    answers = [decide(parts, decision.ACKNOWLEDGE, 1, 4)]
    answers.append(decide(parts, decision.ACKNOWLEDGE, answers[0].rest, 4))
    assert [(each.done_count, each.reason) for each in answers] == [(2, ""), (1, "")]
    assert ledger.residues() == ["5 bytes"]
    assert decide(parts, decision.ACKNOWLEDGE, 2).reason == "residue 2 is acknowledged already"
    assert decide(parts, decision.ACKNOWLEDGE, 9).reason == "there is no residue 9"
    assert decide(parts, decision.ACKNOWLEDGE, 5).done_count == 1


def test_an_unknown_action_does_nothing(parts: Bench, upstream: Upstream) -> None:
    """Another version's word, say."""
    hold(parts, upstream, "ann")
    assert "nothing that can be decided" in decide(parts, "forget", 1).reason
    assert amounts(parts) == {"in_doubt": "1/1"}


def test_a_damaged_batch_can_be_given_up_and_not_sent(parts: Bench, upstream: Upstream) -> None:
    """It is left where the others of the same range are sent."""
    first, second = hold(parts, upstream, "ann", "bob")
    database = parts.parts.state.ledger._database
    with database.transaction():
        database.run("UPDATE bodies SET body = x'00' WHERE batch = ?", (first.id,))
    for action in (decision.RETRY, decision.RENEW):
        assert "fails its checksum" in decide(parts, action, first.id).reason
    answer = decide(parts, decision.RETRY, 1, second.id)
    assert (answer.done_count, "fails its checksum" in answer.reason) == (1, True)
    assert decide(parts, decision.DISCARD, first.id).done_count == 1
    parts.ship()
    assert amounts(parts) == {"confirmed": "1/1", "discarded": "1/1"}


def test_many_are_decided_about_a_piece_at_a_time(
    parts: Bench, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer says where to go on, and what comes back meanwhile is not met again."""
    monkeypatch.setattr(desk, "AT_ONCE_MAX", 2)
    batches = hold(parts, upstream, "ann", "bob", "cy", "dee", "eve")
    first, rest, counts = 1, 1, []
    while rest:
        answer = decide(parts, decision.DISCARD, first, batches[-1].id)
        first = rest = answer.rest
        counts.append(answer.done_count)
    assert counts == [2, 2, 1]
    assert amounts(parts) == {"discarded": "5/5"}


def test_flushes_wait_again_for_what_was_ordered(parts: Bench, upstream: Upstream) -> None:
    """A held batch is in no flush's way; one that is sent again is, until it is settled."""
    (batch,) = hold(parts, upstream, "ann")
    assert parts.parts.is_drained()
    upstream.hold()
    decide(parts, decision.RETRY, batch.id)
    assert not parts.parts.is_drained()
    parts.send_out()
    upstream.wait_held(1)
    assert not parts.parts.is_drained()
    upstream.release()
    parts.ship()


# --- Dead letters ---


def test_a_replayed_letter_goes_out_under_a_new_key(parts: Bench, upstream: Upstream) -> None:
    """Rule D3: the same row, in a seal of its own that a flush waits for."""
    (letter,) = refuse(parts, upstream, "ann")
    key = upstream.log()[0]["idempotencyKey"]
    assert decide(parts, decision.REPLAY, letter).events_count == 1
    assert amounts(parts) == {"pending": "1/1"}
    assert not parts.parts.is_drained()
    parts.ship()
    assert amounts(parts) == {"confirmed": "1/1"}
    assert upstream.log()[-1]["idempotencyKey"] != key
    assert upstream.log()[-1]["bodySha256"] == upstream.log()[0]["bodySha256"]


def test_a_replay_is_known_beside_the_ledger(parts: Bench, upstream: Upstream) -> None:
    """Rule L6: a ledger that has forgotten a replay is not believed, or it would be replayed twice."""
    (letter,) = refuse(parts, upstream, "ann")
    before = parts.parts.state.ledger._watermark._written
    decide(parts, decision.REPLAY, letter)
    assert parts.parts.state.ledger._watermark._written == before + 1


def test_an_id_never_becomes_anothers(parts: Bench, upstream: Upstream) -> None:
    """Also when the last one is taken away: what a person has written down must not hit another."""
    seen = refuse(parts, upstream, "ann", "bob")
    for letter in reversed(seen):
        decide(parts, decision.DROP, letter)
    assert letters(parts) == []
    (new,) = refuse(parts, upstream, "cy")
    assert new > max(seen)
    assert decide(parts, decision.DROP, seen[0]).reason == f"there is no dead letter {seen[0]}"


def test_what_is_refused_again_comes_back(parts: Bench, upstream: Upstream) -> None:
    """As another dead letter, beyond the range that was asked for."""
    (letter,) = refuse(parts, upstream, "ann")
    upstream.fault(Fault.refuse("ann"))
    decide(parts, decision.REPLAY, 1, letter)
    parts.ship()
    assert amounts(parts) == {"dead_lettered": "1/1"}
    assert letters(parts) == [letter + 1]


def test_a_discarded_letter_stays_in_the_books(parts: Bench, upstream: Upstream) -> None:
    """`status` counts it as dropped."""
    (letter,) = refuse(parts, upstream, "ann")
    assert decide(parts, decision.DROP, letter).quantity == "1"
    assert amounts(parts) == {"discarded": "1/1"}


def test_an_event_that_a_rule_refused_is_judged_anew(
    state_dir: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused at intake, it has no quantity; once its rule is mended it has, and the books know."""
    rules = state_dir / "settle-mp.toml"
    rules.write_text('[events.AI_QUERY]\nsum = ["tokens"]\n')
    with bench(state_dir, upstream, config_path=rules) as made:
        journal = make_journal(state_dir)
        journal.append(pack_event("ann", "AI_QUERY", 2.5, {"tokens": "many"}))
        journal.close()
        made.take_in()
        assert amounts(made) == {"dead_lettered": "1/0"}
        assert [each.message for each in caplog.records if each.levelname == "WARNING"] == ["events_refused"]
        assert "still is no valid event" in decide(made, decision.REPLAY, 1).reason
    rules.write_text("")
    with bench(state_dir, upstream, config_path=rules) as made:
        # Its producer is long gone by then, and sealed with what came later.
        take_in(made, "bob")
        made.ship()
        made.parts.state.ledger.forget(gone_before_s=time.time() + 1)
        assert journal.producer not in made.parts.state.ledger.producers()
        assert decide(made, decision.REPLAY, 1).quantity == "2.5"
        made.ship()
        assert amounts(made) == {"confirmed": "2/3.5"}
    (row,) = upstream.rows(user_id="ann")
    assert (row.user_id, str(row.quantity)) == ("ann", "2.5")
    assert row.metadata is not None
    assert row.metadata["tokens"] == "many"


def test_a_flush_of_everything_is_not_answered_by_a_replay(parts: Bench, upstream: Upstream) -> None:
    """A replay's seal is not the one that the flush waits for."""
    (letter,) = refuse(parts, upstream, "ann")
    take_in(parts, "bob")
    parts.parts.answer(COMMAND, wire.HostFlush(1, 60.0))
    parts.take_in()
    host_flushing = parts.parts.host_flushing
    # Bob's events are in no seal yet, so the flush waits for the next one.
    assert host_flushing.turn(time.monotonic(), scans_done=parts.parts.adoption.done_count) == []
    decide(parts, decision.REPLAY, letter)
    number = parts.parts.state.seal_number
    (batch,) = parts.parts.state.seals._seals[number].batches
    parts.parts.state.ledger.outbox.settle(batch, time.time())
    parts.parts.state.seals.settle(number, batch)
    assert host_flushing.turn(time.monotonic(), scans_done=parts.parts.adoption.done_count) == []
    parts.ship()
    assert [type(answer) for _, answer in parts.answers] == [wire.Flushed]
    assert upstream.quantity() == 1


# --- Journals ---


def test_an_adopted_journal_begins_where_its_ledger_stood(state_dir: Path, parts: Bench) -> None:
    """Rule L3: what the other ledger took is not taken again."""
    journal = make_journal(state_dir, "ann", "bob")
    before = journal.tail
    track(journal, "cy")
    bind(state_dir, journal, STRANGE_LEDGER, before, events_count=2)
    parts.take_in()
    assert len(parts.parts.reception.refusals) == 1
    answer = ask(parts, wire.Adopt(next(TICKETS), journal.producer))
    assert (answer.done_count, answer.reason) == (1, "")
    assert parts.parts.reception.refusals == []
    again = ask(parts, wire.Adopt(next(TICKETS), journal.producer))
    assert (again.done_count, again.reason) == (0, "")
    journal.close()
    parts.take_in()
    assert amounts(parts) == {"pending": "1/1"}


def test_a_header_that_cant_be_read_begins_at_what_is_there(state_dir: Path, parts: Bench) -> None:
    """Segments before were freed, so somebody had acked them: they are no damage."""
    journal = make_journal(state_dir, "ann")
    while len(list(folder_of(state_dir, journal).glob("*.seg"))) < 2:
        track(journal, *["bob"] * 100)
    freed = min(folder_of(state_dir, journal).glob("*.seg"))
    track(journal, "cy")
    journal.close()
    freed.unlink()
    (folder_of(state_dir, journal) / "header").write_bytes(bytes(4096))
    assert ask(parts, wire.Adopt(next(TICKETS), journal.producer)).reason == ""
    parts.take_in()
    assert parts.faults() == []
    assert parts.parts.state.ledger.totals()["pending"].events >= 1


def test_a_word_does_not_change_the_mode_of_a_key(state_dir: Path, parts: Bench) -> None:
    """Rule C2 is not a person's to break; nor can a journal be adopted that is not there."""
    journal = make_journal(state_dir, "ann", key_mode="live")
    bind(state_dir, journal, STRANGE_LEDGER, 0)
    assert "live key" in ask(parts, wire.Adopt(next(TICKETS), journal.producer)).reason
    journal.close()
    assert "there is no journal" in ask(parts, wire.Adopt(next(TICKETS), NO_LEDGER)).reason


def test_an_adopted_journal_binds_the_mode(state_dir: Path) -> None:
    """Rule C2: from the first event on the ledger is of that event's mode."""
    with bench(state_dir) as made:
        journal = make_journal(state_dir, "ann", key_mode="live")
        bind(state_dir, journal, STRANGE_LEDGER, 0)
        assert ask(made, wire.Adopt(next(TICKETS), journal.producer)).reason == ""
        assert made.parts.state.ledger.key_mode == "live"
        journal.close()


# --- On the files ---


def test_on_the_files_it_holds_the_lock(state_dir: Path, upstream: Upstream) -> None:
    """Beside a collector it is refused; without one it does the same, and keeps a collector from starting."""
    with bench(state_dir, upstream, on_in_doubt="hold") as made:
        (batch,) = hold(made, upstream, "ann")
        with pytest.raises(AlreadyRunningError), desk.on_files(made.settings):
            pass
        settings = made.settings
    with desk.on_files(settings) as on_files:
        with pytest.raises(AlreadyRunningError), desk.on_files(settings):
            pass
        answer = on_files.answer(wire.Decide(1, decision.CONFIRM, batch.id, batch.id))
        assert answer.done_count == 1
    with bench(state_dir, upstream) as made:
        assert amounts(made) == {"confirmed": "1/1"}


def test_while_the_ledger_cant_be_used_nothing_is_decided(parts: Bench) -> None:
    """The command is told why."""
    parts.parts.trouble = "the ledger takes nothing in"
    ((_, answer),) = parts.parts.turn_away(COMMAND, wire.Decide(7, decision.CONFIRM, 1, 1))
    assert answer == wire.Decided(7, 0, 0, "0", 0, "the ledger takes nothing in")
