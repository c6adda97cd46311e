"""Decisions: what goes out again is what was refused, to the last byte or under the rules of now."""

from __future__ import annotations

import json

import pytest

from settle_mp.core.decision import ACTIONS, BILL, draft_of_event
from settle_mp.core.event import InvalidEventError, pack_event
from settle_mp.core.rules import MetadataRule
from settle_mp.core.window import HOUR_S, Draft, Lot, draft_of_body, join_rows, rows_of

HOUR = 500_000
RULE = MetadataRule(keep=frozenset(), sum=frozenset({"tokens"}), drop=frozenset())


def test_every_decision_says_what_it_does_to_the_bill() -> None:
    """None is made without a person having read it."""
    assert set(BILL) == ACTIONS


@pytest.mark.parametrize("annotate", [True, False])
def test_an_event_goes_out_as_a_row_of_its_hour(*, annotate: bool) -> None:
    """Exact, and labelled with the whole hour: when in it the event was tracked is not known any more."""
    payload = pack_event("ann", "AI_QUERY", 2.5, {"tokens": "many"})
    draft = draft_of_event(payload, HOUR, {}, annotate=annotate)
    assert (draft.hour, draft.events_count, str(draft.quantity)) == (HOUR, 1, "2.5")
    (row,) = json.loads(draft.body)["events"]
    note = row["metadata"].pop("settle_mp", None)
    assert row == {
        "userId": "ann",
        "eventType": "AI_QUERY",
        "quantity": 2.5,
        "metadata": {"tokens": "many"},
    }
    assert (note is not None) is annotate
    if note is not None:
        assert (note["count"], HOUR * HOUR_S % 86_400) == (1, 28_800)
        assert note["window_start"].endswith("T08:00:00Z")
        assert note["window_end"].endswith("T09:00:00Z")


def test_what_still_is_no_event_is_refused() -> None:
    """By the rules in force, whatever they were when it was tracked."""
    payload = pack_event("ann", "AI_QUERY", 1, {"tokens": "many"})
    with pytest.raises(InvalidEventError, match="tokens"):
        draft_of_event(payload, HOUR, {"AI_QUERY": RULE}, annotate=False)
    with pytest.raises(InvalidEventError):
        draft_of_event(b"\x01", HOUR, {}, annotate=False)


@pytest.mark.parametrize("rows", [[b'{"userId":"ann"}'], [b'{"a":1}', b'{"b":2}']])
def test_a_body_goes_out_as_it_was(rows: list[bytes]) -> None:
    """Whatever is in it counts as one row: nobody knows any more which events were in which."""
    body = join_rows(HOUR, [(row, Lot(len(row), 1, 1)) for row in rows]).body
    draft = draft_of_body(HOUR, body, events_count=7, quantity=9)
    assert draft == Draft(hour=HOUR, body=body, lots=draft.lots)
    assert (len(draft.lots), draft.events_count, draft.quantity) == (1, 7, 9)
    assert join_rows(HOUR, rows_of(draft)).body == body
