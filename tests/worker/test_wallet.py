"""The wallet of threads and of event loops, against the real sandbox and servers that misbehave."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

import settle_mp
from settle_mp import (
    ApiError,
    AuthenticationError,
    InsufficientCreditsError,
    RateLimitError,
    Settle,
    SettleSettleError,
    TimeoutError,  # noqa: A004 - the vendor's name
    ValidationError,
)
from settle_mp.sandbox.faults import Fault
from settle_mp.worker import line
from tests.rawserver import (
    KeepsAlive,
    answers,
    closes,
    closes_mid_body,
    deaf_port,
    drips,
    garbage,
    knows_no_tls,
    raw_server,
    refusing_port,
    resets,
    resets_mid_body,
    silent,
)
from tests.upstreams import sandbox, upstream
from tests.worker.wallets import DONE, KINDS, wallets

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.rawserver import Behaviour
    from tests.upstreams import Upstream
    from tests.worker.wallets import Client

__all__ = ["upstream", "wallets"]

USER = "user_123"


def _http(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "content-type: application/json", *headers]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + body


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Threads, then event loops."""
    return str(request.param)


@pytest.fixture
def wallet(kind: str, upstream: Upstream, wallets: Callable[..., Client]) -> Client:
    """A client of the sandbox, where the user has 50 credits."""
    upstream.seed({USER: 50})
    return wallets(kind, upstream)


def _debit_fails(client: Client, **named: Any) -> SettleSettleError:
    with pytest.raises(SettleSettleError) as caught:
        client("debit", USER, amount=1, **named)
    _check_nothing_leaks(caught.value)
    return caught.value


def _check_nothing_leaks(error: BaseException | None) -> None:
    """No error of httpx is caught by a user, nor shown as the reason of one of ours."""
    assert error is not None
    assert error.__cause__ is None
    package = type(error.__context__).__module__.partition(".")[0]
    assert error.__suppress_context__ or package not in {"httpx", "httpcore", "ssl", "socket"}
    assert "ss_test_upstream" not in f"{error!r} {error}"


# What it does.


def test_the_whole_wallet(wallet: Client) -> None:
    """Each call gives the value that the upstream describes."""
    debit = wallet("debit", USER, amount=10, description="AI query", metadata={"model": "gpt-4"})
    assert (debit.type, debit.amount, debit.balance_after, debit.description) == ("DEBIT", 10, 40, "AI query")
    credit = wallet("credit", USER, amount=5)
    assert (credit.type, credit.amount, credit.balance_after, credit.description) == ("CREDIT", 5, 45, None)
    reward = wallet("record_ad_reward", USER, ad_network="AdMob", reward_amount=2, ad_unit_id="x")
    assert (reward.type, reward.amount, reward.balance_after) == ("AD_REWARD", 2, 47)
    balance = wallet("get_balance", USER)
    assert (balance.user_id, balance.balance) == (USER, 47)
    history = wallet("get_history", USER, page=1, limit=2)
    assert (history.user_id, history.current_balance, history.pages_count) == (USER, 47, 2)
    assert [each.id for each in history.transactions] == [reward.id, credit.id]
    walked = wallet("iter_history", USER, page_size=3)
    assert [each.amount for each in walked] == [2, 5, 10, 50]


def test_the_vendors_way_of_giving_arguments(wallet: Client) -> None:
    """A dict in the second place; `destroy` and the names of the classes are the vendor's too."""
    assert wallet("debit", USER, {"amount": 10, "description": "AI query"}).balance_after == 40
    assert wallet("credit", USER, {"amount": 1}, description="gift").description == "gift"
    assert wallet("record_ad_reward", USER, {"adNetwork": "A", "rewardAmount": 4}).balance_after == 45
    wallet.wait(wallet.settle.destroy())
    assert wallet("get_balance", USER).balance == 45
    assert settle_mp.SettleSettle is Settle
    assert settle_mp.AsyncSettleSettle is settle_mp.AsyncSettle


