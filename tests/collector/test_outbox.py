"""The outbox: marked before it is sent (D1), in doubt for ever (D2), new keys for the refused alone (D3)."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector import schema
from settle_mp.collector.ledger import LedgerDamagedError
from settle_mp.collector.outbox import WAIT_MAX_S, Batch
from settle_mp.core.books import Amount
from settle_mp.core.family import DeadLetterSuspects, Family, Regroup, Wait, family_step
from settle_mp.core.outcome import INTERRUPTED
from settle_mp.core.ticket import Trouble
from tests.collector.ledgers import HOUR, NOW_S, Till, dump_of, faults, open_ledger, producer_id, unsettled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.collector.outbox import Outbox


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A new ledger that knows producers 1 and 2."""
    till = Till(open_ledger(tmp_path))
    till.introduce(1, 2)
    yield till
    assert faults(till.ledger) == till.ledger.residues()
    till.ledger.close()


@pytest.fixture
def outbox(till: Till) -> Outbox:
    """Its outbox."""
    return till.ledger.outbox


def users(batch: Batch) -> list[str]:
    """Whose rows are in a batch."""
    return [row["userId"] for row in json.loads(batch.body)["events"]]


# What is sent, and when.


def test_batches_are_due_oldest_first_and_with_their_exact_bytes(till: Till, outbox: Outbox) -> None:
    """What is handed out is what was sealed, byte for byte, as many as asked for, and no key twice."""
    for user in ("ann", "bob", "cy"):
        till.take(1, user=user)
    drafts = till.drafts(rows_max=1)
    till.seal(rows_max=1)
    due = outbox.due(NOW_S, 2)
    assert [batch.draft for batch in due] == drafts[:2]
    assert [batch.draft for batch in outbox.due(NOW_S, 9)] == drafts
    assert len({batch.key for batch in outbox.due(NOW_S, 9)}) == 3
    assert all(batch.state == "ready" and batch.tries == 0 and batch.root == batch.id for batch in due)


def test_a_batch_waits_for_its_time(till: Till, outbox: Outbox) -> None:
    """A batch that was put off is due at its time and not before; the next time is known."""
    first, second = till.batch("ann"), till.batch("bob")
    till.attempt(first.id, second.id)
    assert outbox.next_due_s() is None
    outbox.retry(first.id, at_s=NOW_S + 30, is_in_doubt=False, reason="429", now_s=NOW_S)
    outbox.retry(second.id, at_s=NOW_S + 20, is_in_doubt=False, reason="429", now_s=NOW_S)
    assert outbox.next_due_s() == NOW_S + 20
    assert outbox.due(NOW_S + 19.9, 9) == []
    assert [batch.id for batch in outbox.due(NOW_S + 20, 9)] == [second.id]
    assert [batch.id for batch in outbox.due(NOW_S + 30, 9)] == [first.id, second.id]
    assert outbox.get(first.id).reason == "429"


def test_a_clock_that_was_set_back_delays_nothing_for_long(till: Till, outbox: Outbox) -> None:
    """A batch put off to a time that is hours ahead of the clock is sent at once."""
    batch = till.batch("ann")
    till.attempt(batch.id)
    outbox.retry(batch.id, at_s=NOW_S, is_in_doubt=False, reason="", now_s=NOW_S)
    assert outbox.due(NOW_S - WAIT_MAX_S, 9) == []
    assert [each.id for each in outbox.due(NOW_S - WAIT_MAX_S - 1, 9)] == [batch.id]


