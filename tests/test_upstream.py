"""The upstream: what goes out, what comes back, and a key that is seen in one header only."""

from __future__ import annotations

import json
import logging
import socket
from typing import TYPE_CHECKING

import pytest

from settle_mp.core.answer import BodyKind, Failure, NoReply, Reply
from settle_mp.core.outcome import Outcome, classify
from settle_mp.core.secret import Secret
from settle_mp.upstream import Upstream
from tests.peer import PATIENCE_S, Behaviour, Call, Peer, answers

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "ss_test_0123456789abcdef"
BODY = b'{"events": [{"userId":"u","eventType":"T","quantity":0.10}]}'
NOW_S = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the proxies of whoever runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _upstream(url: str, *, key: str = KEY, try_timeout_s: float = PATIENCE_S) -> Upstream:
    return Upstream(url, Secret(key), try_timeout_s=try_timeout_s)


def _post(behaviour: Behaviour, **options: float) -> Reply | NoReply:
    with Peer(behaviour) as peer:
        upstream = _upstream(peer.url, **options)  # type: ignore[arg-type]
        answer = upstream.post_batch(idempotency_key="k", body=BODY)
        upstream.close()
    return answer


@pytest.fixture
def peer() -> Iterator[Peer]:
    """Start a peer that accepts everything."""
    with Peer(answers(200)) as started:
        yield started


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_a_batch_goes_out_as_it_was_frozen(peer: Peer, end: str) -> None:
    """The exact bytes, the quoted key and the documented headers, whichever way base_url is written."""
    upstream = _upstream(peer.url + end)
    answer = upstream.post_batch(idempotency_key="b-1f", body=BODY)
    upstream.close()
    assert answer == Reply(status=200, body_kind=BodyKind.JSON)
    call = peer.calls.get(timeout=PATIENCE_S)
    assert call.head.startswith(b"POST /v1/events/batch HTTP/1.1\r\n")
    assert call.body == BODY
    assert call.header("content-type") == "application/json"
    assert call.header("idempotency-key") == '"b-1f"'
    assert call.header("x-api-key") == KEY
    assert call.head.count(KEY.encode()) == 1


def test_a_prefix_in_base_url_is_kept(peer: Peer) -> None:
    """Some reach the vendor through a gateway of their own."""
    upstream = _upstream(peer.url + "/billing/v1")
    upstream.post_batch(idempotency_key="k", body=BODY)
    upstream.close()
    assert peer.calls.get(timeout=PATIENCE_S).target == "/billing/v1/events/batch"


def test_the_idempotency_key_is_a_structured_string(peer: Peer) -> None:
    """RFC 8941: quote and backslash are escaped, other characters are refused."""
    upstream = _upstream(peer.url)
    upstream.post_batch(idempotency_key='a"b\\c', body=BODY)
    assert peer.calls.get(timeout=PATIENCE_S).header("idempotency-key") == '"a\\"b\\\\c"'
    for bad in ("käse", "a\nb", "a\x7f"):
        with pytest.raises(ValueError, match="idempotency_key"):
            upstream.post_batch(idempotency_key=bad, body=BODY)
    upstream.close()


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (answers(200), Outcome.ACCEPTED),
        (answers(204, b""), Outcome.ACCEPTED),
        (answers(200, b"<html>welcome</html>", "Content-Type: text/html"), Outcome.IN_DOUBT),
        (answers(302, b"", "Location: http://127.0.0.1:1/"), Outcome.MISCONFIGURED),
        (answers(400, b"<html>bad</html>"), Outcome.REFUSED),
        (answers(401), Outcome.MISCONFIGURED),
        (answers(413, b"<html>too large</html>"), Outcome.TOO_LARGE),
        (answers(429), Outcome.DEFERRED),
        (answers(503, b"", "Retry-After: 7"), Outcome.IN_DOUBT),
        (Call.reset, Outcome.IN_DOUBT),
    ],
)
def test_real_answers_meet_the_table(behaviour: Behaviour, outcome: Outcome) -> None:
    """From the socket to the outcome, without a library's exception between."""
    assert classify(_post(behaviour), now_s=NOW_S).outcome is outcome


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("Fri, 15 Jan 2027 08:00:30 GMT", 30.0), ("later", None)]
)
def test_retry_after_comes_through(text: str, seconds: float | None) -> None:
    """Both forms reach the verdict; garbage is no header."""
    assert classify(_post(answers(429, b"", f"Retry-After: {text}")), now_s=NOW_S).retry_after_s == seconds


