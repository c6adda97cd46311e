"""Shipping: when windows are sealed and batches sent, and what waits for what."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector.delivery import IN_FLIGHT_MAX
from settle_mp.collector.ledger import Ledger, LedgerError
from settle_mp.collector.shipping import WINDOW_ROWS_MAX
from settle_mp.collector.startup import make_upstream
from settle_mp.core.window import HOUR_S
from settle_mp.sandbox.faults import Fault
from tests.collector.ledgers import FailingConnection, put_connection, real_connection
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
    """A collector's parts, whose windows stay open until a flush wants them."""
    with bench(state_dir, upstream, flush_interval_s=600.0) as made:
        yield made


def take_in(made: Bench, *users: str, at_s: float | None = None) -> None:
    """Take in the events of a worker that is no more."""
    make_journal(made.settings.state_dir, *users, at_s=at_s).close()
    made.take_in()


def batches(made: Bench) -> list[Batch]:
    """All batches that are not settled."""
    outbox = made.parts.state.ledger.outbox
    return [outbox.get(number) for group in outbox.unsettled_by_seal().values() for number in sorted(group)]


def wait_answer(made: Bench) -> None:
    """Wait until something has come back, and take it."""
    delivery, count = made.parts.delivery, made.parts.delivery.in_flight_count
    assert count, "nothing is under way"
    wait_until(lambda: delivery._done, "an answer has come")
    made.parts.shipping.turn(is_urgent=False)
    assert delivery.in_flight_count <= count


def keys(upstream: Upstream) -> list[str]:
    """The idempotency keys of all requests, in order."""
    return [each["idempotencyKey"] for each in upstream.log()]


# --- Sealing ---


def test_a_window_is_sealed_when_it_is_due(state_dir: Path, upstream: Upstream) -> None:
    """At its age and not before it; a flush seals at once."""
    with bench(state_dir, upstream, flush_interval_s=600.0) as made:
        take_in(made, "ada")
        made.send_out(is_urgent=False)
        assert made.parts.state.windows
        assert 500 < made.parts.shipping.left_s() <= 600
        made.parts.state.windows.opened_s = made.parts.state.now_s() - 600.0
        made.send_out(is_urgent=False)
        assert not made.parts.state.windows
        assert len(batches(made)) == 1


def test_hours_are_never_mixed(parts: Bench, upstream: Upstream) -> None:
    """A batch holds rows of one UTC hour, and each row says of which."""
    hour_s = time.time() // HOUR_S * HOUR_S - 5 * HOUR_S
    for number in range(2):
        take_in(parts, "ada", "ada", at_s=hour_s + number * HOUR_S + 7)
    parts.ship()
    starts = {str(row.metadata and row.metadata["settle_mp"]["window_start"]) for row in upstream.rows()}
    assert len(starts) == 2
    assert upstream.usage()["AI_QUERY"].requests_count == 2


def test_while_the_upstream_is_away_sums_grow_and_not_the_queue(parts: Bench, upstream: Upstream) -> None:
    """After a hundred rounds of events: a request for what was tried, and one for all that came since."""
    upstream.stop()
    take_in(parts, "ada")
    parts.send_out()
    wait_answer(parts)
    assert parts.parts.shipping.health.state == "down"
    for _ in range(100):
        take_in(parts, "ada", "bob")
        parts.send_out()
    assert len(batches(parts)) == 1
    upstream.start()
    parts.ship()
    assert upstream.quantity() == 201
    assert upstream.usage()["AI_QUERY"].rows_count == 3


def test_while_the_upstream_is_slow_windows_stay_open(parts: Bench, upstream: Upstream) -> None:
    """With as many requests under way as there may be, what comes goes into one window."""
    upstream.hold()
    for _ in range(IN_FLIGHT_MAX + 5):
        take_in(parts, "ada")
        parts.send_out()
    upstream.wait_held(IN_FLIGHT_MAX)
    assert len(batches(parts)) == IN_FLIGHT_MAX
    assert [window.events_count for window in parts.parts.state.windows] == [5]
    upstream.release()
    parts.ship()
    assert upstream.usage()["AI_QUERY"].requests_count == IN_FLIGHT_MAX + 1


