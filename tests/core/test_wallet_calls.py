"""Wallet calls: what is refused before anything is sent, what goes out, and how answers are read."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.call import UnreadableError, checked_key, hear
from settle_mp.core.usage_calls import summary_call
from settle_mp.core.wallet import Pages, WalletHistory, WalletTransaction
from settle_mp.core.wallet_calls import AMOUNT_MAX, balance_call, history_call, move_call, reward_call

if TYPE_CHECKING:
    from collections.abc import Callable

TRANSACTION = {
    "id": "t1",
    "type": "DEBIT",
    "amount": 10,
    "balanceAfter": 5,
    "description": "AI query",
    "createdAt": "2026-11-22T08:00:00Z",
}


def _debit(user_id: Any = "u", request: Any = None, **given: Any) -> Any:
    return move_call("debit", user_id, request, given, key="k", is_callers_key=False)


def _reward(request: Any = None, **given: Any) -> Any:
    return reward_call("u", request, given, key="k", is_callers_key=False)


def test_a_debit_is_the_documented_request() -> None:
    """Path, body and key; what was not given is left out."""
    call = _debit("user_123", amount=10, description="AI query", metadata={"model": "gpt-4"})
    assert (call.method, call.path) == ("POST", "/v1/wallet/user_123/debit")
    assert json.loads(call.body) == {
        "amount": 10,
        "description": "AI query",
        "metadata": {"model": "gpt-4"},
    }
    assert (call.idempotency_key, call.is_write) == ("k", True)
    assert _debit(amount=10).body == b'{"amount":10}'


def test_metadata_are_those_of_events() -> None:
    """Dates, Decimals and the like in their forms, and the same bytes whatever the order of keys."""
    metadata = {"at": date(2026, 11, 22), "rate": Decimal("0.1234567890123456789"), "tags": {"b", "a"}}
    body = _debit(amount=1, metadata=metadata).body
    assert body.endswith(b'"metadata":{"at":"2026-11-22","rate":0.1234567890123456789,"tags":["a","b"]}}')
    assert _debit(amount=1, metadata=dict(reversed(metadata.items()))).body == body


@pytest.mark.parametrize(
    "request_",
    [
        10,
        {"amount": 10},
        {"amount": 10, "description": None, "metadata": None},
        {"amount": 3},
        SimpleNamespace(amount=10, description=None, metadata=None),
    ],
)
def test_the_vendors_ways_of_giving_arguments(request_: Any) -> None:
    """A dict, an object with these attributes, or the amount; arguments by name come before them."""
    given = {"amount": 10} if request_ == {"amount": 3} else {}
    assert _debit("u", request_, **given).body == b'{"amount":10}'


def test_an_ad_reward_is_the_documented_request() -> None:
    """By name, or in a dict in either way of writing."""
    expected = {"adNetwork": "AdMob", "rewardAmount": 5, "adUnitId": "x"}
    for call in (
        _reward(ad_network="AdMob", reward_amount=5, ad_unit_id="x"),
        _reward({"adNetwork": "AdMob", "rewardAmount": 5, "adUnitId": "x"}),
        _reward({"ad_network": "AdMob", "reward_amount": 5, "ad_unit_id": "x"}),
        _reward(SimpleNamespace(ad_network="AdMob", reward_amount=5, ad_unit_id="x")),
    ):
        assert json.loads(call.body) == expected
        assert call.path == "/v1/wallet/u/ad-reward"
    with pytest.raises(TypeError, match="ad_network"):
        _reward(reward_amount=5)


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        (None, TypeError),
        (True, TypeError),
        (False, TypeError),
        (1.0, TypeError),
        ("10", TypeError),
        (Decimal(10), TypeError),
        (0, ValueError),
        (-10, ValueError),
        (AMOUNT_MAX + 1, ValueError),
        pytest.param(10**6000, ValueError, id="more digits than Python writes"),
    ],
)
def test_amounts_that_are_no_positive_int_are_refused(amount: Any, error: type[Exception]) -> None:
    """A bool above all, which Python takes for 1. The message names the argument and what is allowed."""
    for arguments in ({"request": {"amount": amount}}, {"amount": amount}):
        with pytest.raises(error, match="amount must be a whole number from 1 to"):
            _debit("u", **arguments)
    with pytest.raises(error, match="reward_amount must be a whole number"):
        _reward(ad_network="A", reward_amount=amount)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"description": 7}, "description"),
        ({"description": "x" * 1_001}, "description"),
        ({"description": "\ud800"}, "description"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {"a": object()}}, "metadata"),
        ({"metadata": {"a": float("nan")}}, "metadata"),
        ({"metadata": {"a": "x" * 9_000}}, "metadata"),
    ],
)
def test_other_arguments_that_can_not_be_are_refused(arguments: dict[str, Any], name: str) -> None:
    """Each is named."""
    with pytest.raises((TypeError, ValueError), match=name):
        _debit(amount=1, **arguments)


@pytest.mark.parametrize("request_", [{"amuont": 10}, {"amount": 10, "idempotencyKey": "k"}, "10", 1.5, [10]])
def test_a_request_that_is_none_is_refused(request_: Any) -> None:
    """A misspelled field is not left out without a word."""
    with pytest.raises((TypeError, ValueError), match=r"amount|field"):
        _debit("u", request_)


@pytest.mark.parametrize("user_id", ["", ".", "..", "x" * 257, None, 7, "\ud800"])
def test_user_ids_that_can_not_be_are_refused(user_id: Any) -> None:
    """Also the two that every client takes out of a path, so that another wallet's call would be left."""
    makers: list[Callable[[Any], object]] = [balance_call, lambda each: _debit(each, 1)]
    makers += [lambda each: history_call(each, 1, 10)]
    # In a query those two are like any other.
    makers += [] if user_id in {".", ".."} else [summary_call]
    for make in makers:
        with pytest.raises((TypeError, ValueError), match="user_id"):
            make(user_id)