@pytest.mark.parametrize("user_id", ["a/b", "ü x", "u/balance", "100%", "a?b#c", "a//b", "+", "%2F"])
def test_any_user_id_is_one_wallet(wallet: Client, upstream: Upstream, user_id: str) -> None:
    """Percent-encoded, `/` included: no other wallet and no other call is met."""
    assert wallet("credit", user_id, amount=3).balance_after == 3
    assert wallet("get_balance", user_id).user_id == user_id
    assert wallet("get_history", user_id).user_id == user_id
    assert upstream.balance(user_id) == 3


def test_the_summary(wallet: Client, upstream: Upstream) -> None:
    """What the upstream has counted, exact, also in the vendor's form."""
    import httpx

    event = {"userId": "a&b", "eventType": "AI_QUERY", "quantity": 0.1}
    httpx.post(
        f"{upstream.base_url}/v1/events/batch",
        json={"events": [event, event, event]},
        headers={"X-API-Key": upstream.api_key},
        trust_env=False,
    )
    summary = wallet("get_summary", "a&b")
    assert [(each.event_type, str(each.total_quantity), each.count) for each in summary.totals] == [
        ("AI_QUERY", "0.3", 3)
    ]
    assert summary["summary"][0]["eventType"] == "AI_QUERY"
    assert wallet("get_summary", "nobody").totals == ()


def test_racing_debits_never_overdraw(wallets: Callable[..., Client]) -> None:
    """Of 100 debits of 10 at once from 500, 50 succeed and 50 raise."""
    with sandbox(seeds={USER: 500}) as upstream, ThreadPoolExecutor(20) as pool:
        client = wallets("sync", upstream)
        racing = [pool.submit(client, "debit", USER, amount=10, timeout=60) for _ in range(100)]
        ends = Counter(type(each.exception()).__name__ for each in racing)
        assert upstream.balance(USER) == 0
    assert ends == {"NoneType": 50, "InsufficientCreditsError": 50}


def test_racing_debits_of_tasks_never_overdraw(wallets: Callable[..., Client]) -> None:
    """The same in an event loop."""
    import asyncio

    with sandbox(seeds={USER: 500}) as upstream:
        client = wallets("async", upstream)

        async def race() -> list[Any]:
            debits = [client.settle.wallet.debit(USER, amount=10, timeout=60) for _ in range(100)]
            return await asyncio.gather(*debits, return_exceptions=True)

        ends = Counter(type(each).__name__ for each in client.wait(race()))
        assert upstream.balance(USER) == 0
    assert ends == {"WalletTransaction": 50, "InsufficientCreditsError": 50}


# What it refuses.


def test_insufficient_credits(wallet: Client, upstream: Upstream) -> None:
    """The vendor's class and attributes, certain, and the key; nothing was taken."""
    with pytest.raises(InsufficientCreditsError) as caught:
        wallet("debit", USER, amount=51)
    error = caught.value
    assert (error.user_id, error.current_balance, error.requested_amount) == (USER, 50, 51)
    assert not error.is_in_doubt
    assert error.idempotency_key == upstream.log()[-1]["idempotencyKey"]
    assert upstream.balance(USER) == 50


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.answering(401, when="before"), AuthenticationError),
        (Fault.answering(403, when="before"), ApiError),
        (Fault.answering(404, when="before"), ApiError),
        (Fault.redirect("http://127.0.0.1:9/"), ApiError),
        (Fault.refuse(USER, times=1), ValidationError),
    ],
)
def test_refusals_are_the_vendors_classes(
    wallet: Client, upstream: Upstream, fault: Fault, error: type[SettleSettleError]
) -> None:
    """Certain, and after one try."""
    upstream.fault(fault)
    caught = _debit_fails(wallet)
    assert type(caught) is error
    assert not caught.is_in_doubt
    assert upstream.requests_count == 1


