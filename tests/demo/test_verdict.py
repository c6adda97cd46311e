"""The verdict: it holds for a right bill, and for no other."""

from __future__ import annotations

import functools
import json
import operator
from collections import Counter, defaultdict
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.demo import traffic
from settle_mp.demo.traffic import AI_QUERY, PDF_EXPORT, VIDEO_MINUTES, Kind, Request
from settle_mp.demo.verdict import Ending, Row, Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Iterable

Sent = list[tuple[Request, Ending]]

OURS = {"settle_mp": {"count": 1, "window_start": "2026-11-22T08:00:00Z"}}


def query(request_id: str, tokens: int, user: str = "ada", model: str = "large") -> Request:
    """Make a request whose event has a rule."""
    metadata = {"model": model, "tokens": tokens, "request_id": request_id}
    return Request(id=request_id, kind=AI_QUERY, user_id=user, metadata=metadata)


def minute(request_id: str, user: str = "ada") -> Request:
    """Make a request whose event has no metadata."""
    return Request(id=request_id, kind=VIDEO_MINUTES, user_id=user, metadata=None)


def export(request_id: str, user: str = "ada") -> Request:
    """Make a request whose event carries its id."""
    return Request(id=request_id, kind=PDF_EXPORT, user_id=user, metadata={"request_id": request_id})


def answered(*requests: Request) -> Sent:
    """All of them were answered."""
    return [(each, Ending.ANSWERED) for each in requests]


def cut_off(*requests: Request) -> Sent:
    """None of them was answered."""
    return [(each, Ending.CUT_OFF) for each in requests]


def row(kind: Kind, quantity: str, user: str = "ada", http_request: int = 1, **metadata: Any) -> Row:
    """Make a billed row."""
    return Row(
        user_id=user,
        event_type=kind.event_type,
        quantity=Decimal(quantity),
        metadata={**metadata, **OURS},
        http_request=http_request,
    )


def right_rows(requests: Iterable[Request]) -> list[Row]:
    """Bill requests as a right collector does: folded by what its rules leave."""
    quantities: Counter[tuple[Kind, str, str]] = Counter()
    sums: dict[tuple[Kind, str, str], Counter[str]] = defaultdict(Counter)
    for each in requests:
        metadata = each.metadata or {}
        kept = {name: value for name, value in metadata.items() if name not in each.kind.sum + each.kind.drop}
        key = (each.kind, each.user_id, json.dumps(kept))
        quantities[key] += 1
        sums[key].update({name: metadata[name] for name in each.kind.sum})
    return [
        row(kind, str(count * kind.quantity), user, **json.loads(kept), **sums[kind, user, kept])
        for (kind, user, kept), count in quantities.items()
    ]


def of_type(verdict: Verdict, kind: Kind) -> tuple[int, int, int, int]:
    """Cut off and billed, lost, too many, rows."""
    (found,) = [each for each in verdict.types if each.kind is kind]
    return found.cut_off_billed_count, found.lost_count, found.surplus_count, found.rows_count


# A right bill.


def test_a_right_bill_holds() -> None:
    """Folded or one by one, in one row or in several, each answered request once."""
    sent = answered(query("a", 10), query("b", 5), minute("c"), minute("d"), export("e"))
    rows = [
        row(AI_QUERY, "1", model="large", tokens=10),
        row(AI_QUERY, "1", model="large", tokens=5),
        row(VIDEO_MINUTES, "0.2"),
        row(PDF_EXPORT, "1", request_id="e"),
    ]
    verdict = judge(sent, rows)
    assert verdict.holds
    assert [each.answered_count for each in verdict.types] == [2, 2, 1]
    assert [each.billed for each in verdict.types] == [2, Decimal("0.2"), 1]
    assert [each.events_count for each in verdict.types] == [2, 2, 1]
    assert [each.rows_count for each in verdict.types] == [2, 1, 1]


def test_one_that_was_cut_off_may_be_billed_or_not() -> None:
    """Only the bill knows whether its event was tracked before the kill."""
    sent = answered(query("a", 10), export("e")) + cut_off(query("b", 5), export("f"), minute("m"))
    without = judge(sent, right_rows([query("a", 10), export("e")]))
    billed = judge(sent, right_rows([query("a", 10), export("e"), query("b", 5), export("f"), minute("m")]))
    assert without.holds
    assert billed.holds
    assert without.total("cut_off_billed_count") == 0
    assert billed.total("cut_off_billed_count") == 3
    assert billed.total("cut_off_count") == without.total("cut_off_count") == 3


@given(st.lists(st.sampled_from([*Ending, None]), max_size=60), st.randoms(use_true_random=False))
def test_any_right_bill_holds(endings: list[Ending | None], dice: Any) -> None:
    """Whatever was sent, and whichever of those cut off had been tracked."""
    requests = [traffic.request(number) for number in range(len(endings))]
    sent = [(each, ending) for each, ending in zip(requests, endings, strict=True) if ending is not None]
    billed = [each for each, ending in sent if ending is Ending.ANSWERED or dice.random() < 0.5]
    verdict = judge(sent, right_rows(billed))
    assert verdict.faults == ()
    assert verdict.total("events_count") == len(billed)