def test_an_answer_cut_off_after_success_is_in_doubt() -> None:
    """2xx with half a body may come from anything between us and the upstream."""

    def break_off(call: Call) -> None:
        call.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}")
        call.connection.close()

    answer = _post(break_off)
    assert answer == Reply(status=200, body_kind=BodyKind.CUT)
    assert classify(answer, now_s=NOW_S).outcome is Outcome.IN_DOUBT


def test_silence_ends_at_the_deadline() -> None:
    """The time that was given, and in doubt."""
    answer = _post(Call.wait_for_close, try_timeout_s=0.3)
    assert isinstance(answer, NoReply)
    assert answer.failure is Failure.SENT_THEN_TIMEOUT


def test_refused_rows_come_through() -> None:
    """What a validation error names is there for the bisecting."""
    body = json.dumps({"message": "Invalid", "data": {"fields": {"events.1.quantity": ["min"]}}}).encode()
    answer = _post(answers(400, body, "Content-Type: application/json"))
    assert answer == Reply(
        status=400,
        body_kind=BodyKind.JSON,
        message="Invalid",
        content_type="application/json",
        refused_rows=(1,),
    )


@pytest.mark.parametrize("key", [KEY, "a-key-of-another-form"])
def test_the_key_is_taken_out_of_what_servers_repeat(key: str) -> None:
    """A refusal that names the key, in its body or its redirect, must not carry it into a status page."""

    def repeat(call: Call) -> None:
        given = call.header("x-api-key")
        body = json.dumps({"message": f"unknown key {given}"}).encode()
        call.answer(401, body, f"Location: https://a.example/?key={given}")

    with Peer(repeat) as peer:
        upstream = _upstream(peer.url, key=key)
        answer = upstream.post_batch(idempotency_key="k", body=BODY)
        upstream.close()
    assert isinstance(answer, Reply)
    assert answer.message.startswith("unknown key")
    assert answer.location is not None
    assert "0123456789" not in repr(answer)
    assert "another-form" not in repr(answer)


def test_the_key_is_in_no_repr_and_no_log(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    """With every library's logging on, in success and in failure."""
    caplog.set_level(logging.DEBUG)
    upstream = _upstream(peer.url)
    upstream.post_batch(idempotency_key="k", body=BODY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        nobody = _upstream(f"http://127.0.0.1:{server.getsockname()[1]}", try_timeout_s=0.2)
        answer = nobody.post_batch(idempotency_key="k", body=BODY)
    nobody.close()
    upstream.close()
    assert repr(upstream) == f"<Upstream {peer.url}>"
    assert KEY not in caplog.text + repr(answer) + repr(vars(upstream))


@pytest.mark.parametrize(
    "base_url",
    ["", "api.example", "ftp://api.example", "https://", "https://me:pw@api.example", "http://a.example:x"],
)
def test_an_address_that_is_none_is_refused(base_url: str) -> None:
    """At once, and without a user's password in the message."""
    with pytest.raises(ValueError, match=r".") as caught:
        _upstream(base_url)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize("base_url", ["http://-ü.example/", "http://a\u2028b.example/"])
def test_an_address_that_http_cannot_use_is_refused(base_url: str) -> None:
    """Otherwise each try would fail with an error of ours."""
    with pytest.raises(ValueError, match="base_url"):
        _upstream(base_url)


def test_a_key_that_no_header_can_carry_is_refused() -> None:
    """At once, and not repeated."""
    with pytest.raises(ValueError, match="key") as caught:
        _upstream("https://api.example", key="ss_test_012\n3")
    assert "012" not in str(caught.value)