@pytest.mark.parametrize("amount", [None, True, 0, -1, 1.0, "10"])
def test_bad_amounts_send_nothing(wallet: Client, upstream: Upstream, amount: Any) -> None:
    """Neither do bad users, keys, pages, timeouts and choices."""
    for name in ("debit", "credit"):
        with pytest.raises((TypeError, ValueError), match="amount"):
            wallet(name, USER, amount=amount)
    with pytest.raises((TypeError, ValueError), match="reward_amount"):
        wallet("record_ad_reward", USER, ad_network="A", reward_amount=amount)
    bad: list[tuple[str, dict[str, Any]]] = [
        ("debit", {"amount": 1, "idempotency_key": "ä"}),
        ("debit", {"amount": 1, "timeout": 0}),
        ("debit", {"amount": 1, "on_in_doubt": "hold"}),
        ("get_history", {"page": 0}),
        ("iter_history", {"page_size": 0}),
    ]
    for name, named in bad:
        with pytest.raises((TypeError, ValueError), match=r"key|timeout|on_in_doubt|page|limit"):
            wallet(name, USER, **named)
    assert upstream.requests_count == 0


def test_disabled_raises(kind: str, upstream: Upstream, wallets: Callable[..., Client]) -> None:
    """A debit that did nothing would give paid work away; a summary, which is about events, is empty."""
    client = wallets(kind, upstream, disabled=True)
    error = _debit_fails(client)
    assert (error.code, "disabled" in str(error), error.is_in_doubt) == ("DISABLED", True, False)
    assert client("get_summary", USER).totals == ()
    assert upstream.requests_count == 0


def test_without_a_key_it_raises(kind: str, wallets: Callable[..., Client]) -> None:
    """And says which variable to set."""
    with raw_server() as raw:
        error = _debit_fails(wallets(kind, raw, api_key=None))
        assert raw.connections_count == 0
    assert isinstance(error, AuthenticationError)
    assert "SETTLESETTLE_API_KEY" in str(error)


def test_a_changed_key_file_is_used_at_once(kind: str, tmp_path: Any, wallets: Callable[..., Client]) -> None:
    """A key that was rotated needs no restart."""
    file = tmp_path / "key"
    file.write_text("ss_test_first")
    with sandbox(api_key="ss_test_second", seeds={USER: 5}) as upstream:
        client = wallets(kind, upstream, api_key=None, api_key_file=file)
        assert isinstance(_debit_fails(client), AuthenticationError)
        file.write_text("ss_test_second\n")
        assert client("debit", USER, amount=1).balance_after == 4


# Keys, and what is tried again.


def test_every_write_has_a_key_of_its_own_and_reads_have_none(wallet: Client, upstream: Upstream) -> None:
    """A quoted string, or the sandbox would refuse it; the caller's own is sent as it is."""
    for name in ("debit", "credit"):
        wallet(name, USER, amount=1)
    wallet("record_ad_reward", USER, ad_network="A", reward_amount=1)
    wallet("debit", USER, amount=1, idempotency_key='order "7"')
    wallet("get_balance", USER)
    keys = [each["idempotencyKey"] for each in upstream.log()]
    assert keys[3:] == ['order "7"', None]
    assert len(set(keys[:3])) == 3
    assert all(key is not None and len(key) == 36 for key in keys[:3])


def test_the_callers_key_makes_a_debit_once(wallet: Client, upstream: Upstream) -> None:
    """Asked twice, the first transaction comes again; with another amount it is refused."""
    first, again = (wallet("debit", USER, amount=7, idempotency_key="order-7") for _ in range(2))
    assert first == again
    with pytest.raises(ApiError) as caught:
        wallet("debit", USER, amount=8, idempotency_key="order-7")
    assert (caught.value.status_code, caught.value.idempotency_key) == (422, "order-7")
    assert upstream.balance(USER) == 43


