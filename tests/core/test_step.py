"""The table from an outcome to a step, and the delays."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.outcome import RETRY_AFTER_MAX_S, Outcome, Verdict
from settle_mp.core.step import (
    BACKOFF_BASE_S,
    BACKOFF_MAX_S,
    PAUSE_BASE_S,
    PAUSE_MAX_S,
    BatchState,
    Divide,
    Hold,
    OnInDoubt,
    Pause,
    RetryAt,
    Settle,
    Step,
    Suspect,
    backoff_s,
    hold_before_try,
    next_step,
    pause_s,
)

NOW_S = 1_800_000_000.0
TTL_S = 86_400.0
FRESH = BatchState(rows_count=10, tries_count=1, tried_at_s=NOW_S - 2.0)
DOUBTED = replace(FRESH, tries_count=3, first_in_doubt_s=NOW_S - 60.0)
REFUSALS = [Outcome.REFUSED, Outcome.TOO_LARGE]

JITTERS = st.floats(0, 1, exclude_max=True)


def _verdict(outcome: Outcome, *, retry_after_s: float | None = None) -> Verdict:
    return Verdict(outcome=outcome, reason="because", retry_after_s=retry_after_s)


def _step(
    batch: BatchState, verdict: Verdict, *, on_in_doubt: OnInDoubt = "retry", now_s: float = NOW_S
) -> Step:
    return next_step(
        batch, verdict, now_s=now_s, on_in_doubt=on_in_doubt, idempotency_ttl_s=TTL_S, jitter=0.5
    )


@pytest.mark.parametrize("batch", [FRESH, DOUBTED])
@pytest.mark.parametrize("on_in_doubt", ["retry", "hold"])
def test_an_accepted_batch_is_settled(batch: BatchState, on_in_doubt: OnInDoubt) -> None:
    """Acceptance ends every doubt."""
    assert _step(batch, _verdict(Outcome.ACCEPTED), on_in_doubt=on_in_doubt) == Settle()


def test_a_deferred_batch_is_tried_again_with_its_key() -> None:
    """Nothing was stored under the key, and nothing is in doubt."""
    step = _step(FRESH, _verdict(Outcome.DEFERRED))
    assert step == RetryAt(at_s=NOW_S + 0.5 * BACKOFF_BASE_S, first_in_doubt_s=None)


def test_doubt_begins_when_the_try_began() -> None:
    """The upstream may remember the key from the first byte on, so its age is counted from there."""
    step = _step(FRESH, _verdict(Outcome.IN_DOUBT))
    assert step == RetryAt(at_s=NOW_S + 0.5 * BACKOFF_BASE_S, first_in_doubt_s=FRESH.tried_at_s)


def test_doubt_keeps_its_first_time() -> None:
    """A second try in doubt does not make the key younger."""
    step = _step(DOUBTED, _verdict(Outcome.IN_DOUBT))
    assert isinstance(step, RetryAt)
    assert step.first_in_doubt_s == DOUBTED.first_in_doubt_s


def test_hold_holds_at_the_first_doubt() -> None:
    """With on_in_doubt=hold nothing that may have been applied is sent again by itself."""
    step = _step(FRESH, _verdict(Outcome.IN_DOUBT), on_in_doubt="hold")
    assert isinstance(step, Hold)
    assert step.first_in_doubt_s == FRESH.tried_at_s
    assert "on_in_doubt" in step.reason


def test_hold_does_not_touch_what_is_certain() -> None:
    """on_in_doubt=hold is about doubt only: a rate limit is waited for."""
    assert isinstance(_step(FRESH, _verdict(Outcome.DEFERRED), on_in_doubt="hold"), RetryAt)


@pytest.mark.parametrize("outcome", REFUSALS)
@pytest.mark.parametrize("rows_count", [1, 10])
def test_a_refusal_after_doubt_is_held(outcome: Outcome, rows_count: int) -> None:
    """The earlier try may have been applied, so the refusal says nothing about it (D2)."""
    step = _step(replace(DOUBTED, rows_count=rows_count), _verdict(outcome))
    assert isinstance(step, Hold)
    assert "an earlier try may have been applied" in step.reason


@pytest.mark.parametrize("outcome", [Outcome.IN_DOUBT, Outcome.DEFERRED, Outcome.MISCONFIGURED])
def test_a_doubt_older_than_the_keys_is_held(outcome: Outcome) -> None:
    """The upstream may have forgotten the key: sending it again could be applied twice."""
    since_s = DOUBTED.first_in_doubt_s
    assert since_s is not None
    assert not isinstance(_step(DOUBTED, _verdict(outcome), now_s=since_s + TTL_S), Hold)
    step = _step(DOUBTED, _verdict(outcome), now_s=since_s + TTL_S + 1.0)
    assert isinstance(step, Hold)
    assert "idempotency_ttl_s" in step.reason


def test_age_is_also_asked_before_a_try() -> None:
    """A batch may have waited out the key's life, say while the collector was down."""
    since_s = DOUBTED.first_in_doubt_s
    assert since_s is not None
    assert hold_before_try(DOUBTED, now_s=since_s + TTL_S, idempotency_ttl_s=TTL_S) is None
    held = hold_before_try(DOUBTED, now_s=since_s + TTL_S + 1.0, idempotency_ttl_s=TTL_S)
    assert isinstance(held, Hold)
    assert held.first_in_doubt_s == since_s
    assert hold_before_try(FRESH, now_s=NOW_S + 10 * TTL_S, idempotency_ttl_s=TTL_S) is None


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("since_s", [NOW_S - 60.0, NOW_S - 2 * TTL_S])
def test_an_order_stands_until_a_try_gets_through(outcome: Outcome, since_s: float) -> None:
    """What a person ordered is held again only for what the upstream said of the batch itself."""
    ordered = replace(DOUBTED, first_in_doubt_s=since_s, is_ordered=True)
    step = _step(ordered, _verdict(outcome), on_in_doubt="hold")
    expected = {Outcome.ACCEPTED: Settle, Outcome.DEFERRED: RetryAt, Outcome.MISCONFIGURED: Pause}
    assert type(step) is expected.get(outcome, Hold)
    if isinstance(step, RetryAt | Pause):
        assert step.first_in_doubt_s == since_s


