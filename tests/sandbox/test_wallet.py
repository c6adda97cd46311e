"""The upstream's wallet calls, over real HTTP."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from settle_mp.sandbox.faults import Fault
from settle_mp.sandbox.transfers import CREDITS_MAX
from tests.sandbox.posting import error_of, get, post
from tests.upstreams import sandbox

if TYPE_CHECKING:
    from tests.upstreams import Upstream

WALLET = "/v1/wallet/u1"


def _write(upstream: Upstream, call: str, key: str | None = None, **body: Any) -> httpx.Response:
    return post(upstream, json.dumps(body).encode(), key=key, path=f"{WALLET}/{call}")


def _data(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    data: dict[str, Any] = answer.json()["data"]
    return data


def test_credit_debit_and_reward_move_the_balance(upstream: Upstream) -> None:
    """Each gives the transaction in the documented shape, and the balance follows."""
    credit = _data(_write(upstream, "credit", amount=30, description="Top-up", metadata={"a": 1}))
    debit = _data(_write(upstream, "debit", amount=10, description=None, metadata=None))
    reward = _data(_write(upstream, "ad-reward", adNetwork="AdMob", rewardAmount=5, adUnitId=None))
    assert set(credit) == {"id", "type", "amount", "balanceAfter", "description", "createdAt"}
    moved = [(each["type"], each["amount"], each["balanceAfter"]) for each in (credit, debit, reward)]
    assert moved == [("CREDIT", 30, 30), ("DEBIT", 10, 20), ("AD_REWARD", 5, 25)]
    assert (credit["description"], debit["description"]) == ("Top-up", None)
    assert len({credit["id"], debit["id"], reward["id"]}) == 3
    for path in (WALLET, f"{WALLET}/balance"):
        assert _data(get(upstream, path)) == {"userId": "u1", "balance": 25}
    assert upstream.balance("u1") == 25


def test_a_wallet_nobody_used_is_empty(upstream: Upstream) -> None:
    """It holds 0, has no history, and to look at it does not make it one that was used."""
    assert _data(get(upstream, WALLET)) == {"userId": "u1", "balance": 0}
    assert _data(get(upstream, f"{WALLET}/history"))["transactions"] == []
    upstream.seed({"u1": 7})
    assert upstream.balance("u1") == 7


def test_a_debit_beyond_the_balance_is_402(upstream: Upstream) -> None:
    """The body says whose, how much there is and how much was asked; nothing moves."""
    upstream.seed({"u1": 9})
    answer = _write(upstream, "debit", amount=10)
    assert answer.status_code == 402
    assert error_of(answer)["data"] == {"userId": "u1", "currentBalance": 9, "requestedAmount": 10}
    assert upstream.balance("u1") == 9
    assert upstream.log()[-1]["isApplied"] is False
    assert _data(_write(upstream, "debit", amount=9))["balanceAfter"] == 0


def test_racing_debits_never_overdraw(upstream: Upstream) -> None:
    """Of 100 debits of 10 at once from 500, 50 are made and 50 refused."""
    upstream.seed({"u1": 500})
    with ThreadPoolExecutor(20) as pool:
        racing = [pool.submit(_write, upstream, "debit", f"k{number}", amount=10) for number in range(100)]
        statuses = Counter(each.result().status_code for each in racing)
    assert statuses == {200: 50, 402: 50}
    assert upstream.balance("u1") == 0
    assert _data(get(upstream, f"{WALLET}/history"))["pagination"]["total"] == 51


def test_the_same_key_charges_once(upstream: Upstream) -> None:
    """A repeat gets the first answer again, also a refusal that would be none by now; another body, 422."""
    upstream.seed({"u1": 15})
    first, again = (_write(upstream, "debit", "k", amount=10) for _ in range(2))
    assert first.content == again.content
    assert again.headers["idempotency-replayed"] == "true"
    assert upstream.balance("u1") == 5
    assert _write(upstream, "debit", "short", amount=10).status_code == 402
    _write(upstream, "credit", amount=100)
    assert _write(upstream, "debit", "short", amount=10).status_code == 402
    assert _write(upstream, "debit", "k", amount=11).status_code == 422
    assert _write(upstream, "credit", "k", amount=10).status_code == 422
    assert upstream.balance("u1") == 105


def test_a_reset_after_the_debit_has_charged(upstream: Upstream) -> None:
    """Told to reset after applying, it has moved the credits, and the repeat finds the true answer."""
    upstream.seed({"u1": 10})
    upstream.fault(Fault.reset(path=f"{WALLET}/debit", user_id="u1"))
    with pytest.raises(httpx.ReadError):
        _write(upstream, "debit", "k", amount=10)
    assert upstream.balance("u1") == 0
    assert _data(_write(upstream, "debit", "k", amount=10))["balanceAfter"] == 0


def test_a_refused_user_moves_nothing(upstream: Upstream) -> None:
    """`refuse` reaches wallets too, and names the user."""
    upstream.fault(Fault.refuse("u1"))
    answer = _write(upstream, "credit", amount=1)
    assert (answer.status_code, error_of(answer)["data"]) == (400, {"fields": {"userId": ["is not known"]}})
    assert upstream.balance("u1") == 0


@pytest.mark.parametrize(
    "encoded", ["a%2Fb", "%C3%BC%20x", "u%2Fbalance", "100%25", "a%3Fb%23c", "x%2fhistory"]
)
def test_user_ids_are_percent_encoded(upstream: Upstream, encoded: str) -> None:
    """Whatever a user id holds, it is one part of the path; a slash in it is no separator."""
    body = json.dumps({"amount": 3}).encode()
    assert _data(post(upstream, body, path=f"/v1/wallet/{encoded}/credit"))["balanceAfter"] == 3
    for end in ("", "/balance"):
        assert _data(get(upstream, f"/v1/wallet/{encoded}{end}")) == {
            "userId": unquote(encoded),
            "balance": 3,
        }
    assert upstream.balance(unquote(encoded)) == 3
    assert upstream.log()[0]["path"] == f"/v1/wallet/{encoded}/credit"


def test_a_user_id_that_is_no_text_is_400(upstream: Upstream) -> None:
    """Percent-encoded bytes that are not UTF-8 are refused, and more or fewer parts are another path."""
    assert get(upstream, "/v1/wallet/%FF").status_code == 400
    for path in ("/v1/wallet/a/b", "/v1/wallet/", "/v1/wallet//balance"):
        assert get(upstream, path).status_code == 404


def test_history_is_paged_newest_first(upstream: Upstream) -> None:
    """Pages join without a gap, say how many there are, and a page beyond is empty."""
    for amount in range(1, 6):
        _write(upstream, "credit", amount=amount)
    _write(upstream, "debit", amount=5)
    first = _data(get(upstream, f"{WALLET}/history?page=1&limit=4"))
    second = _data(get(upstream, f"{WALLET}/history?page=2&limit=4"))
    assert (first["userId"], first["currentBalance"]) == ("u1", 10)
    assert [each["amount"] for page in (first, second) for each in page["transactions"]] == [5, 5, 4, 3, 2, 1]
    assert second["pagination"] == {"page": 2, "limit": 4, "total": 6, "totalPages": 2}
    assert _data(get(upstream, f"{WALLET}/history?page=3&limit=4"))["transactions"] == []
    assert len(_data(get(upstream, f"{WALLET}/history"))["transactions"]) == 6


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "limit=0", "limit=101", "page=-1", "page=1e3", "page=9" * 9]
)
def test_pages_that_can_not_be_are_400(upstream: Upstream, query: str) -> None:
    """The refusal names the parameter."""
    answer = get(upstream, f"{WALLET}/history?{query}")
    assert answer.status_code == 400
    assert list(error_of(answer)["data"]["fields"]) == [query.partition("=")[0]]


def test_a_whole_number_may_be_written_with_a_point(upstream: Upstream) -> None:
    """10.0 is 10, as in JSON Schema and JavaScript."""
    upstream.seed({"u1": 50})
    answer = post(upstream, b'{"amount": 1.0e1}', path=f"{WALLET}/debit")
    assert (_data(answer)["amount"], upstream.balance("u1")) == (10, 40)


@pytest.mark.parametrize(
    ("call", "body", "fields"),
    [
        ("debit", {"amount": 0}, ["amount"]),
        ("debit", {"amount": -1}, ["amount"]),
        ("debit", {"amount": True}, ["amount"]),
        ("debit", {"amount": 1.5}, ["amount"]),
        ("debit", {"amount": "10"}, ["amount"]),
        ("debit", {"amount": CREDITS_MAX + 1}, ["amount"]),
        ("credit", {}, ["amount"]),
        ("credit", {"amount": 1, "description": 7}, ["description"]),
        ("credit", {"amount": 1, "description": "x" * 1_001}, ["description"]),
        ("credit", {"amount": 1, "metadata": [1]}, ["metadata"]),
        ("credit", {"amount": 1, "extra": 1}, ["extra"]),
        ("ad-reward", {"rewardAmount": 1}, ["adNetwork"]),
        ("ad-reward", {"adNetwork": "A", "rewardAmount": 0}, ["rewardAmount"]),
        ("ad-reward", {"adNetwork": "A", "rewardAmount": 1, "adUnitId": 1}, ["adUnitId"]),
    ],
)
def test_bad_bodies_are_400_and_move_nothing(
    upstream: Upstream, call: str, body: dict[str, Any], fields: list[str]
) -> None:
    """Each bad field is named."""
    upstream.seed({"u1": 50})
    answer = _write(upstream, call, **body)
    assert answer.status_code == 400
    assert list(error_of(answer)["data"]["fields"]) == fields
    assert upstream.balance("u1") == 50


def test_bodies_that_are_no_object_are_400(upstream: Upstream) -> None:
    """So is what is no JSON."""
    for body in (b"[]", b"null", b"{", b""):
        assert post(upstream, body, path=f"{WALLET}/debit").status_code == 400


def test_a_balance_stays_exact(upstream: Upstream) -> None:
    """A credit beyond what JSON's readers take exactly is refused."""
    upstream.seed({"u1": CREDITS_MAX})
    answer = _write(upstream, "credit", amount=1)
    assert (answer.status_code, list(error_of(answer)["data"]["fields"])) == (400, ["amount"])
    assert upstream.balance("u1") == CREDITS_MAX