def test_a_refused_connection_is_tried_again(
    kind: str, wallets: Callable[..., Client], upstream: Upstream
) -> None:
    """An upstream that comes back within the deadline is met, and the debit is made once."""
    upstream.seed({USER: 50})
    client = wallets(kind, upstream)
    upstream.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client, "debit", USER, amount=10, timeout=30)
        upstream.start()
        assert waiting.result(60).balance_after == 40
    assert upstream.balance(USER) == 40


def test_429_is_tried_again_when_it_says(wallet: Client, upstream: Upstream) -> None:
    """As late as Retry-After asks, under the same key."""
    upstream.fault(Fault.answering(429, when="before", headers={"Retry-After": "1"}))
    began_s = time.monotonic()
    assert wallet("debit", USER, amount=10).balance_after == 40
    assert time.monotonic() - began_s >= 1.0
    first, second = upstream.log()
    assert (first["idempotencyKey"], first["bodySha256"]) == (second["idempotencyKey"], second["bodySha256"])


def test_429_for_longer_than_there_is_time_is_an_error_at_once(wallet: Client, upstream: Upstream) -> None:
    """With the time that it asks for."""
    upstream.fault(Fault.answering(429, when="before", headers={"Retry-After": "3000"}))
    error = _debit_fails(wallet)
    assert isinstance(error, RateLimitError)
    assert (error.retry_after_ms, error.is_in_doubt) == (3_000_000, False)
    assert upstream.requests_count == 1


def test_a_read_is_tried_again(wallet: Client, upstream: Upstream) -> None:
    """To look twice does no harm."""
    upstream.fault(Fault.answering(503), Fault.reset())
    assert wallet("get_balance", USER).balance == 50


@pytest.mark.parametrize("where", ["refused", "deaf", "name"])
def test_what_never_reached_the_upstream_is_certain(
    kind: str, wallets: Callable[..., Client], where: str
) -> None:
    """Refused, connect timeout, no such name: within the deadline, not in doubt, and it says so."""
    with refusing_port() as refusing, deaf_port() as deaf:
        hosts = {"refused": f"127.0.0.1:{refusing}", "deaf": f"127.0.0.1:{deaf}", "name": "x.invalid"}
        began_s = time.monotonic()
        # A test key would be warned of, at an address that is not this machine's.
        client = wallets(kind, f"http://{hosts[where]}", api_key="ss_live_upstream")
        error = _debit_fails(client, timeout=1.5)
        took_s = time.monotonic() - began_s
    assert (error.is_in_doubt, "nothing was sent" in str(error)) == (False, True)
    assert error.idempotency_key is not None
    assert type(error) is (TimeoutError if where == "deaf" else ApiError)
    assert took_s < 10


def test_a_server_without_tls_is_an_error_at_once(kind: str, wallets: Callable[..., Client]) -> None:
    """It does not mend itself within seconds."""
    with raw_server(knows_no_tls) as raw:
        error = _debit_fails(wallets(kind, raw.base_url.replace("http", "https")))
        assert raw.connections_count == 1
    assert (error.is_in_doubt, "TLS" in str(error)) == (False, True)


# In doubt.


@pytest.mark.parametrize(
    "behaviour",
    [
        closes,
        resets,
        resets_mid_body,
        closes_mid_body,
        garbage,
        answers(_http("500 Oops")),
        answers(_http("503 Busy", b'{"message": "busy"}', "retry-after: 1")),
        answers(_http("408 Slow")),
        answers(_http("200 OK", b"<html>welcome</html>")),
        answers(_http("200 OK", b'{"data": {}}')),
        answers(_http("204 Nothing")),
    ],
)
def test_whatever_leaves_it_open_is_raised_after_one_try(
    kind: str, wallets: Callable[..., Client], behaviour: Behaviour, caplog: pytest.LogCaptureFixture
) -> None:
    """With the key that was sent; and it is logged, since the caller may not look."""
    with raw_server(behaviour) as raw:
        error = _debit_fails(wallets(kind, raw))
        assert raw.connections_count == 1
        sent = raw.connections[0].received.decode()
    assert error.is_in_doubt
    assert f'idempotency-key: "{error.idempotency_key}"' in sent.lower()
    (told,) = [each for each in caplog.records if each.message == "wallet_call_in_doubt"]
    assert (told.message, told.levelno) == ("wallet_call_in_doubt", logging.WARNING)
    assert vars(told)["idempotency_key"] == error.idempotency_key