def test_a_wrong_set_up_pauses_and_changes_the_key() -> None:
    """What was certainly refused goes on under a new key, since the refusal may be replayed (D3)."""
    step = _step(FRESH, _verdict(Outcome.MISCONFIGURED))
    assert isinstance(step, Pause)
    assert step.is_new_key
    assert NOW_S < step.retry_at_s <= NOW_S + PAUSE_BASE_S
    assert step.reason == "because"


def test_a_wrong_set_up_after_doubt_pauses_and_keeps_the_key() -> None:
    """The refusal says nothing about the earlier try, so the key stays (D2)."""
    step = _step(DOUBTED, _verdict(Outcome.MISCONFIGURED))
    assert isinstance(step, Pause)
    assert not step.is_new_key
    assert step.first_in_doubt_s == DOUBTED.first_in_doubt_s


@pytest.mark.parametrize("outcome", REFUSALS)
def test_a_refused_row_alone_is_a_suspect(outcome: Outcome) -> None:
    """Its family decides what becomes of it."""
    assert _step(replace(FRESH, rows_count=1), _verdict(outcome)) == Suspect(reason="because")


@pytest.mark.parametrize("outcome", REFUSALS)
def test_several_refused_rows_are_halved(outcome: Outcome) -> None:
    """Bisecting and splitting are one: the halves are tried on their own."""
    step = _step(replace(FRESH, rows_count=5), _verdict(outcome))
    assert step == Divide(groups=((0, 1), (2, 3, 4)), reason="because")


@pytest.mark.parametrize(
    ("named", "groups"),
    [
        ((3,), ((3,), (0, 1, 2, 4))),
        ((0, 4), ((0,), (4,), (1, 2, 3))),
        ((0, 1, 2, 3, 4), ((0, 1), (2, 3, 4))),
        ((7,), ((0, 1), (2, 3, 4))),
    ],
)
def test_named_rows_are_set_apart(named: tuple[int, ...], groups: tuple[tuple[int, ...], ...]) -> None:
    """A good hint spares the bisecting; one that names all or strange rows is not followed."""
    verdict = Verdict(outcome=Outcome.REFUSED, reason="because", refused_rows=named)
    assert _step(replace(FRESH, rows_count=5), verdict) == Divide(groups=groups, reason="because")


@pytest.mark.parametrize("outcome", [Outcome.DEFERRED, Outcome.IN_DOUBT])
def test_retry_after_wins_when_it_is_longer(outcome: Outcome) -> None:
    """Never earlier than the upstream asks, never earlier than our own delay."""
    longer = _step(FRESH, _verdict(outcome, retry_after_s=100.0))
    shorter = _step(FRESH, _verdict(outcome, retry_after_s=0.01))
    assert isinstance(longer, RetryAt)
    assert isinstance(shorter, RetryAt)
    assert longer.at_s == NOW_S + 100.0
    assert shorter.at_s == NOW_S + 0.5 * BACKOFF_BASE_S