def test_wallets_need_the_key(upstream: Upstream) -> None:
    """Like every call of the upstream."""
    assert get(upstream, WALLET, {"X-API-Key": ""}).status_code == 401
    assert post(upstream, b"{}", path=f"{WALLET}/debit", headers={"X-API-Key": "x"}).status_code == 401


def test_seeds_are_given_once(upstream: Upstream) -> None:
    """Only to wallets that were never used, with a transaction that says so; 0 makes a wallet too."""
    upstream.seed({"u1": 5, "u2": 0})
    upstream.seed({"u1": 99, "u2": 99, "ü/3": 1})
    assert [upstream.balance(user) for user in ("u1", "u2", "ü/3")] == [5, 0, 1]
    (seeded,) = _data(get(upstream, f"{WALLET}/history"))["transactions"]
    assert (seeded["type"], seeded["description"]) == ("CREDIT", "Seed")


@pytest.mark.parametrize("told", [b"[]", b'{"u": -1}', b'{"u": true}', b'{"": 1}', b'{"\\ud800": 1}', b"{"])
def test_seeds_that_can_not_be_are_400(upstream: Upstream, told: bytes) -> None:
    """And seed nobody."""
    assert post(upstream, told, path="/sandbox/wallets").status_code == 400


def test_wallets_outlive_a_restart() -> None:
    """Stopped and started again on its file, balances and keys are as they were; no seed is given twice."""
    with sandbox(seeds={"u1": 20}) as upstream:
        _write(upstream, "debit", "k", amount=5)
        upstream.stop()
        upstream.start()
        assert _write(upstream, "debit", "k", amount=5).headers["idempotency-replayed"] == "true"
        assert upstream.balance("u1") == 15