@pytest.mark.parametrize("behaviour", [silent, drips(_http("200 OK", DONE), 0.2)])
def test_silence_ends_at_the_deadline_in_doubt(
    kind: str, wallets: Callable[..., Client], behaviour: Behaviour
) -> None:
    """However slowly an answer comes."""
    with raw_server(behaviour) as raw:
        began_s = time.monotonic()
        error = _debit_fails(wallets(kind, raw), timeout=3.0)
        took_s = time.monotonic() - began_s
    assert error.is_in_doubt
    assert isinstance(error, (TimeoutError, ApiError))
    assert 2.5 < took_s < 30


def test_a_debit_that_is_made_and_then_reset_is_never_made_twice(wallet: Client, upstream: Upstream) -> None:
    """The error says what the caller must know; asking again with its key finds the debit that was made."""
    upstream.fault(Fault.reset(when="after"))
    error = _debit_fails(wallet)
    assert (error.is_in_doubt, upstream.requests_count, upstream.balance(USER)) == (True, 1, 49)
    assert f"idempotency_key={error.idempotency_key!r}" in str(error)
    again = wallet("debit", USER, amount=1, idempotency_key=error.idempotency_key)
    assert (again.balance_after, upstream.balance(USER)) == (49, 49)


@pytest.mark.parametrize("fault", [Fault.reset(when="after"), Fault.answering(503), Fault.html(200)])
def test_told_so_it_asks_again_by_itself(wallet: Client, upstream: Upstream, fault: Fault) -> None:
    """Under the same key and with the same bytes, for an upstream that honours keys: one charge."""
    upstream.fault(fault, fault)
    assert wallet("debit", USER, amount=1, on_in_doubt="retry").balance_after == 49
    assert upstream.balance(USER) == 49
    assert len({(each["idempotencyKey"], each["bodySha256"]) for each in upstream.log()}) == 1


def test_an_upstream_that_ignores_keys_and_a_refusal_after_a_doubt(
    kind: str, wallets: Callable[..., Client]
) -> None:
    """Charged by the first try and refused at the second, it must not pass for "nothing was taken"."""
    with sandbox(ignores_idempotency_keys=True, seeds={USER: 1}) as upstream:
        upstream.fault(Fault.reset(when="after"))
        error = _debit_fails(wallets(kind, upstream), on_in_doubt="retry")
        assert upstream.balance(USER) == 0
    assert not isinstance(error, InsufficientCreditsError)
    assert (error.is_in_doubt, "Asked again" in str(error)) == (True, True)


# Processes, threads, connections.


def test_connections_are_kept_and_closed(kind: str, wallets: Callable[..., Client]) -> None:
    """Calls one after the other share one; close() ends it, and a later call opens another."""
    with raw_server(KeepsAlive(DONE)) as raw:
        client = wallets(kind, raw)
        for _ in range(3):
            client("debit", USER, amount=1)
        assert raw.connections_count == 1
        client.wait(client.settle.close())
        client("debit", USER, amount=1)
        assert raw.connections_count == 2
        client.close() if kind == "sync" else client.wait(client.settle.close())


