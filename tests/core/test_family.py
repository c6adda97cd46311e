"""Families: which refused rows become dead letters."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.family import DeadLetterSuspects, Family, FamilyStep, Regroup, Wait, family_step
from settle_mp.core.outcome import Outcome, Verdict
from settle_mp.core.step import PAUSE_MAX_S, BatchState, Divide, Settle, Suspect, next_step

NOW_S = 1_800_000_000.0
REFUSED_ALL = Family(rows_count=4, accepted_count=0, refused_count=4)


def _decide(family: Family) -> FamilyStep:
    return family_step(family, now_s=NOW_S, jitter=0.5)


@pytest.mark.parametrize(
    ("family", "step"),
    [
        (Family(rows_count=4, accepted_count=0, refused_count=0), Wait()),
        (Family(rows_count=4, accepted_count=4, refused_count=0), Wait()),
        (Family(rows_count=4, accepted_count=0, refused_count=3), Wait()),
        (Family(rows_count=4, accepted_count=0, refused_count=1, held_count=2), Wait()),
        (Family(rows_count=4, accepted_count=1, refused_count=1), DeadLetterSuspects()),
        (Family(rows_count=4, accepted_count=3, refused_count=1), DeadLetterSuspects()),
        (Family(rows_count=4, accepted_count=1, refused_count=1, held_count=2), DeadLetterSuspects()),
        (Family(rows_count=1, accepted_count=0, refused_count=1), DeadLetterSuspects()),
        (Family(rows_count=4, accepted_count=0, refused_count=0, held_count=4), Wait()),
        (replace(REFUSED_ALL, rounds_count=1, is_upstream_accepting=True), DeadLetterSuspects()),
    ],
    ids=repr,
)
def test_what_a_family_decides(family: Family, step: FamilyStep) -> None:
    """Suspects wait for a sibling that proves the upstream takes rows, or for the family's end."""
    assert _decide(family) == step


@pytest.mark.parametrize(
    "family",
    [
        REFUSED_ALL,
        replace(REFUSED_ALL, is_upstream_accepting=True),
        replace(REFUSED_ALL, rounds_count=5),
        Family(rows_count=4, accepted_count=0, refused_count=1, held_count=3),
        Family(rows_count=1, accepted_count=0, refused_count=1, rounds_count=1),
    ],
    ids=repr,
)
def test_a_family_refused_to_the_last_row_is_regrouped(family: Family) -> None:
    """With no acceptance to compare with, the fault may not be the rows': none of them is given up."""
    step = _decide(family)
    assert isinstance(step, Regroup)
    assert NOW_S < step.retry_at_s <= NOW_S + PAUSE_MAX_S


def test_the_pause_grows_with_each_round() -> None:
    """A wrong format that stays wrong is asked about less and less often."""
    waits_s = [
        step.retry_at_s - NOW_S
        for step in (_decide(replace(REFUSED_ALL, rounds_count=rounds)) for rounds in range(4))
        if isinstance(step, Regroup)
    ]
    assert waits_s == sorted(set(waits_s))
    assert len(waits_s) == 4


def _bisect(rows: tuple[int, ...], bad: set[int], counts: dict[str, set[int]]) -> None:
    """Send rows to an upstream that refuses a batch with a bad row in it, as the collector would."""
    is_refused = bool(bad.intersection(rows))
    step = next_step(
        BatchState(rows_count=len(rows), tries_count=1, tried_at_s=NOW_S),
        Verdict(outcome=Outcome.REFUSED if is_refused else Outcome.ACCEPTED, reason="because"),
        now_s=NOW_S,
        on_in_doubt="retry",
        idempotency_ttl_s=1.0,
        jitter=0.5,
    )
    if isinstance(step, Settle):
        counts["accepted"].update(rows)
    elif isinstance(step, Suspect):
        counts["refused"].update(rows)
    else:
        assert isinstance(step, Divide)
        for group in step.groups:
            _bisect(tuple(rows[index] for index in group), bad, counts)


@given(st.integers(1, 50), st.data())
def test_bisecting_finds_exactly_the_guilty(rows_count: int, data: st.DataObject) -> None:
    """Each good row is accepted, each bad one refused alone; all bad ones of a larger batch are spared."""
    bad = data.draw(st.sets(st.integers(0, rows_count - 1), min_size=1))
    counts: dict[str, set[int]] = {"accepted": set(), "refused": set()}
    _bisect(tuple(range(rows_count)), bad, counts)
    assert counts == {"accepted": set(range(rows_count)) - bad, "refused": bad}
    decided = _decide(
        Family(
            rows_count=rows_count,
            accepted_count=len(counts["accepted"]),
            refused_count=len(counts["refused"]),
        )
    )
    is_spared = rows_count > 1 and len(bad) == rows_count
    assert isinstance(decided, Regroup if is_spared else DeadLetterSuspects)