def test_retry_after_lengthens_a_pause() -> None:
    """A 403 with Retry-After is a gateway's way to say when it opens again."""
    step = _step(FRESH, _verdict(Outcome.MISCONFIGURED, retry_after_s=100.0))
    assert isinstance(step, Pause)
    assert step.retry_at_s == NOW_S + 100.0


def test_delays_grow_to_their_bound() -> None:
    """Doubling from the base; the bound holds for any number of tries."""
    assert [backoff_s(count, jitter=1.0) for count in (1, 2, 3, 8)] == [0.5, 1.0, 2.0, BACKOFF_MAX_S]
    assert [pause_s(count, jitter=1.0) for count in (1, 2, 3, 8)] == [1.0, 2.0, 4.0, PAUSE_MAX_S]
    assert backoff_s(10**9, jitter=1.0) == BACKOFF_MAX_S
    assert pause_s(10**9, jitter=1.0) == PAUSE_MAX_S


@given(st.integers(0, 10**9), JITTERS)
def test_delays_stay_in_their_bounds(count: int, jitter: float) -> None:
    """Full jitter for a retry, half for a pause, so that a pause never hammers a wrong set-up."""
    assert 0 <= backoff_s(count, jitter=jitter) <= BACKOFF_MAX_S
    assert PAUSE_BASE_S / 2 <= pause_s(count, jitter=jitter) <= PAUSE_MAX_S


VERDICTS = st.builds(
    Verdict,
    outcome=st.sampled_from(Outcome),
    reason=st.just("because"),
    retry_after_s=st.none() | st.floats(0, RETRY_AFTER_MAX_S),
    refused_rows=st.lists(st.integers(0, 60), max_size=8, unique=True).map(lambda rows: tuple(sorted(rows))),
)


@given(
    rows_count=st.integers(1, 50),
    verdicts=st.lists(VERDICTS, min_size=1, max_size=12),
    on_in_doubt=st.sampled_from(["retry", "hold"]),
    waits_s=st.lists(st.floats(0, TTL_S / 3), min_size=12, max_size=12),
    jitter=JITTERS,
)
def test_doubt_is_sticky(
    rows_count: int,
    verdicts: list[Verdict],
    on_in_doubt: OnInDoubt,
    waits_s: list[float],
    jitter: float,
) -> None:
    """Through any answers, a batch once in doubt is sent again as it is, or ends confirmed or held."""
    now_s, doubted_at_s = NOW_S, None
    for tries_count, (verdict, wait_s) in enumerate(zip(verdicts, waits_s, strict=False), start=1):
        batch = BatchState(
            rows_count=rows_count, tries_count=tries_count, tried_at_s=now_s, first_in_doubt_s=doubted_at_s
        )
        if doubted_at_s is None and verdict.outcome is Outcome.IN_DOUBT:
            doubted_at_s = now_s
        now_s += 1.0
        step = next_step(
            batch,
            verdict,
            now_s=now_s,
            on_in_doubt=on_in_doubt,
            idempotency_ttl_s=TTL_S,
            jitter=jitter,
        )
        if doubted_at_s is not None:
            assert isinstance(step, (Settle, RetryAt, Hold, Pause))
            assert getattr(step, "first_in_doubt_s", doubted_at_s) == doubted_at_s
            assert not (isinstance(step, Pause) and step.is_new_key)
            is_sent_again = isinstance(step, (RetryAt, Pause))
            assert not (is_sent_again and (on_in_doubt == "hold" or now_s - doubted_at_s > TTL_S))
        if not isinstance(step, (RetryAt, Pause)):
            return
        now_s += wait_s


@given(st.integers(2, 60), VERDICTS)
def test_a_division_loses_no_row_and_ends(rows_count: int, verdict: Verdict) -> None:
    """The groups hold each row once and each is smaller than the whole, so dividing comes to an end."""
    step = _step(replace(FRESH, rows_count=rows_count), replace(verdict, outcome=Outcome.REFUSED))
    assert isinstance(step, Divide)
    assert sorted(row for group in step.groups for row in group) == list(range(rows_count))
    assert all(0 < len(group) < rows_count and list(group) == sorted(group) for group in step.groups)