def test_clients_of_one_account_share_connections(wallets: Callable[..., Client], upstream: Upstream) -> None:
    """One HTTP client a process, however many `Settle()` there are."""
    upstream.seed({USER: 9})
    first, second = wallets("sync", upstream), wallets("sync", upstream)
    first("get_balance", USER)
    second("get_balance", USER)
    (held,) = [each for each in line._lines.values() if each._settings.base_url == upstream.base_url]
    assert len(held._upstreams) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_has_connections_of_its_own(wallets: Callable[..., Client]) -> None:
    """Forked in the middle of a call, it neither uses nor ends what the parent has open, nor waits for it."""
    with sandbox(in_process=False, seeds={USER: 9}) as upstream:
        client = wallets("sync", upstream)
        client("debit", USER, amount=1)
        (held,) = [each for each in line._lines.values() if each._settings.base_url == upstream.base_url]
        (before,) = held._upstreams.values()
        parents = before._exchanges._lanes[0].stream.get_extra_info("socket").getsockname()
        with warnings.catch_warnings():
            # Python 3.12 warns of threads, and a timer's may still be ending.
            warnings.simplefilter("ignore", DeprecationWarning)
            # As another thread of the parent may, which the child does not have.
            before._exchanges._lock.acquire()
            pid = os.fork()
        if pid == 0:
            signal.alarm(60)
            code = 1
            try:
                is_charged = client("debit", USER, amount=1).balance_after == 7
                (mine,) = held._upstreams.values()
                ours = mine._exchanges._lanes[0].stream.get_extra_info("socket").getsockname()
                code = 0 if is_charged and mine is not before and ours != parents else 2
            finally:
                os._exit(code)
        before._exchanges._lock.release()
        assert os.waitpid(pid, 0)[1] == 0
        assert client("debit", USER, amount=1).balance_after == 6
        assert before._exchanges._lanes[0].stream.get_extra_info("socket").getsockname() == parents


def test_threads_that_begin_at_once_share_one_client(
    wallets: Callable[..., Client], upstream: Upstream
) -> None:
    """Made without a lock, one of them wins and the others are closed."""
    upstream.seed({USER: 100})
    client = wallets("sync", upstream)
    barrier = threading.Barrier(8)

    def debit() -> None:
        barrier.wait()
        client("debit", USER, amount=1)

    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(debit) for _ in range(8)]:
            each.result()
    assert upstream.balance(USER) == 92
    (held,) = [each for each in line._lines.values() if each._settings.base_url == upstream.base_url]
    assert len(held._upstreams) == 1


def test_nothing_heavy_is_imported_before_the_first_call(tmp_path: Any) -> None:
    """Neither importing, nor making clients, nor tracking, nor having a wallet brings httpx in."""
    program = """
import json, sys
from settle_mp import AsyncSettle, Settle
settle, later = Settle(), AsyncSettle()
settle.events.track("u", "AI_QUERY")
later.events.track("u", "AI_QUERY")
early = [name for name in ("httpx", "sqlite3", "asyncio", "ssl") if name in sys.modules]
settle.wallet, later.wallet
print(json.dumps([early, "httpx" in sys.modules]))
"""
    environ = {**os.environ, "SETTLE_MP_STATE_DIR": str(tmp_path / "s")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=environ,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert json.loads(ran.stdout) == [[], False]


def test_the_process_ends_without_close(upstream: Upstream) -> None:
    """Connections are closed at exit, without a word on standard error, in a forked child as well."""
    upstream.seed({USER: 10})
    program = f"""
import os, sys
from settle_mp import Settle
settle = Settle()
settle.wallet.debit({USER!r}, amount=1)
pid = os.fork()
settle.wallet.debit({USER!r}, amount=1)
if pid:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    ran = subprocess.run(
        # Python 3.12 warns of a fork with threads, and a timer's may still be ending.
        [sys.executable, "-X", "dev", "-W", "ignore:This process:DeprecationWarning", "-c", program],
        env={**os.environ, **upstream.environ},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    assert upstream.balance(USER) == 7