def test_a_wall_clock_that_is_set_makes_no_window_due(parts: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forth or back is no age of a window: each turn would seal, and sums would not be summed."""
    real = time.time
    for step_s in (7200.0, -7200.0):
        monkeypatch.setattr("time.time", lambda step_s=step_s: real() + step_s)
        take_in(parts, "ada")
        parts.send_out(is_urgent=False)
        assert batches(parts) == []


def test_many_sums_are_sealed_before_their_time(
    parts: Bench, monkeypatch: pytest.MonkeyPatch, upstream: Upstream
) -> None:
    """A window has a bound of rows, too, so that writing it takes a fraction of a second."""
    assert WINDOW_ROWS_MAX >= 1_000
    monkeypatch.setattr("settle_mp.collector.shipping.WINDOW_ROWS_MAX", 3)
    take_in(parts, "ada", "bob")
    parts.send_out(is_urgent=False)
    assert batches(parts) == []
    take_in(parts, "cy")
    parts.send_out(is_urgent=False)
    assert len(batches(parts)) == 1
    parts.ship()
    assert upstream.quantity() == 3


def test_rows_carry_no_note_when_they_shall_not(state_dir: Path, upstream: Upstream) -> None:
    """With annotate off the users' metadata are left alone."""
    with bench(state_dir, upstream, annotate=False) as made:
        take_in(made, "ada")
        made.ship()
    assert upstream.rows()[0].metadata is None


# --- Sending ---


def test_a_batch_is_marked_before_its_first_byte(parts: Bench, upstream: Upstream) -> None:
    """Rule D1: when the upstream sees the request, the file says that it may have."""
    upstream.hold(when="before")
    take_in(parts, "ada")
    parts.send_out()
    upstream.wait_held(1)
    file = Ledger.open_read_only(parts.settings.state_dir / "ledger")
    assert list(file.outbox.amounts()) == ["attempting"]
    file.close()
    upstream.release()
    parts.ship()


def test_what_was_under_way_at_a_death_is_sent_again_as_it_was(state_dir: Path, upstream: Upstream) -> None:
    """Rule D1: `attempting` at start is in doubt, and goes again with the same key and bytes."""
    upstream.hold()
    with bench(state_dir, upstream) as made:
        take_in(made, "ada")
        made.send_out()
        upstream.wait_held(1)
        made.parts.shipping._in_flight.clear()  # it dies
    upstream.release()
    with bench(state_dir, upstream) as made:
        assert [batch.is_in_doubt for batch in batches(made)] == [True]
        made.ship()
    log = upstream.log()
    assert len(log) >= 2
    assert len({(each["idempotencyKey"], each["bodySha256"]) for each in log}) == 1
    assert upstream.quantity() == 1


def test_with_hold_it_is_held_instead(state_dir: Path, upstream: Upstream) -> None:
    """Rule D2: on_in_doubt = hold is about what a death left as well: no second request, a person decides."""
    upstream.hold()
    with bench(state_dir, upstream, on_in_doubt="hold") as made:
        take_in(made, "ada")
        made.send_out()
        upstream.wait_held(1)
    upstream.release()
    with bench(state_dir, upstream, on_in_doubt="hold") as made:
        made.ship()
        assert [batch.state for batch in made.parts.state.ledger.outbox.held()] == ["held"]
        assert made.faults() == []
    assert upstream.requests_count == 1


def test_a_batch_that_backs_off_lets_the_others_pass(parts: Bench, upstream: Upstream) -> None:
    """One batch that the upstream can't take now is no reason for the next not to be sent."""
    upstream.fault(Fault.answering(429, when="before", headers={"Retry-After": "3600"}))
    take_in(parts, "ada")
    parts.send_out()
    wait_answer(parts)
    (waiting,) = batches(parts)
    assert waiting.not_before_s > time.time() + 3000
    parts.parts.shipping.health.become("ok")
    take_in(parts, "bob")
    parts.send_out()
    upstream.wait_quantity(1)
    wait_answer(parts)
    assert [batch.id for batch in batches(parts)] == [waiting.id]


def test_what_ends_is_not_sent(parts: Bench, upstream: Upstream) -> None:
    """While the collector ends it takes answers, and begins nothing that would end in doubt."""
    take_in(parts, "ada")
    parts.parts.shipping.turn(is_urgent=True, is_ending=True)
    assert parts.parts.state.windows
    upstream.hold()
    parts.send_out()
    upstream.wait_held(1)
    upstream.release()
    wait_until(lambda: parts.parts.delivery._done, "the answer has come")
    parts.parts.shipping.turn(is_urgent=True, is_ending=True)
    assert parts.parts.is_drained()


def test_an_answer_that_the_ledger_can_not_take_is_asked_for_again(parts: Bench, upstream: Upstream) -> None:
    """Rule L1: the answer is lost with the transaction; the batch is in doubt, and its key brings it back."""
    take_in(parts, "ada")
    parts.send_out()
    wait_until(lambda: parts.parts.delivery._done, "the answer has come")
    ledger = parts.parts.state.ledger
    real = real_connection(ledger)
    put_connection(ledger, FailingConnection(real, 3, is_after=False))
    with pytest.raises(LedgerError):
        parts.parts.shipping.turn(is_urgent=False)
    put_connection(ledger, real)
    parts.parts.reload()
    assert [batch.is_in_doubt for batch in batches(parts)] == [True]
    parts.ship()
    assert upstream.quantity() == 1
    assert len(set(keys(upstream))) == 1
    assert parts.faults() == []


# --- Pauses ---


def pause(made: Bench, upstream: Upstream, status: int = 401) -> Batch:
    """Let the upstream refuse the set-up of the sender."""
    upstream.fault(Fault.answering(status, when="before", times=None))
    take_in(made, "ada")
    made.send_out()
    wait_answer(made)
    (batch,) = batches(made)
    return batch


def mend(made: Bench, **settings: Any) -> None:
    """Read settings and key again, as SIGHUP does."""
    made.parts.shipping.replace(made.settings, make_upstream(made.settings), **settings)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 307])
