"""What a person decides, in the ledger: families, seals and buckets afterwards; `test_desk` has the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from settle_mp.core.books import Amount
from settle_mp.core.family import Family
from settle_mp.core.window import draft_of_body
from tests.collector.ledgers import NOW_S, Till, dump_of, faults, open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.collector.decisions import Decisions
    from settle_mp.collector.outbox import Batch


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A ledger with one producer, whose books balance in the end."""
    made = Till(open_ledger(tmp_path))
    made.introduce(1)
    yield made
    assert faults(made.ledger) == []
    made.ledger.close()


@pytest.fixture
def decisions(till: Till) -> Decisions:
    """What a person can do."""
    return till.ledger.decisions


def held(till: Till, *users: str) -> Batch:
    """A batch whose only try ended in doubt."""
    batch = till.batch(*users)
    till.attempt(batch.id)
    till.ledger.outbox.hold(batch.id, reason="no answer", now_s=NOW_S, is_in_doubt=True)
    return till.ledger.outbox.get(batch.id)


def state_of(till: Till, batch: Batch) -> tuple[Family, list[tuple[set[int], int]]]:
    """What is known of its family, and the unsettled batches and failed events of all seals."""
    seals = [(seal.batches, seal.failed_count) for seal in till.ledger.outbox.seals()]
    return till.ledger.outbox.family(batch.root), seals


def test_what_is_ordered_is_waited_for_again(till: Till, decisions: Decisions) -> None:
    """By flushes, which count it as failed no more, and by its family."""
    batch = held(till, "ann", "bob")
    assert state_of(till, batch) == (
        Family(rows_count=2, accepted_count=0, refused_count=0, held_count=2),
        [(set(), 2)],
    )
    decisions.retry(batch.id, NOW_S)
    assert state_of(till, batch) == (
        Family(rows_count=2, accepted_count=0, refused_count=0),
        [({batch.id}, 0)],
    )
    ordered = till.ledger.outbox.get(batch.id)
    assert (ordered.state, ordered.key, ordered.body) == ("ordered", batch.key, batch.body)
    assert [each.id for each in till.ledger.outbox.due(NOW_S, 9)] == [batch.id]
    assert till.ledger.totals()["in_doubt"] == Amount(2, 2)
    till.attempt(batch.id)
    till.ledger.outbox.settle(batch.id, NOW_S)
    assert dump_of(till)["families"] == dump_of(till)["seals"] == []


def test_what_is_renewed_is_a_certain_batch_of_its_family(till: Till, decisions: Decisions) -> None:
    """It may be divided and refused like any other."""
    batch = held(till, "ann", "bob")
    new = decisions.renew(batch.id, NOW_S)
    assert (new.root, new.body, new.is_in_doubt) == (batch.root, batch.body, False)
    assert new.key != batch.key
    assert state_of(till, batch) == (Family(rows_count=2, accepted_count=0, refused_count=0), [({new.id}, 0)])
    children = till.ledger.outbox.divide(new.id, [(0,), (1,)], reason="refused", now_s=NOW_S)
    for child in children:
        till.ledger.outbox.settle(child.id, NOW_S)
    assert dump_of(till)["families"] == dump_of(till)["seals"] == []
    assert till.ledger.totals()["confirmed"] == Amount(2, 2)


@pytest.mark.parametrize("name", ["confirm", "discard"])
def test_what_is_settled_leaves_nothing_behind(till: Till, decisions: Decisions, name: str) -> None:
    """No family, no seal, no body; its events are counted where they belong."""
    batch = held(till, "ann", "bob")
    getattr(decisions, name)(batch.id, NOW_S)
    rows = dump_of(till)
    assert rows["families"] == rows["seals"] == rows["batches"] == rows["bodies"] == []
    bucket = {"confirm": "confirmed", "discard": "discarded"}[name]
    assert till.ledger.totals()[bucket] == Amount(2, 2)
    assert [row[0] for row in rows["receipts"]] == [bucket]


@pytest.mark.parametrize("name", ["retry", "renew", "confirm", "discard"])
def test_only_what_is_held_can_be_decided_about(till: Till, decisions: Decisions, name: str) -> None:
    """What waits, is under way or was never there is refused, and nothing is changed."""
    batch = till.batch("ann")
    before = dump_of(till)
    with pytest.raises(ValueError, match=r"is not held \(it is ready\)"):
        getattr(decisions, name)(batch.id, NOW_S)
    with pytest.raises(LookupError, match="no batch 99"):
        getattr(decisions, name)(99, NOW_S)
    assert dump_of(till) == before


@pytest.mark.parametrize("name", ["retry", "renew"])
def test_what_fails_its_checksum_is_not_sent(till: Till, decisions: Decisions, name: str) -> None:
    """A person may settle it, and nobody send it."""
    batch = held(till, "ann")
    with till.ledger.transaction():
        till.ledger._database.run("UPDATE bodies SET body = x'00'")
    with pytest.raises(ValueError, match="fails its checksum"):
        getattr(decisions, name)(batch.id, NOW_S)
    decisions.discard(batch.id, NOW_S)


def test_a_letters_events_are_pending_again_and_known_by_then(till: Till, decisions: Decisions) -> None:
    """A row as it was; an event that was refused at intake with the quantity that it has by now."""
    refused = till.batch("ann")
    till.ledger.outbox.dead_letter(refused.id, reason="no", now_s=NOW_S)
    till.take(1, events_count=0, invalid=((0, b"\x01", "bad"),))
    row, event = till.ledger.outbox.dead_letters()
    drafts = [draft_of_body(row.hour, row.payload, events_count=1, quantity=quantity) for quantity in (1, 7)]
    number, ids = decisions.replay(list(zip((row, event), drafts, strict=True)), NOW_S)
    assert till.ledger.outbox.dead_letters() == []
    assert till.ledger.totals()["pending"] == Amount(2, 8)
    assert till.ledger.totals()["committed"] == Amount(2, 8)
    assert [(seal.number, seal.batches, seal.reaches) for seal in till.ledger.outbox.seals()] == [
        (number, set(ids), {})
    ]
    assert decisions.last_letter == event.id
    assert decisions.last_held == 0