def test_a_body_that_changed_on_the_disk_is_never_sent(
    till: Till, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that is not what was sealed is held and named; the others go on, and so does the next start."""
    bad, good, gone = (till.batch(user) for user in ("ann", "bob", "cy"))
    tamper(till, "UPDATE bodies SET body = replace(body, '1', '9') WHERE batch = ?", bad.id)
    tamper(till, "DELETE FROM bodies WHERE batch = ?", gone.id)
    assert [batch.id for batch in outbox.due(NOW_S, 9)] == [good.id]
    assert [batch.id for batch in outbox.held()] == [bad.id, gone.id]
    assert outbox.held()[0].body == b""
    assert [record.message for record in caplog.records] == ["batch_damaged"] * 2
    residues = till.ledger.residues()
    assert [text for text in residues if text.startswith(f"batch {bad.id} ")]
    assert "bodies: 2 rows, 3 were written" in residues
    with pytest.raises(LedgerDamagedError):
        outbox.rekey(bad.id, at_s=NOW_S, reason="", now_s=NOW_S)
    assert till.ledger.totals()["pending"] == Amount(3, 3)


def test_the_body_of_another_batch_is_never_sent(till: Till, outbox: Outbox) -> None:
    """A body that is sound by itself, and stands where another should, is not sent under the wrong key."""
    first, second = till.batch("ann"), till.batch("bob")
    (_, lots, body, _) = dump_of(till)["bodies"][1]
    row = schema.BODIES.with_checksum((first.id, lots, body))
    tamper(till, "UPDATE bodies SET lots = ?, body = ?, checksum = ? WHERE batch = ?", *row[1:], row[0])
    assert [batch.id for batch in outbox.due(NOW_S, 9)] == [second.id]
    assert [batch.id for batch in outbox.held()] == [first.id]


@pytest.mark.parametrize("column", ["key", "not_before_s", "attempted_s", "reason", "digest", "seal", "hour"])
def test_a_row_that_changed_on_the_disk_is_held(till: Till, outbox: Outbox, column: str) -> None:
    """A batch whose own row changed is held, whether it waited or was under way when we stopped."""
    waiting, stopped, good = (till.batch(user) for user in ("ann", "bob", "cy"))
    till.attempt(stopped.id)
    for batch in (waiting, stopped):
        tamper(till, f"UPDATE batches SET {column} = 7 WHERE id = ?", batch.id)  # noqa: S608
    assert [batch.id for batch in outbox.due(NOW_S, 9)] == [good.id]
    assert outbox.recover(NOW_S) == []
    assert [batch.id for batch in outbox.held()] == [waiting.id, stopped.id]
    assert len(till.ledger.residues()) == 2


def tamper(till: Till, sql: str, *values: object) -> None:
    """Change the file by other hands than the ledger's."""
    with closing(sqlite3.connect(till.ledger._path)) as connection, connection:
        assert connection.execute(sql, values).rowcount == 1


# D1: written before it is sent.


def test_what_was_attempting_when_we_stopped_is_in_doubt(till: Till, outbox: Outbox, tmp_path: Path) -> None:
    """After a death in the middle of a try the batch keeps key and bytes, and counts as in doubt (D1)."""
    sent, waiting = till.batch("ann", "bob"), till.batch("cy")
    outbox.mark_attempting([sent.id], NOW_S + 5)
    till.ledger.close()
    till.ledger = open_ledger(tmp_path)
    outbox = till.ledger.outbox
    assert [batch.id for batch in outbox.due(NOW_S, 9)] == [waiting.id]
    (found,) = outbox.recover(NOW_S + 60)
    assert (found.id, found.key, found.body) == (sent.id, sent.key, sent.body)
    assert (found.state, found.first_in_doubt_s, found.reason) == ("ready", NOW_S + 5, INTERRUPTED.reason)
    assert outbox.due(NOW_S + 60, 9)[0] == found
    assert till.ledger.totals()["in_doubt"] == till.ledger.in_doubt_ever() == Amount(2, 2)
    assert outbox.recover(NOW_S + 60) == []


def test_what_a_sender_still_works_on_is_left_alone(till: Till, outbox: Outbox) -> None:
    """A reload while requests are under way does not put them in doubt."""
    first, second = till.batch("ann"), till.batch("bob")
    till.attempt(first.id, second.id)
    assert [batch.id for batch in outbox.recover(NOW_S, in_flight=[first.id])] == [second.id]
    assert outbox.get(first.id).state == "attempting"
    outbox.settle(first.id, NOW_S)


def test_only_what_waits_can_be_attempted(till: Till, outbox: Outbox) -> None:
    """A batch is not sent twice at once, nor while a person decides; of several, none is marked then."""
    first, second = till.batch("ann"), till.batch("bob")
    till.attempt(first.id)
    before = dump_of(till)
    with pytest.raises(ValueError, match="is attempting"):
        outbox.mark_attempting([second.id, first.id], NOW_S)
    with pytest.raises(LookupError, match="no batch 99"):
        outbox.mark_attempting([second.id, 99], NOW_S)
    assert dump_of(till) == before


# D2: in doubt is sticky.


def test_a_doubt_is_counted_once_a_try_and_dated_by_the_first(till: Till, outbox: Outbox) -> None:
    """`in_doubt_ever` grows with each such try, the bucket holds it once, the first try's time stays."""
    batch = till.batch("ann", "bob")
    for turn in range(3):
        outbox.mark_attempting([batch.id], NOW_S + turn)
        outbox.retry(
            batch.id, at_s=NOW_S, is_in_doubt=turn != 1, reason=f"try {turn}", now_s=NOW_S + turn + 0.5
        )
    found = outbox.get(batch.id)
    assert (found.tries, found.first_in_doubt_s, found.reason) == (3, NOW_S, "try 2")
    assert (found.key, found.body) == (batch.key, batch.body)
    assert till.ledger.totals()["in_doubt"] == Amount(2, 2)
    assert till.ledger.totals()["pending"] == Amount()
    assert till.ledger.in_doubt_ever() == Amount(4, 4)
    assert "in_doubt_ever" not in till.ledger.totals()
    outbox.settle(batch.id, NOW_S)
    assert till.ledger.totals()["confirmed"] == Amount(2, 2)
    assert till.ledger.in_doubt_ever() == Amount(4, 4)


FORBIDDEN: dict[str, Callable[[Outbox, int], Any]] = {
    "rekey": lambda outbox, each: outbox.rekey(each, at_s=NOW_S, reason="", now_s=NOW_S),
    "divide": lambda outbox, each: outbox.divide(each, [(0,), (1,)], reason="", now_s=NOW_S),
    "suspect": lambda outbox, each: outbox.suspect(each, reason="", now_s=NOW_S),
    "dead_letter": lambda outbox, each: outbox.dead_letter(each, reason="", now_s=NOW_S),
}


@pytest.mark.parametrize("state", ["ready", "attempting", "held"])
@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_was_in_doubt_is_never_sent_otherwise(till: Till, outbox: Outbox, name: str, state: str) -> None:
    """In whatever state: no new key, no pieces, no dead letter for a batch that was in doubt (D2)."""
    batch = till.batch("ann", "bob")
    till.doubt(batch.id)
    if state == "attempting":
        till.attempt(batch.id)
    if state == "held":
        outbox.hold(batch.id, reason="too old", now_s=NOW_S)
    before = dump_of(till)
    with pytest.raises(ValueError, match="was in doubt"):
        FORBIDDEN[name](outbox, batch.id)
    assert dump_of(till) == before
    assert (outbox.get(batch.id).key, outbox.get(batch.id).body) == (batch.key, batch.body)


def test_what_was_never_sent_cannot_be_in_doubt(till: Till, outbox: Outbox) -> None:
    """A doubt has a try; without one somebody skipped D1."""
    batch = till.batch("ann")
    with pytest.raises(ValueError, match="never marked"):
        outbox.retry(batch.id, at_s=NOW_S, is_in_doubt=True, reason="", now_s=NOW_S)
    with pytest.raises(ValueError, match="never marked"):
        outbox.hold(batch.id, reason="", now_s=NOW_S, is_in_doubt=True)


def test_a_held_batch_waits_for_a_person(till: Till, outbox: Outbox, tmp_path: Path) -> None:
    """It is not due, not waited for, stays in its bucket and keeps its seal; who it covers is told."""
    held, other = till.batch("ann"), till.batch("bob")
    till.attempt(held.id)
    trouble = {producer_id(1): Trouble(0, 1, "held: no answer")}
    outbox.hold(held.id, reason="no answer", now_s=NOW_S, is_in_doubt=True, troubles=trouble)
    till.ledger.close()
    till.ledger = open_ledger(tmp_path)
    outbox = till.ledger.outbox
    assert [batch.id for batch in outbox.due(NOW_S + 1e6, 9)] == [other.id]
    (found,) = outbox.held()
    assert (found.id, found.first_in_doubt_s, found.reason) == (held.id, NOW_S, "no answer")
    assert outbox.unsettled_by_seal() == {other.seal: {other.id}}
    assert [(seal.number, seal.batches, seal.failed_count) for seal in outbox.seals()] == [
        (held.seal, set(), 1),
        (other.seal, {other.id}, 0),
    ]
    assert outbox.amounts() == {"held": (1, Amount(1, 1)), "ready": (1, Amount(1, 1))}
    assert till.ledger.troubles() == trouble
    assert till.ledger.in_doubt_ever() == till.ledger.totals()["in_doubt"] == Amount(1, 1)
    assert till.ledger.oldest_pending_s() == other.oldest_s
    outbox.hold(held.id, reason="still", now_s=NOW_S)
    assert outbox.seals()[0].failed_count == 1
    outbox.settle(held.id, NOW_S)
    assert [seal.number for seal in outbox.seals()] == [other.seal]


# D3: certain refusal, new key.


def test_a_new_key_takes_the_place_of_the_old(till: Till, outbox: Outbox) -> None:
    """The same bytes under another key; the old batch is gone for good, its tries are remembered."""
    batch = till.batch("ann", "bob")
    till.attempt(batch.id)
    child = outbox.rekey(batch.id, at_s=NOW_S + 9, reason="401", now_s=NOW_S)
    assert (child.body, child.lots, child.seal, child.root) == (batch.body, batch.lots, batch.seal, batch.id)
    assert child.key != batch.key
    assert (child.id > batch.id, child.tries, child.not_before_s, child.reason) == (True, 1, NOW_S + 9, "401")
    with pytest.raises(LookupError):
        outbox.get(batch.id)
    assert outbox.unsettled_by_seal() == {batch.seal: {child.id}}


def test_a_divided_batch_is_replaced_by_all_of_its_rows(till: Till, outbox: Outbox) -> None:
    """Each row is in one child, its bytes unchanged, in the groups asked for; each child has a key."""
    batch = till.batch("ann", "bob", "cy", "dee", "eve")
    till.attempt(batch.id)
    children = outbox.divide(batch.id, [(3,), (0, 1, 2, 4)], reason="422", now_s=NOW_S)
    assert [users(child) for child in children] == [["dee"], ["ann", "bob", "cy", "eve"]]
    assert len({batch.key, *(child.key for child in children)}) == 3
    assert all(child.root == batch.id and child.seal == batch.seal for child in children)
    assert {child.oldest_s for child in children} == {batch.oldest_s}
    grandchildren = outbox.divide(children[1].id, [(0, 1), (2, 3)], reason="413", now_s=NOW_S)
    assert [users(child) for child in grandchildren] == [["ann", "bob"], ["cy", "eve"]]
    assert unsettled(till) == sorted([children[0].id, *(child.id for child in grandchildren)])
    for child_id in unsettled(till):
        outbox.settle(child_id, NOW_S)
    assert outbox.seals() == []
    assert dump_of(till)["families"] == []
    assert till.ledger.totals()["confirmed"] == Amount(5, 5)


@pytest.mark.parametrize("groups", [[(0,)], [(0,), (0, 1)], [(0, 1), (2,)], []])
def test_a_division_that_loses_or_doubles_a_row_is_refused(
    till: Till, outbox: Outbox, groups: list[tuple[int, ...]]
) -> None:
    """Whoever asks for less or more than each row once gets nothing done."""
    batch = till.batch("ann", "bob")
    before = dump_of(till)
    with pytest.raises(ValueError, match="each of the 2 rows"):
        outbox.divide(batch.id, groups, reason="", now_s=NOW_S)
    assert dump_of(till) == before


def test_ids_are_never_used_again(till: Till, outbox: Outbox, tmp_path: Path) -> None:
    """An answer that comes late can't settle a batch that took the number of the one it was for."""
    batch = till.batch("ann")
    outbox.settle(batch.id, NOW_S)
    till.ledger.close()
    till.ledger = open_ledger(tmp_path)
    assert till.batch("bob").id > batch.id
    assert till.batch("cy").seal == batch.seal + 2


# Families.


def test_refused_rows_wait_until_another_row_is_accepted(till: Till, outbox: Outbox) -> None:
    """A row put aside is a dead letter only once its family shows that the upstream takes rows at all."""
    batch = till.batch("ann", "bob", "cy")
    bad, good = outbox.divide(batch.id, [(0,), (1, 2)], reason="", now_s=NOW_S)
    till.attempt(bad.id, good.id)
    outbox.suspect(bad.id, reason="no such user", now_s=NOW_S)
    outbox.suspect(bad.id, reason="told twice", now_s=NOW_S)
    assert outbox.family(batch.id) == Family(rows_count=3, accepted_count=0, refused_count=1)
    assert isinstance(decide(outbox, batch.id), Wait)
    assert outbox.due(NOW_S, 9) == []
    assert unsettled(till) == [bad.id, good.id]
    outbox.settle(good.id, NOW_S)
    assert outbox.family(batch.id).accepted_count == 2
    assert isinstance(decide(outbox, batch.id), DeadLetterSuspects)
    assert [each.id for each in outbox.suspects(batch.id)] == [bad.id]
    trouble = {producer_id(1): Trouble(0, 1, "refused")}
    assert outbox.dead_letter_suspects(batch.id, now_s=NOW_S + 9, troubles=trouble) == [bad.id]
    (letter,) = outbox.dead_letters()
    assert (letter.origin, letter.reason, letter.payload) == ("batch", "no such user", bad.body)
    assert (letter.events_count, letter.quantity, letter.at_s, letter.hour) == (1, 1, NOW_S + 9, HOUR)
    assert till.ledger.troubles() == trouble
    assert till.ledger.totals()["dead_lettered"] == Amount(1, 1)
    assert outbox.seals() == []
    assert isinstance(decide(outbox, batch.id), Wait)


def test_a_decision_about_suspects_is_made_once(till: Till, outbox: Outbox) -> None:
    """Rows that are dead letters, or in a new family, are no suspects of the old one any more."""
    batch = till.batch("ann", "bob", "cy")
    singles = outbox.divide(batch.id, [(0,), (1,), (2,)], reason="", now_s=NOW_S)
    outbox.suspect(singles[0].id, reason="", now_s=NOW_S)
    outbox.settle(singles[1].id, NOW_S)
    outbox.dead_letter_suspects(batch.id, now_s=NOW_S)
    assert isinstance(decide(outbox, batch.id), Wait)
    outbox.settle(singles[2].id, NOW_S)
    assert dump_of(till)["families"] == []


def test_a_family_refused_to_the_last_row_is_put_together_again(till: Till, outbox: Outbox) -> None:
    """Its suspects become one batch of the rows in their old order, a new family that knows how often."""
    batch = till.batch("ann", "bob", "cy", "dee")
    odd, even = outbox.divide(batch.id, [(1, 3), (0, 2)], reason="", now_s=NOW_S)
    singles = [
        *outbox.divide(even.id, [(1,), (0,)], reason="", now_s=NOW_S),
        *outbox.divide(odd.id, [(0,), (1,)], reason="", now_s=NOW_S),
    ]
    for single in singles:
        till.attempt(single.id)
        outbox.suspect(single.id, reason=f"bad {users(single)}", now_s=NOW_S)
    assert isinstance(decide(outbox, batch.id), Regroup)
    retired, root = outbox.regroup(batch.id, at_s=NOW_S + 5, reason="all", now_s=NOW_S)
    assert sorted(retired) == sorted(single.id for single in singles)
    assert (root.body, root.lots, root.hour) == (batch.body, batch.lots, batch.hour)
    assert (root.root, root.seal, root.not_before_s, root.tries) == (root.id, batch.seal, NOW_S + 5, 0)
    assert root.key not in {batch.key, *(single.key for single in singles)}
    family = outbox.family(root.id)
    assert family == Family(rows_count=4, accepted_count=0, refused_count=0, rounds_count=1)
    assert [row[0] for row in dump_of(till)["families"]] == [root.id]
    assert outbox.unsettled_by_seal() == {batch.seal: {root.id}}


def test_a_second_round_knows_whether_others_were_accepted(till: Till, outbox: Outbox) -> None:
    """Only what was settled after the regrouping shows that the upstream takes the rows of others."""
    outbox.settle(till.batch("zoe").id, NOW_S)
    batch = till.batch("ann", "bob")
    root = refuse_all(till, batch)
    assert not outbox.family(root.id).is_upstream_accepting
    other = till.batch("cy")
    assert isinstance(decide(outbox, root.id), Wait)
    outbox.settle(other.id, NOW_S)
    assert outbox.family(root.id).is_upstream_accepting
    again = outbox.divide(root.id, [(0,), (1,)], reason="", now_s=NOW_S)
    for single in again:
        outbox.suspect(single.id, reason="bad", now_s=NOW_S)
    assert outbox.family(root.id).rounds_count == 1
    assert isinstance(decide(outbox, root.id), DeadLetterSuspects)
    outbox.dead_letter_suspects(root.id, now_s=NOW_S)
    assert outbox.seals() == []


def test_held_members_are_counted_and_stay_behind(till: Till, outbox: Outbox) -> None:
    """Rows in doubt are not waited for, and are in no regrouping."""
    batch = till.batch("ann", "bob", "cy")
    bad, doubtful = outbox.divide(batch.id, [(1,), (0, 2)], reason="", now_s=NOW_S)
    outbox.suspect(bad.id, reason="bad", now_s=NOW_S)
    till.attempt(doubtful.id)
    outbox.hold(doubtful.id, reason="no answer", now_s=NOW_S, is_in_doubt=True)
    assert outbox.family(batch.id) == Family(rows_count=3, accepted_count=0, refused_count=1, held_count=2)
    retired, root = outbox.regroup(batch.id, at_s=NOW_S, reason="", now_s=NOW_S)
    assert (retired, users(root)) == ([bad.id], ["bob"])
    assert [each.id for each in outbox.held()] == [doubtful.id]
    assert isinstance(decide(outbox, batch.id), Wait)
    outbox.settle(doubtful.id, NOW_S)
    assert [row[0] for row in dump_of(till)["families"]] == [root.id]
    outbox.settle(root.id, NOW_S)
    assert dump_of(till)["families"] == []
    assert outbox.seals() == []


def test_a_family_without_suspects_cannot_be_regrouped(till: Till, outbox: Outbox) -> None:
    """There is nothing to make a batch of."""
    batch = till.batch("ann", "bob")
    with pytest.raises(LookupError, match="no suspects"):
        outbox.regroup(batch.id, at_s=NOW_S, reason="", now_s=NOW_S)
    assert outbox.dead_letter_suspects(batch.id, now_s=NOW_S) == []


def decide(outbox: Outbox, root: int) -> object:
    """What the core says about a family."""
    return family_step(outbox.family(root), now_s=NOW_S, jitter=0.5)


def refuse_all(till: Till, batch: Batch) -> Batch:
    """Divide a batch, refuse each of its rows, and regroup them."""
    outbox = till.ledger.outbox
    for single in outbox.divide(batch.id, [(row,) for row in range(len(batch.lots))], reason="", now_s=NOW_S):
        outbox.suspect(single.id, reason="bad", now_s=NOW_S)
    return outbox.regroup(batch.id, at_s=NOW_S, reason="", now_s=NOW_S)[1]


# Seals and dead letters.


def test_a_seal_lasts_as_long_as_its_last_batch(till: Till, outbox: Outbox) -> None:
    """It goes with the last batch, however that went; what failed of it is remembered until then."""
    for user in ("ann", "bob", "cy"):
        till.take(1, user=user)
    first, second, third = till.seal(rows_max=1)
    outbox.settle(first, NOW_S)
    till.attempt(second, third)
    outbox.dead_letter(second, reason="refused", now_s=NOW_S)
    (seal,) = outbox.seals()
    assert (seal.batches, seal.failed_count) == ({third}, 1)
    outbox.settle(third, NOW_S)
    assert outbox.seals() == []


def test_dead_letters_are_read_in_pages(till: Till, outbox: Outbox) -> None:
    """In the order in which they came, from the one behind the last that was seen."""
    for user in ("ann", "bob", "cy"):
        outbox.dead_letter(till.batch(user).id, reason=f"no {user}", now_s=NOW_S)
    first, second = outbox.dead_letters(2)
    assert [letter.reason for letter in (first, second)] == ["no ann", "no bob"]
    assert [letter.reason for letter in outbox.dead_letters(2, after=second.id)] == ["no cy"]


def test_a_reason_from_elsewhere_is_bounded_and_can_be_stored(till: Till, outbox: Outbox) -> None:
    """A server's message of any length, with what UTF-8 can't hold, is cut and kept."""
    batch = till.batch("ann")
    till.attempt(batch.id)
    outbox.retry(batch.id, at_s=NOW_S, is_in_doubt=False, reason="\udfff\0" + "x" * 10**6, now_s=NOW_S)
    assert outbox.get(batch.id).reason.startswith("?\0xxx")
    assert len(outbox.get(batch.id).reason) <= 500