@given(st.text(min_size=1, max_size=40).filter(lambda text: text not in {".", ".."}))
def test_any_other_user_id_is_one_part_of_the_path(user_id: str) -> None:
    """Percent-encoded, `/` included, and it comes back whole."""
    try:
        user_id.encode()
    except UnicodeEncodeError:
        return
    before, encoded = balance_call(user_id).path.rsplit("/", 1)
    assert before == "/v1/wallet"
    assert encoded.isascii()
    assert unquote(encoded) == user_id


@pytest.mark.parametrize("key", ["", "ä", "a\nb", "x" * 256, 7, None])
def test_keys_that_can_not_be_are_refused(key: Any) -> None:
    """Before anything is sent."""
    with pytest.raises((TypeError, ValueError), match="idempotency_key"):
        checked_key(key)
    assert checked_key("order 7/b") == "order 7/b"


@pytest.mark.parametrize(("page", "limit"), [(0, 1), (1, 0), (True, 1), (1, 1_001), (1.0, 1), (1, None)])
def test_pages_that_can_not_be_are_refused(page: Any, limit: Any) -> None:
    """Before anything is sent."""
    with pytest.raises((TypeError, ValueError), match=r"page|limit"):
        history_call("u", page, limit)


def test_answers_are_read() -> None:
    """Into values; a numbered id is text, and 10.0 credits are 10."""
    body = b'{"data": {"id": 7, "type": "DEBIT", "amount": 10.0, "balanceAfter": 5, "createdAt": "now"}}'
    read = _debit(amount=10).read(hear(200, {}, body, is_whole=True).payload["data"])
    assert read == WalletTransaction(
        id="7", type="DEBIT", amount=10, balance_after=5, description=None, created_at="now"
    )
    history = history_call("u", 1, 10).read(
        {"userId": "u", "currentBalance": 5, "transactions": [TRANSACTION], "pagination": {"totalPages": 3}}
    )
    assert history.transactions[0].description == "AI query"
    assert history.pages_count == 3
    summary = summary_call("u").read(
        hear(
            200,
            {},
            b'{"data":{"summary":[{"eventType":"A","totalQuantity":0.10,"count":2}]}}',
            is_whole=True,
        ).payload["data"]
    )
    assert str(summary.totals[0].total_quantity) == "0.10"
    assert summary["summary"] == [{"eventType": "A", "totalQuantity": Decimal("0.10"), "count": 2}]
    with pytest.raises(KeyError):
        summary["other"]


@pytest.mark.parametrize("name", ["id", "type", "amount", "balanceAfter", "createdAt"])
@pytest.mark.parametrize("value", [None, True, [], {}])
def test_an_answer_without_a_documented_field_is_unreadable(name: str, value: Any) -> None:
    """And never an exception of another kind."""
    read = _debit(amount=10).read
    with pytest.raises(UnreadableError):
        read({**TRANSACTION, name: value})
    nothings: list[Any] = [None, [], "x", 7, {}]
    for data in nothings:
        with pytest.raises(UnreadableError):
            read(data)
        with pytest.raises(UnreadableError):
            balance_call("u").read(data)
        with pytest.raises(UnreadableError):
            history_call("u", 1, 1).read(data)
        with pytest.raises(UnreadableError):
            summary_call("u").read(data)


def _page(*numbers: int, **pagination: Any) -> WalletHistory:
    transactions = tuple(
        WalletTransaction(
            id=f"t{number}", type="DEBIT", amount=1, balance_after=1, description=None, created_at=""
        )
        for number in numbers
    )
    return WalletHistory(user_id="u", current_balance=1, transactions=transactions, pagination=pagination)


def _walk(*answers: WalletHistory) -> list[str]:
    pages = Pages()
    found: list[str] = []
    for answer in answers:
        assert not pages.is_over
        found += [each.id for each in pages.take(answer)]
    assert pages.is_over
    return found


def test_pages_are_walked_to_their_end() -> None:
    """By the number of pages where it is said, else until one has nothing new; none is asked for beyond."""
    assert _walk(_page(3, 2, totalPages=2), _page(1, totalPages=2)) == ["t3", "t2", "t1"]
    assert _walk(_page(3, 2), _page(1), _page()) == ["t3", "t2", "t1"]
    assert _walk(_page(totalPages=0)) == []
    assert _walk(_page()) == []


def test_a_transaction_pushed_to_the_next_page_comes_once() -> None:
    """New ones push older ones on while the pages are walked."""
    assert _walk(_page(4, 3, totalPages=2), _page(3, 2, totalPages=3), _page(1, totalPages=3)) == [
        "t4",
        "t3",
        "t2",
        "t1",
    ]


def test_a_server_that_ignores_the_page_is_not_asked_for_ever() -> None:
    """The same page again has nothing new."""
    assert _walk(_page(2, 1), _page(2, 1)) == ["t2", "t1"]