def test_http_requests_are_shared_out_by_rows() -> None:
    """One that brought rows of two types counts for each by its part."""
    rows = [row(PDF_EXPORT, "1", http_request=1, request_id=each) for each in "abc"]
    rows += [row(VIDEO_MINUTES, "0.1", http_request=1), row(VIDEO_MINUTES, "0.1", "bob", http_request=2)]
    verdict = judge(answered(*map(export, "abc"), minute("m"), minute("n", "bob")), rows)
    assert verdict.holds
    assert [each.http_requests for each in verdict.types] == [0, Fraction(5, 4), Fraction(3, 4)]


# A wrong bill.


@pytest.mark.parametrize("gone", [query("b", 5), minute("b"), export("b")])
def test_a_lost_event_is_found(gone: Request) -> None:
    """Of every type, beside others of the same user that are billed."""
    others = [query("a", 10), minute("m"), export("e")]
    verdict = judge(answered(*others, gone), right_rows(others))
    assert not verdict.holds
    assert of_type(verdict, gone.kind)[1:3] == (1, 0)
    assert verdict.total("lost_count") == 1
    assert "1 lost" in verdict.faults[0]


@pytest.mark.parametrize("twice", [query("b", 5), minute("b"), export("b")])
def test_an_event_billed_twice_is_found(twice: Request) -> None:
    """Of every type; as a larger sum or as a row of its own."""
    others = [query("a", 10), minute("m"), export("e")]
    sent = answered(*others, twice)
    summed = judge(sent, right_rows([*others, twice, twice]))
    own_row = judge(sent, right_rows([*others, twice]) + right_rows([twice]))
    assert of_type(summed, twice.kind)[1:3] == of_type(own_row, twice.kind)[1:3] == (0, 1)
    assert "1 twice" in summed.faults[0]
    assert "1 twice" in own_row.faults[0]


@pytest.mark.parametrize("twice", [query("b", 5), minute("b"), export("b")])
def test_one_that_was_cut_off_is_not_billed_twice(twice: Request) -> None:
    """At most once is not any number of times."""
    verdict = judge(cut_off(twice), right_rows([twice, twice]))
    assert of_type(verdict, twice.kind)[1:3] == (0, 1)


def test_a_forged_sum_is_found() -> None:
    """The quantity is right, and a token too many is billed."""
    verdict = judge(answered(query("a", 10), query("b", 5)), [row(AI_QUERY, "2", model="large", tokens=16)])
    assert len(verdict.faults) == 1
    assert "2 units billed with 16 tokens" in verdict.faults[0]


def test_one_cut_off_does_not_stand_in_for_a_lost_one() -> None:
    """The number of events is right, and their tokens tell that it was the wrong one."""
    verdict = judge(answered(query("a", 10)) + cut_off(query("b", 5)), right_rows([query("b", 5)]))
    assert len(verdict.faults) == 1
    assert "no choice of these requests" in verdict.faults[0]


def test_ids_are_compared_one_by_one() -> None:
    """As many billed as answered, and one id was never sent: one is lost, and one is no request's."""
    verdict = judge(answered(export("e"), export("f")), right_rows([export("e"), export("g")]))
    assert of_type(verdict, PDF_EXPORT)[1:3] == (1, 1)
    assert any("never sent" in fault for fault in verdict.faults)


def test_another_user_does_not_pay() -> None:
    """The sums over all users are right, and one user's is not."""
    verdict = judge(answered(minute("m"), minute("n", "bob")), [row(VIDEO_MINUTES, "0.2")])
    assert of_type(verdict, VIDEO_MINUTES)[1:3] == (1, 1)


def test_a_rule_that_was_not_applied_is_found() -> None:
    """A row that still has what should have been dropped fits no request."""
    rows = [row(AI_QUERY, "1", model="large", tokens=10, request_id="a")]
    assert not judge(answered(query("a", 10)), rows).holds


def test_binary_fractions_are_found() -> None:
    """0.1 ten times is 1, and not 0.9999999999999999."""
    sent = answered(*(minute(str(number)) for number in range(10)))
    assert judge(sent, [row(VIDEO_MINUTES, "1.0")]).holds
    binary = functools.reduce(operator.add, [0.1] * 10)  # sum() compensates from Python 3.12 on
    assert not judge(sent, [row(VIDEO_MINUTES, str(binary))]).holds


@pytest.mark.parametrize("tokens", [None, True, "10", [10], 10.0])
def test_what_is_no_exact_number_is_found(tokens: object) -> None:
    """A sum is a number."""
    assert not judge(answered(query("a", 10)), [row(AI_QUERY, "1", model="large", tokens=tokens)]).holds


def test_an_event_type_that_nobody_knows_is_found() -> None:
    """Nothing may be billed that was never sent."""
    stranger = replace(row(VIDEO_MINUTES, "0.1"), event_type="OTHER")
    assert not judge([], [stranger]).holds


@given(st.data())
def test_no_changed_bill_holds(data: st.DataObject) -> None:
    """Take away any event of a right bill, or add any to it: it holds no more."""
    requests = [traffic.request(number) for number in range(data.draw(st.integers(1, 60)))]
    number = data.draw(st.integers(0, len(requests) - 1))
    fewer = requests[:number] + requests[number + 1 :]
    assert judge(answered(*requests), right_rows(fewer)).total("lost_count") == 1
    assert judge(answered(*requests), right_rows([*requests, requests[number]])).total("surplus_count") == 1
