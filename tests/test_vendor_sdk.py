"""The vendor's published SDK against our sandbox, and its names, arguments and errors in ours."""

from __future__ import annotations

import asyncio
import inspect
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import settlesettle
from settlesettle.modules.events import AsyncEventsModule, EventsModule
from settlesettle.modules.wallet import AsyncWalletModule, WalletModule

import settle_mp
from settle_mp.sandbox.faults import Fault
from settle_mp.worker.async_wallet import AsyncWallet
from settle_mp.worker.wallet import Wallet
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Upstream

__all__ = ["upstream"]

USER = "user_123"


class Vendor:
    """The SDK's synchronous or asynchronous client, called in one way."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._loop = asyncio.new_event_loop()

    def __call__(self, result: Any) -> Any:
        """Wait for a result, where it is to be awaited."""
        return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result

    def close(self) -> None:
        """End it as its documentation says."""
        self(self.client.destroy())
        # The SDK's asynchronous client leaves its timer's task behind.
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            self._loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        self._loop.close()


def _vendors(upstream: Upstream, name: str = "SettleSettle", **named: Any) -> Any:
    with warnings.catch_warnings():
        # It warns of each test key.
        warnings.simplefilter("ignore", UserWarning)
        return getattr(settlesettle, name)(api_key=upstream.api_key, base_url=upstream.base_url, **named)


@pytest.fixture(params=["SettleSettle", "AsyncSettleSettle"])
def vendor(request: pytest.FixtureRequest, upstream: Upstream) -> Iterator[Vendor]:
    """A client of the SDK whose timer sends nothing by itself; the user has 50 credits."""
    upstream.seed({USER: 50})
    vendor = Vendor(_vendors(upstream, request.param, flush_interval_ms=600_000))
    yield vendor
    vendor.close()


def test_its_wallet_runs_against_the_sandbox(vendor: Vendor, upstream: Upstream) -> None:
    """Every call of it, with its values as it documents them."""
    wallet = vendor.client.wallet
    assert vendor(wallet.get_balance(USER)) == settlesettle.WalletBalance(user_id=USER, balance=50)
    debit = vendor(wallet.debit(USER, amount=10, description="AI Query", metadata={"model": "gpt-4"}))
    assert (debit.type, debit.amount, debit.balance_after, debit.description) == ("DEBIT", 10, 40, "AI Query")
    credit = vendor(wallet.credit(USER, {"amount": 5, "description": "Top-up"}))
    assert (credit.type, credit.balance_after) == ("CREDIT", 45)
    reward = vendor(wallet.record_ad_reward(USER, {"adNetwork": "AdMob", "rewardAmount": 3}))
    assert (reward.type, reward.balance_after) == ("AD_REWARD", 48)
    history = vendor(wallet.get_history(USER, page=1, limit=2))
    assert history.current_balance == 48
    assert [each.id for each in history.transactions] == [reward.id, credit.id]
    assert history.pagination["total"] == 4
    assert upstream.balance(USER) == 48


def test_its_events_run_against_the_sandbox(vendor: Vendor, upstream: Upstream) -> None:
    """Tracked, pending, flushed, and summed up."""
    events = vendor.client.events
    for _ in range(3):
        events.track(USER, "AI_QUERY", quantity=2, metadata={"model": "gpt-4"})
    assert events.pending_count == 3
    vendor(events.flush())
    assert events.pending_count == 0
    assert upstream.quantity("AI_QUERY") == 6
    assert vendor(events.get_summary(USER)) == {
        "summary": [{"eventType": "AI_QUERY", "totalQuantity": 6, "count": 3}]
    }


def test_its_buffer_runs_against_the_sandbox(upstream: Upstream) -> None:
    """A full buffer sends itself, its timer sends the rest, and without a buffer each event goes alone."""
    settle = _vendors(upstream, max_batch_size=2, flush_interval_ms=50)
    for _ in range(5):
        settle.events.track(USER, "BUFFERED")
    upstream.wait_quantity(5, "BUFFERED")
    settle.destroy()
    assert "/v1/events/batch" in upstream.requests()["byPath"]
    settle = _vendors(upstream, event_buffering=False)
    settle.events.track(USER, "ALONE", metadata={"a": [1]})
    upstream.wait_quantity(1, "ALONE")
    settle.destroy()
    assert upstream.requests()["byPath"]["/v1/events"] == 1


def test_its_retries_run_against_the_sandbox(vendor: Vendor, upstream: Upstream) -> None:
    """429 and 503 are tried again, as its documentation says."""
    upstream.fault(Fault.answering(429, when="before"), Fault.answering(503, when="before"))
    assert vendor(vendor.client.wallet.get_balance(USER)).balance == 50


def test_every_public_call_of_it_is_run() -> None:
    """Of its events and wallets: what a newer SDK adds is missed here, and not by our users."""
    source = inspect.getsource(sys.modules[__name__])
    for module in (EventsModule, AsyncEventsModule, WalletModule, AsyncWalletModule):
        for name in [each for each in vars(module) if not each.startswith("_")]:
            # `destroy` calls it, and nobody else has a reason to.
            assert name == "stop_buffer" or f".{name}" in source, name


def test_its_errors_are_made_of_the_sandboxs_answers(vendor: Vendor, upstream: Upstream) -> None:
    """402 with its three values, 400 and 401."""
    wallet = vendor.client.wallet
    with pytest.raises(settlesettle.InsufficientCreditsError) as short:
        vendor(wallet.debit(USER, amount=51))
    error = short.value
    assert (error.user_id, error.current_balance, error.requested_amount) == (USER, 50, 51)
    with pytest.raises(settlesettle.ValidationError):
        vendor(wallet.debit(USER, amount=-1))
    upstream.fault(Fault.answering(401, when="before"))
    with pytest.raises(settlesettle.AuthenticationError):
        vendor(wallet.get_balance(USER))


def test_ours_has_its_errors_and_their_attributes() -> None:
    """`except` clauses and what they read go on working after a changed import."""
    for name in settlesettle.__all__:
        theirs = getattr(settlesettle, name)
        if isinstance(theirs, type) and issubclass(theirs, Exception):
            ours = getattr(settle_mp, name)
            assert issubclass(ours, settle_mp.SettleSettleError)
            assert [each.__name__ for each in theirs.__mro__] == [each.__name__ for each in ours.__mro__]
    theirs_made = settlesettle.InsufficientCreditsError("u", 1, 2)
    ours_made = settle_mp.InsufficientCreditsError("u", 1, 2)
    assert set(vars(theirs_made)) <= set(vars(ours_made))
    assert (ours_made.status_code, ours_made.code) == (theirs_made.status_code, theirs_made.code)


def test_ours_has_its_calls_with_the_arguments_in_its_order() -> None:
    """What was called by position or by name is called so still, and the same calls are awaited."""
    for theirs, ours in (
        (settlesettle.SettleSettle, settle_mp.SettleSettle),
        (settlesettle.AsyncSettleSettle, settle_mp.AsyncSettleSettle),
    ):
        for name in ("destroy", "is_sandbox", "is_live"):
            assert hasattr(theirs, name)
            assert hasattr(ours, name)
        assert inspect.iscoroutinefunction(theirs.destroy) == inspect.iscoroutinefunction(ours.destroy)
    for theirs_wallet, ours_wallet in ((WalletModule, Wallet), (AsyncWalletModule, AsyncWallet)):
        for name in ("get_balance", "credit", "debit", "record_ad_reward", "get_history"):
            theirs_call, ours_call = getattr(theirs_wallet, name), getattr(ours_wallet, name)
            named = [each for each in inspect.signature(theirs_call).parameters if each != "kwargs"]
            assert list(inspect.signature(ours_call).parameters)[: len(named)] == named
            assert inspect.iscoroutinefunction(theirs_call) == inspect.iscoroutinefunction(ours_call)


def test_its_first_arguments_may_be_given_by_position(upstream: Upstream) -> None:
    """The key and the address, in its order."""
    for ours in (settle_mp.SettleSettle, settle_mp.AsyncSettleSettle):
        names = list(inspect.signature(ours).parameters)[:2]
        assert names == list(inspect.signature(settlesettle.SettleSettle).parameters)[:2]
        assert ours(upstream.api_key, upstream.base_url).is_sandbox
    upstream.seed({USER: 50})
    settle = settle_mp.SettleSettle(upstream.api_key, upstream.base_url)
    assert settle.wallet.get_balance(USER).balance == 50
    settle.close()


def test_its_other_arguments_are_refused_with_what_there_is_instead() -> None:
    """Each argument of its clients is taken by ours, or named with what takes its place."""
    for name in inspect.signature(settlesettle.SettleSettle).parameters:
        if name in {"api_key", "base_url"}:
            continue
        given: Any = {name: 1}
        with pytest.raises(settle_mp.SettingsError, match="the vendor's SDK has it, and here there is"):
            settle_mp.SettleSettle(**given)