def test_a_wrong_set_up_pauses_everything_and_loses_nothing(
    parts: Bench, upstream: Upstream, status: int
) -> None:
    """Nothing is sent but now and then the one request that asks whether it is mended; nothing is sealed."""
    batch = pause(parts, upstream, status)
    health = parts.parts.shipping.health
    assert (health.state, str(status) in str(health.last_error)) == ("paused", True)
    assert batch.tries == 1
    health.paused_until_s += 600
    for _ in range(20):
        take_in(parts, "bob")
        parts.send_out()
    assert len(batches(parts)) == 1
    assert upstream.requests_count == 1
    upstream.clear_faults()
    mend(parts)
    parts.ship()
    assert upstream.quantity() == 21
    assert parts.faults() == []


def test_a_pause_ends_by_itself(parts: Bench, upstream: Upstream) -> None:
    """Whoever mends it need not come here: the next request after the pause finds out."""
    pause(parts, upstream)
    upstream.clear_faults()
    assert 0 < parts.parts.shipping.left_s() <= 1.0
    parts.ship()
    assert parts.parts.shipping.health.state == "ok"


def test_a_certain_refusal_gets_a_new_key(parts: Bench, upstream: Upstream) -> None:
    """Rule D3: a server may replay its stored 401 for the old one."""
    upstream.fault(Fault.answering(401, when="before", is_stored=True))
    take_in(parts, "ada")
    parts.ship()
    assert len(set(keys(upstream))) == 2
    assert upstream.quantity() == 1


def test_a_pause_with_a_request_under_way_does_not_spin(parts: Bench, upstream: Upstream) -> None:
    """The one request after a pause may take long; what else is due waits for its answer, and so do we."""
    pause(parts, upstream)
    upstream.clear_faults()
    upstream.hold()
    health = parts.parts.shipping.health
    health.become("ok")
    take_in(parts, "bob")
    parts.parts.shipping._seal(time.time())
    health.become("paused", "401", 0.0)
    parts.send_out()
    upstream.wait_held(1)
    assert health.state == "paused"
    assert len(batches(parts)) == 2
    assert parts.parts.state.ledger.outbox.next_due_s() is not None
    assert parts.parts.shipping.left_s() > 60
    upstream.release()
    parts.ship()


def test_a_mend_sends_at_once_what_would_wait(parts: Bench, upstream: Upstream) -> None:
    """However far the pauses have grown; and when the mend was none, they go on as before."""
    pause(parts, upstream)
    for _ in range(6):
        parts.parts.shipping.health.paused_until_s = 0.0
        parts.parts.state.ledger.outbox.retry(
            batches(parts)[0].id, at_s=0.0, is_in_doubt=False, reason="again", now_s=time.time()
        )
        parts.send_out()
        wait_answer(parts)
    count = upstream.requests_count
    assert batches(parts)[0].not_before_s > time.time() + 5
    mend(parts)
    parts.send_out()
    wait_answer(parts)
    assert upstream.requests_count == count + 1
    for _ in range(20):
        parts.send_out()
    assert upstream.requests_count == count + 1, "401 again: no hurry"
    upstream.clear_faults()
    mend(parts)
    started_s = time.monotonic()
    parts.ship()
    assert time.monotonic() - started_s < 5
    assert upstream.quantity() == Decimal(1)


def test_a_mend_that_mends_nothing_makes_no_haste(parts: Bench, upstream: Upstream) -> None:
    """Whatever is wrong now, what waited is sent once, and then at its own time again."""
    pause(parts, upstream)
    upstream.clear_faults()
    upstream.fault(Fault.answering(429, when="before", times=None, headers={"Retry-After": "900"}))
    mend(parts)
    parts.send_out()
    wait_answer(parts)
    count = upstream.requests_count
    for _ in range(20):
        parts.send_out()
    assert parts.parts.shipping.in_flight == frozenset()
    assert upstream.requests_count == count


def test_without_a_key_nothing_is_sealed(state_dir: Path, upstream: Upstream) -> None:
    """It collects; with a key it ships, in one request."""
    with bench(state_dir) as made:
        for _ in range(3):
            take_in(made, "ada")
            made.send_out()
        assert made.parts.shipping.left_s() == float("inf")
        assert batches(made) == []
    with bench(state_dir, upstream) as made:
        made.ship()
    assert upstream.usage()["AI_QUERY"].rows_count == 1
