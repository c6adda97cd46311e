"""The fake wallet charges like a real one, in memory, for sync and async clients alike."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import (
    ApiError,
    AsyncSettle,
    InsufficientCreditsError,
    RateLimitError,
    Settle,
    SettleSettleError,
    TimeoutError,  # noqa: A004 - The vendor's name.
)
from settle_mp.testing import FakeWallet, fake_wallet
from tests.upstreams import upstream
from tests.worker.wallets import KINDS, wallets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.upstreams import Upstream

__all__ = ["upstream", "wallets"]


class Fake:
    """A fake wallet and its users' calls, one way for all of: a client of either kind, and itself."""

    def __init__(self, wallet: FakeWallet, calls: Any) -> None:
        self.wallet = wallet
        self._calls = calls

    def __call__(self, name: str, *arguments: Any, **named: Any) -> Any:
        """Make a call, awaited where that is needed."""

        async def call() -> Any:
            result = getattr(self._calls(), name)(*arguments, **named)
            if inspect.isasyncgen(result):
                return [each async for each in result]
            return await result if inspect.isawaitable(result) else result

        return asyncio.run(call())


@pytest.fixture(params=["sync", "async", "sync, disabled", "async, disabled", "itself", "itself, async"])
def fake(request: pytest.FixtureRequest, settle_wallet: FakeWallet) -> Fake:
    """Make every way to a fake wallet; the user has 50 credits."""
    settle_wallet.balances["ü/1"] = 50
    kind, _, rest = request.param.partition(", ")
    if kind == "itself":
        own = FakeWallet({"ü/1": 50})
        return Fake(own, lambda: own.aio if rest else own)
    make = Settle if kind == "sync" else AsyncSettle
    client = make(disabled=bool(rest))
    return Fake(settle_wallet, lambda: client.wallet)


def test_it_moves_credits(fake: Fake) -> None:
    """Each call with the result that the real one gives, and the balances follow."""
    assert fake("get_balance", "ü/1").balance == 50
    debit = fake("debit", "ü/1", amount=10, description="AI query", metadata={"a": 1})
    assert (debit.type, debit.amount, debit.balance_after, debit.description) == ("DEBIT", 10, 40, "AI query")
    credit = fake("credit", "new", {"amount": 5})
    assert (credit.type, credit.balance_after, credit.description) == ("CREDIT", 5, None)
    reward = fake("record_ad_reward", "ü/1", ad_network="AdMob", reward_amount=3)
    assert (reward.type, reward.amount, reward.balance_after) == ("AD_REWARD", 3, 43)
    assert fake.wallet.balances == {"ü/1": 43, "new": 5}
    history = fake("get_history", "ü/1", page=1, limit=1)
    assert (history.current_balance, history.transactions, history.pages_count) == (43, (reward,), 2)
    assert list(fake("iter_history", "ü/1", page_size=1)) == [reward, debit]
    assert fake("get_balance", "nobody").balance == 0


def test_a_debit_beyond_the_balance_is_refused(fake: Fake) -> None:
    """With the three values, and nothing is taken."""
    with pytest.raises(InsufficientCreditsError) as short:
        fake("debit", "ü/1", amount=51)
    error = short.value
    assert (error.user_id, error.current_balance, error.requested_amount) == ("ü/1", 50, 51)
    assert not error.is_in_doubt
    assert fake.wallet.balances == {"ü/1": 50}


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, None, "10"])
def test_amounts_are_checked_as_always(fake: Fake, amount: Any) -> None:
    """By the same code, before anything is asked."""
    with pytest.raises((TypeError, ValueError)):
        fake("debit", "ü/1", amount=amount)
    assert fake.wallet.balances == {"ü/1": 50}


def test_a_key_charges_once(fake: Fake) -> None:
    """A repeat gets the same transaction; with other arguments it is refused."""
    first, again = (fake("debit", "ü/1", amount=10, idempotency_key="k") for _ in range(2))
    assert first == again
    assert fake.wallet.balances == {"ü/1": 40}
    with pytest.raises(SettleSettleError) as other:
        fake("debit", "ü/1", amount=11, idempotency_key="k")
    assert other.value.status_code == 422
    assert fake.wallet.balances == {"ü/1": 40}


