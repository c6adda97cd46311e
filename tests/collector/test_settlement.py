"""Settlement: what each answer of a real upstream does to its batch, in the ledger and in memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from settle_mp.sandbox.faults import Fault
from tests.collectors import Bench, bench, make_journal
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.collector.outbox import Batch
    from tests.upstreams import Upstream

__all__ = ["upstream"]


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir, upstream) as made:
        yield made


def send(made: Bench, *users: str) -> None:
    """Take in an event for each user, send them in one request, and take the answer."""
    make_journal(made.settings.state_dir, *users).close()
    made.take_in()
    made.send_out()
    answer(made)


def answer(made: Bench) -> None:
    """Wait for the answer under way, and take it."""
    wait_until(lambda: made.parts.delivery._done, "an answer has come")
    made.parts.shipping.turn(is_urgent=False, is_ending=True)


def batches(made: Bench) -> list[Batch]:
    """All batches that are not settled, held ones left out."""
    outbox = made.parts.state.ledger.outbox
    return [outbox.get(number) for group in outbox.unsettled_by_seal().values() for number in sorted(group)]


def amounts(made: Bench) -> dict[str, int]:
    """Events by bucket, where there are any."""
    totals = made.parts.state.ledger.totals()
    return {name: total.events for name, total in totals.items() if total.events and name != "committed"}


def test_accepted_is_confirmed(parts: Bench) -> None:
    """2xx: the batch is gone, its events confirmed, and no flush waits for its seal."""
    send(parts, "ada", "bob")
    assert amounts(parts) == {"confirmed": 2}
    assert not parts.parts.state.seals.is_waiting(2**63)
    assert parts.parts.shipping.health.state == "ok"


@pytest.mark.parametrize(
    "fault",
    [
        Fault.answering(500),
        Fault.answering(503, when="before"),
        Fault.answering(408, when="before"),
        Fault.reset(when="after"),
        Fault.html(200),
    ],
)
def test_what_may_have_been_applied_is_in_doubt(parts: Bench, upstream: Upstream, fault: Fault) -> None:
    """Rule D2: it is sent again whole, with the same key and bytes, and counted once for its doubtful try."""
    upstream.fault(fault)
    send(parts, "ada", "bob")
    assert amounts(parts) == {"in_doubt": 2}
    assert parts.parts.shipping.health.state == "down"
    parts.ship()
    assert amounts(parts) == {"confirmed": 2}
    assert parts.parts.state.ledger.in_doubt_ever().events == 2
    log = upstream.log()
    assert len({(each["idempotencyKey"], each["bodySha256"]) for each in log}) == 1
    assert upstream.quantity() == 2


def test_a_later_refusal_of_what_was_in_doubt_is_held(parts: Bench, upstream: Upstream) -> None:
    """Rule D2: nobody knows whether the first try was applied: it is neither cut nor sent under a new key."""
    upstream.fault(Fault.answering(500, when="before"), Fault.answering(400, when="before"))
    send(parts, "ada", "bob")
    parts.ship()
    (held,) = parts.parts.state.ledger.outbox.held()
    assert "may have been applied" in held.reason
    assert amounts(parts) == {"in_doubt": 2}
    assert len({each["idempotencyKey"] for each in upstream.log()}) == 1
    assert [trouble.events_count for trouble in parts.parts.state.seals.troubles.values()] == [2]


def test_what_was_in_doubt_for_too_long_is_held(state_dir: Path, upstream: Upstream) -> None:
    """Rule D2: once the upstream may have forgotten the key, the collector sends it no more by itself."""
    upstream.fault(Fault.answering(500))
    with bench(state_dir, upstream, idempotency_ttl_s=1.0) as parts:
        send(parts, "ada")
        parts.parts.state._clock_offset_s += 3600.0
        parts.ship()
        (held,) = parts.parts.state.ledger.outbox.held()
        assert "idempotency_ttl_s" in held.reason
    assert upstream.requests_count == 1


def test_the_guilty_row_is_found(parts: Bench, upstream: Upstream) -> None:
    """A refused batch is cut until the row is alone; all others are confirmed, it is a dead letter."""
    upstream.fault(Fault.refuse("mallory"))
    send(parts, *(f"user_{number}" for number in range(9)), "mallory")
    parts.ship()
    assert amounts(parts) == {"confirmed": 9, "dead_lettered": 1}
    (letter,) = parts.parts.state.ledger.outbox.dead_letters()
    assert b"mallory" in letter.payload
    assert "400" in letter.reason
    keys = [each["idempotencyKey"] for each in upstream.log()]
    assert len(set(keys)) == len(keys), "rule D3: what was certainly refused gets a new key"
    assert parts.faults() == []


def test_no_row_of_a_batch_is_dead_when_none_is_accepted(parts: Bench, upstream: Upstream) -> None:
    """All rows refused: the fault lies elsewhere, so everything pauses and is kept."""
    upstream.fault(Fault.answering(400, when="before", times=None))
    send(parts, "ada", "bob", "cy")
    health = parts.parts.shipping.health
    deadline_s = time.monotonic() + 20
    while health.state != "paused":
        parts.send_out()
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
    assert "all 3 rows" in str(health.last_error)
    assert amounts(parts) == {"pending": 3}
    upstream.clear_faults()
    health.paused_until_s = 0.0
    parts.parts.shipping._is_mended = True
    parts.ship()
    assert amounts(parts) == {"confirmed": 3}
    assert parts.faults() == []


def test_a_mended_set_up_goes_on_under_a_new_key(parts: Bench, upstream: Upstream) -> None:
    """Rule D3: the stored 401 of the old key may be replayed for ever, so the same bytes get a new one."""
    upstream.fault(Fault.answering(401, when="before"))
    send(parts, "ada", "bob")
    (batch,) = batches(parts)
    (refused,) = upstream.log()
    assert batch.key != refused["idempotencyKey"]
    assert amounts(parts) == {"pending": 2}
    parts.parts.shipping.health.paused_until_s = 0.0
    parts.parts.shipping._is_mended = True
    parts.ship()
    assert amounts(parts) == {"confirmed": 2}
    sent = upstream.log()[-1]
    assert (sent["idempotencyKey"], sent["bodySha256"]) == (batch.key, refused["bodySha256"])
    assert parts.faults() == []


def test_too_large_is_cut(parts: Bench, upstream: Upstream) -> None:
    """413: halves are sent under keys of their own, and all rows arrive."""
    upstream.fault(Fault.answering(413, when="before"))
    send(parts, *(f"user_{number}" for number in range(5)))
    assert sorted(len(batch.lots) for batch in batches(parts)) == [2, 3]
    parts.ship()
    assert amounts(parts) == {"confirmed": 5}
    assert upstream.quantity() == 5


def test_deferred_waits_as_long_as_it_is_asked_to(parts: Bench, upstream: Upstream) -> None:
    """429: pending, not in doubt, the same key again, and not before Retry-After."""
    upstream.fault(Fault.answering(429, when="before", headers={"Retry-After": "120"}))
    send(parts, "ada")
    (batch,) = batches(parts)
    assert 100 < batch.not_before_s - time.time() <= 121
    assert amounts(parts) == {"pending": 1}
    assert not batch.is_in_doubt


def test_an_upstream_that_is_away_is_no_doubt(parts: Bench, upstream: Upstream) -> None:
    """A refused connection certainly applied nothing."""
    upstream.stop()
    send(parts, "ada")
    assert amounts(parts) == {"pending": 1}
    assert parts.parts.state.ledger.in_doubt_ever().events == 0
    upstream.start()
    parts.ship()
    assert amounts(parts) == {"confirmed": 1}


def test_failures_of_one_transaction_add_up(state_dir: Path, upstream: Upstream) -> None:
    """Two batches with events of one producer are held at once: its next flush is told of both."""
    upstream.fault(Fault.answering(500, times=2))
    with bench(state_dir, upstream, on_in_doubt="hold", batch_rows_max=1) as parts:
        journal = make_journal(state_dir, "ada", "bob")
        journal.close()
        parts.take_in()
        parts.send_out()
        wait_until(lambda: len(parts.parts.delivery._done) == 2, "both answers have come")
        parts.parts.shipping.turn(is_urgent=False, is_ending=True)
        assert parts.parts.state.seals.troubles[journal.producer].events_count == 2
        assert parts.parts.state.ledger.troubles() == parts.parts.state.seals.troubles


def test_memory_and_ledger_agree_after_every_answer(parts: Bench, upstream: Upstream) -> None:
    """Rule L1: what is read again is what was remembered, after cuts, doubts, refusals and receipts."""
    upstream.fault(
        # Her row's refusal first, or one of the others might come to the batch that she is in, and apply her.
        Fault.refuse("mallory"),
        Fault.answering(413, when="before"),
        Fault.answering(500),
        Fault.reset(),
    )
    make_journal(parts.settings.state_dir, *(f"user_{number}" for number in range(7)), "mallory").close()
    parts.take_in()
    deadline_s = time.monotonic() + 30
    while not parts.parts.is_drained():
        parts.send_out()
        remembered = {seal.number: set(seal.batches) for seal in parts.parts.state.seals._seals.values()}
        assert remembered == parts.parts.state.ledger.outbox.unsettled_by_seal()
        assert parts.parts.state.seals.troubles == parts.parts.state.ledger.troubles()
        assert time.monotonic() < deadline_s
        time.sleep(0.002)
    assert upstream.quantity() == 7