@pytest.mark.parametrize(("what", "kind"), [("timeout", TimeoutError), ("reset", ApiError), (503, ApiError)])
@pytest.mark.parametrize("is_applied", [False, True])
def test_a_debit_can_be_in_doubt(
    fake: Fake, what: Any, kind: type[SettleSettleError], *, is_applied: bool
) -> None:
    """The error says so and carries the key, which asks again and charges once, whatever had happened."""
    fake.wallet.fail_next(what, is_applied=is_applied)
    with pytest.raises(kind) as doubt:
        fake("debit", "ü/1", amount=10)
    assert doubt.value.is_in_doubt
    assert fake.wallet.balances == {"ü/1": 40 if is_applied else 50}
    fake("debit", "ü/1", amount=10, idempotency_key=doubt.value.idempotency_key)
    assert fake.wallet.balances == {"ü/1": 40}


def test_what_certainly_failed_is_tried_again(fake: Fake) -> None:
    """By the same code as always, until the time is up."""
    fake.wallet.fail_next("refused")
    assert fake("debit", "ü/1", amount=10).balance_after == 40
    for _ in range(100):
        fake.wallet.fail_next(429)
    with pytest.raises(RateLimitError) as limited:
        fake("debit", "ü/1", amount=10, timeout=0.01)
    assert not limited.value.is_in_doubt


@pytest.mark.parametrize("what", ["", "lost", 200, 600, None, True])
def test_failures_that_can_not_be_are_refused(settle_wallet: FakeWallet, what: Any) -> None:
    """And leave the next call alone."""
    with pytest.raises(ValueError, match="what must be a status from 400 to 599 or one of timeout, reset"):
        settle_wallet.fail_next(what)
    assert settle_wallet.get_balance("u").balance == 0


def test_racing_debits_never_overdraw() -> None:
    """Of 100 debits of 10 at once from 500, 50 are made and 50 refused."""
    wallet = FakeWallet()
    # Other threads get their turn between a look at the balance and its change.
    wallet.balances = wallet._bank._balances = _Yielding({"u": 500})

    def debit(_number: int) -> str:
        try:
            return wallet.debit("u", amount=10).type
        except InsufficientCreditsError:
            return "short"

    with ThreadPoolExecutor(20) as pool:
        assert Counter(pool.map(debit, range(100))) == {"DEBIT": 50, "short": 50}
    assert wallet.balances == {"u": 0}


class _Yielding(dict[str, int]):
    def get(self, key: str, default: Any = None) -> Any:
        held = super().get(key, default)
        time.sleep(0.001)
        return held


def test_only_wallet_calls_are_answered(upstream: Upstream) -> None:
    """While it lasts; afterwards, and for everything else, the upstream is asked."""
    upstream.seed({"u": 7})
    settle = Settle(base_url=upstream.base_url, api_key=upstream.api_key)
    with fake_wallet({"u": 1}) as wallet:
        assert settle.wallet.get_balance("u").balance == 1
        assert settle.events.get_summary("u").totals == ()
        assert [each["path"] for each in upstream.log()] == ["/v1/events/summary"]
    assert settle.wallet.get_balance("u").balance == 7
    assert wallet.get_balance("u").balance == 1
    settle.close()


def test_it_answers_as_the_sandbox_does(upstream: Upstream, wallets: Callable[..., Any]) -> None:
    """Call by call the same values, but for ids and times."""
    upstream.seed({"u": 20})
    fake = FakeWallet()
    fake.credit("u", amount=20, description="Seed")
    real = wallets(KINDS[0], upstream)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("debit", {"amount": 5, "description": "x"}),
        ("debit", {"amount": 16, "idempotency_key": "too much"}),
        ("debit", {"amount": 15, "idempotency_key": "k"}),
        ("debit", {"amount": 15, "idempotency_key": "k"}),
        ("debit", {"amount": 14, "idempotency_key": "k"}),
        ("credit", {"amount": 3, "metadata": {"a": [1]}}),
        ("record_ad_reward", {"ad_network": "AdMob", "reward_amount": 2, "ad_unit_id": "unit"}),
        ("get_balance", {}),
        ("get_history", {"page": 1, "limit": 3}),
        ("get_history", {"page": 2, "limit": 3}),
        ("get_history", {"page": 3, "limit": 3}),
    ]
    for name, named in calls:
        asked = partial(real, name, "u", **named), partial(getattr(fake, name), "u", **named)
        assert _outcome(asked[0]) == _outcome(asked[1]), (name, named)


def _outcome(call: Callable[[], Any]) -> Any:
    """Turn what a call gives or raises into values that both may have in common."""
    try:
        result = call()
    except SettleSettleError as error:
        return type(error), {**vars(error), "idempotency_key": ""}
    return json.loads(
        json.dumps(asdict(result)), object_hook=lambda each: {**each, "id": "", "created_at": ""}
    )
