"""HTTP exchanges: every way to fail is an answer, and "not sent" is only said of what was not sent."""

from __future__ import annotations

import gzip
import logging
import socket
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING

import httpcore
import httpx
import pytest

from settle_mp.core.answer import Failure, NoReply
from settle_mp.exchange import ANSWER_BYTES_MAX, KEEPALIVE_S, Exchanges, Received, _Lane, _Watch
from tests.peer import LOCALHOST_PEM, PATIENCE_S, Call, Peer, answers

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT_S = 0.3
BODY = b'{"events": []}'


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the proxies and certificates of whoever runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def exchanges() -> Iterator[Exchanges]:
    """Make exchanges that are patient."""
    made = Exchanges(connect_timeout_s=PATIENCE_S, try_timeout_s=PATIENCE_S)
    yield made
    made.close()


@pytest.fixture
def hasty() -> Iterator[Exchanges]:
    """Make exchanges that give up soon."""
    made = Exchanges(connect_timeout_s=SHORT_S, try_timeout_s=SHORT_S)
    yield made
    made.close()


def _post(exchanges: Exchanges, url: str, body: bytes = BODY) -> Received | NoReply:
    return exchanges.exchange("POST", url, headers={"X-Test": "1"}, body=body)


def _fail(exchanges: Exchanges, url: str, body: bytes = BODY) -> NoReply:
    answer = _post(exchanges, url, body)
    assert isinstance(answer, NoReply)
    return answer


def _receive(exchanges: Exchanges, url: str) -> Received:
    answer = _post(exchanges, url)
    assert isinstance(answer, Received), answer
    return answer


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


# Not sent, and so certain.


def test_a_closed_port_refuses(exchanges: Exchanges) -> None:
    """Nobody listens: certainly not sent, in the system's words."""
    answer = _fail(exchanges, f"http://127.0.0.1:{_free_port()}/")
    assert answer.failure is Failure.REFUSED
    assert "refused" in answer.detail


@pytest.mark.parametrize("host", ["nowhere.invalid", "x" * 64 + ".invalid"])
def test_a_name_that_nobody_has_is_not_found(exchanges: Exchanges, host: str) -> None:
    """Also one that Python refuses to look up, with an error that is not an OSError."""
    assert _fail(exchanges, f"http://{host}/").failure is Failure.NAME_NOT_FOUND


def test_tls_to_a_plain_port_fails_as_tls(exchanges: Exchanges) -> None:
    """A base_url with https for a server without it is a TLS failure, before anything was sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.recv(65536)

        thread = threading.Thread(target=greet)
        thread.start()
        answer = _fail(exchanges, f"https://127.0.0.1:{server.getsockname()[1]}/")
        thread.join(PATIENCE_S)
    assert answer.failure is Failure.TLS
    assert "SSL" in answer.detail


def test_an_unknown_certificate_fails_as_tls(exchanges: Exchanges) -> None:
    """The key is not shown to whoever cannot prove to be the upstream."""
    with Peer(answers(200), is_tls=True) as peer:
        answer = _fail(exchanges, peer.url)
    assert answer.failure is Failure.TLS
    assert "certificate" in answer.detail
    assert peer.calls.empty()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer a full queue with a reset")
def test_a_full_queue_is_a_connect_timeout(hasty: Exchanges) -> None:
    """A server that accepts nobody: no connection in time, so nothing was sent."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.settimeout(0)
            waiting.connect_ex(server.getsockname())
        answer = _fail(hasty, f"http://127.0.0.1:{server.getsockname()[1]}/")
    assert answer.failure is Failure.CONNECT_TIMEOUT


def test_a_handshake_without_end_is_a_connect_timeout(hasty: Exchanges) -> None:
    """A server that accepts and never speaks TLS has seen nothing of the request."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        answer = _fail(hasty, f"https://127.0.0.1:{server.getsockname()[1]}/")
    assert answer.failure is Failure.CONNECT_TIMEOUT


def test_a_reset_in_the_handshake_is_not_sent(exchanges: Exchanges) -> None:
    """The same error that is in doubt after the first byte is certain before it."""
    with Peer(answers(200)) as peer:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def slam() -> None:
                connection, _ = server.accept()
                Call(connection, b"", b"", number=1).reset()

            thread = threading.Thread(target=slam)
            thread.start()
            answer = _fail(exchanges, f"https://127.0.0.1:{server.getsockname()[1]}/")
            thread.join(PATIENCE_S)
        assert answer.failure in {Failure.NOT_SENT_OTHER, Failure.TLS}
        assert peer.calls.empty()


def test_a_header_that_cannot_be_sent_is_not_sent_and_not_repeated(exchanges: Exchanges) -> None:
    """The library's error would repeat the value, which may be a secret."""
    with Peer(answers(200)) as peer:
        answer = exchanges.exchange("POST", peer.url, headers={"X-API-Key": "hidden\n"}, body=b"")
        assert isinstance(answer, NoReply)
        assert answer.failure is Failure.NOT_SENT_OTHER
        assert "hidden" not in answer.detail
        assert peer.calls.empty()


def test_no_thread_for_the_deadline_is_not_sent(
    exchanges: Exchanges, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system out of threads is like one out of descriptors: nothing left, try again."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Peer(answers(200)) as peer:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Timer, "start", refuse)
            answer = _fail(exchanges, peer.url)
        assert answer == NoReply(failure=Failure.NOT_SENT_OTHER, detail="can't start new thread")
        assert peer.calls.empty()


def test_a_proxy_that_refuses_the_tunnel_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CONNECT is not our request: its head going out does not begin it."""
    with Peer(answers(502)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        made = Exchanges(connect_timeout_s=PATIENCE_S, try_timeout_s=PATIENCE_S)
        answer = _fail(made, "https://nowhere.invalid/")
        made.close()
    assert answer.failure is Failure.NOT_SENT_OTHER
    assert "502" in answer.detail


def test_a_proxy_that_hangs_up_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the tunnel ends with an error that would be in doubt for the request itself."""
    with Peer(Call.reset) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        made = Exchanges(connect_timeout_s=PATIENCE_S, try_timeout_s=PATIENCE_S)
        answer = _fail(made, "https://nowhere.invalid/")
        made.close()
    assert answer.failure is Failure.NOT_SENT_OTHER


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxies are read as httpx reads them."""
    with Peer(answers(200)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        made = Exchanges(connect_timeout_s=PATIENCE_S, try_timeout_s=PATIENCE_S)
        assert _receive(made, "http://nowhere.invalid/v1").status == 200
        made.close()
        assert proxy.calls.get(timeout=PATIENCE_S).target == "http://nowhere.invalid/v1"


@pytest.mark.parametrize(
    ("name", "value"),
    [("HTTPS_PROXY", "socks5://me:hidden@127.0.0.1"), ("HTTPS_PROXY", "gopher://me:hidden@127.0.0.1")],
)
def test_an_environment_that_cannot_be_used_is_said_at_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """The collector ends with one clear line, without the proxy's password."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="proxy cannot be used") as caught:
        Exchanges(connect_timeout_s=1.0, try_timeout_s=1.0)
    assert "hidden" not in str(caught.value)


# Sent, and so in doubt.


def test_silence_after_the_request_is_a_timeout_in_doubt(hasty: Exchanges) -> None:
    """The server has all of it and may be working on it still."""
    with Peer(Call.wait_for_close) as peer:
        assert _fail(hasty, peer.url).failure is Failure.SENT_THEN_TIMEOUT
        assert peer.calls.get(timeout=PATIENCE_S).body == BODY


def test_a_reset_after_the_request_is_in_doubt(exchanges: Exchanges) -> None:
    """It may have been applied before the reset."""
    with Peer(Call.reset) as peer:
        assert _fail(exchanges, peer.url).failure is Failure.SENT_THEN_RESET


def test_a_close_after_the_request_is_in_doubt(exchanges: Exchanges) -> None:
    """A server that was restarted closes without a word."""
    with Peer(lambda call: call.connection.close()) as peer:
        assert _fail(exchanges, peer.url).failure is Failure.SENT_THEN_RESET


def test_a_reset_in_the_middle_of_the_body_is_in_doubt(exchanges: Exchanges) -> None:
    """Whether a server acts before it has read all is not ours to know."""
    with Peer(Call.reset, reads_body=False) as peer:
        answer = _fail(exchanges, peer.url, body=b"x" * 20_000_000)
    assert answer.failure is Failure.SENT_THEN_RESET


def test_a_server_that_stops_reading_is_a_timeout_in_doubt(hasty: Exchanges) -> None:
    """The deadline also ends a write."""
    stop = threading.Event()

    def ignore(_: Call) -> None:
        stop.wait(PATIENCE_S)

    with Peer(ignore, reads_body=False) as peer:
        answer = _fail(hasty, peer.url, body=b"x" * 20_000_000)
        stop.set()
    assert answer.failure is Failure.SENT_THEN_TIMEOUT


def test_an_answer_that_is_not_http_is_in_doubt(exchanges: Exchanges) -> None:
    """Whatever speaks there has got the request."""

    def garbage(call: Call) -> None:
        call.connection.sendall(b"220 mail.example ESMTP\r\n\r\n")
        call.wait_for_close()

    with Peer(garbage) as peer:
        assert _fail(exchanges, peer.url).failure is Failure.SENT_THEN_RESET


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_head_that_drips_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch, *, is_tls: bool) -> None:
    """Each byte comes in time and the answer never: only a deadline for the whole try ends this."""
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST_PEM))
    made = Exchanges(connect_timeout_s=PATIENCE_S, try_timeout_s=1.0)
    with Peer(lambda call: call.drip(b"HTTP/1.1 200 OK\r\nX: y"), is_tls=is_tls) as peer:
        answer = _fail(made, peer.url)
    made.close()
    assert answer.failure is Failure.SENT_THEN_TIMEOUT


@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("framing", ["Content-Length: 9999999", "Transfer-Encoding: chunked", "X: y"])
def test_a_body_that_drips_is_cut_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, framing: str, *, is_tls: bool
) -> None:
    """The status was heard; the body is not whole, also where the end of the connection would end it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(LOCALHOST_PEM))
    made = Exchanges(connect_timeout_s=PATIENCE_S, try_timeout_s=1.0)

    def drip(call: Call) -> None:
        call.connection.sendall(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode())
        call.drip(b"1" if "chunked" in framing else b"{")

    with Peer(drip, is_tls=is_tls) as peer:
        answer = _receive(made, peer.url)
    made.close()
    assert (answer.status, answer.is_whole) == (200, False)


def test_success_before_the_request_had_left_is_in_doubt(exchanges: Exchanges) -> None:
    """What answers 200 to a body that it has not read has not applied it, or not all."""

    def presume(call: Call) -> None:
        call.answer(200, b"{}", "Connection: close")
        call.connection.shutdown(socket.SHUT_RD)

    with Peer(presume, reads_body=False) as peer:
        answer = _fail(exchanges, peer.url, body=b"x" * 20_000_000)
    assert answer.failure in {Failure.SENT_THEN_OTHER, Failure.SENT_THEN_RESET}
    assert answer.failure.is_maybe_applied


# Answers.


def test_the_request_goes_out_exactly(exchanges: Exchanges) -> None:
    """The bytes of the body as given, one length, nothing compressed, no cookies."""
    with Peer(answers(200, b"{}", "Set-Cookie: a=b; Path=/")) as peer:
        for _ in range(2):
            assert _receive(exchanges, peer.url + "/a/b").status == 200
            call = peer.calls.get(timeout=PATIENCE_S)
            assert call.head.startswith(b"POST /a/b HTTP/1.1\r\n")
            assert call.body == BODY
            assert call.header("content-length") == str(len(BODY))
            assert call.header("x-test") == "1"
            assert call.header("user-agent") == "settle-mp"
            assert call.header("accept-encoding") == "identity"
            assert call.header("cookie") is None


def test_a_body_in_pieces_is_read_to_its_end(exchanges: Exchanges) -> None:
    """Segments and chunks are put together."""

    def speak(call: Call) -> None:
        for part in (
            b"HTTP/1.1 200 OK\r\nTransfer-En",
            b'coding: chunked\r\n\r\n5\r\n{"da',
            b't\r\n5\r\na":1}',
        ):
            call.connection.sendall(part)
            threading.Event().wait(0.02)
        call.connection.sendall(b"\r\n0\r\n\r\n")

    with Peer(speak) as peer:
        answer = _receive(exchanges, peer.url)
    assert (answer.body, answer.is_whole) == (b'{"data":1}', True)


def test_a_body_that_breaks_off_is_not_whole(exchanges: Exchanges) -> None:
    """The length says that there should be more."""

    def break_off(call: Call) -> None:
        call.connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 10\r\n\r\n{}")
        call.connection.close()

    with Peer(break_off) as peer:
        answer = _receive(exchanges, peer.url)
    assert (answer.status, answer.is_whole) == (400, False)


@pytest.mark.parametrize(
    ("size_bytes", "is_whole"), [(ANSWER_BYTES_MAX, True), (ANSWER_BYTES_MAX + 1, False)]
)
def test_an_endless_body_is_not_read(exchanges: Exchanges, size_bytes: int, *, is_whole: bool) -> None:
    """Memory is bounded, whatever the server sends."""
    with Peer(answers(200, b"1" * size_bytes)) as peer:
        answer = _receive(exchanges, peer.url)
    assert answer.is_whole is is_whole
    assert len(answer.body) == (size_bytes if is_whole else 0)


@pytest.mark.parametrize(
    ("encoding", "packed", "is_whole"),
    [
        ("gzip", gzip.compress(b'{"data": 1}', mtime=0), True),
        ("deflate", zlib.compress(b'{"data": 1}'), True),
        ("gzip", gzip.compress(b"1" * (ANSWER_BYTES_MAX + 1), mtime=0), False),
        ("gzip", gzip.compress(b'{"data": 1}', mtime=0)[:-4], False),
        ("gzip", b"not packed", False),
    ],
)
def test_a_body_packed_unasked_is_unpacked_within_bounds(
    exchanges: Exchanges, encoding: str, packed: bytes, *, is_whole: bool
) -> None:
    """A gateway that compresses everything must not turn every success into a doubt."""
    with Peer(answers(200, packed, f"Content-Encoding: {encoding}")) as peer:
        answer = _receive(exchanges, peer.url)
    assert answer.is_whole is is_whole
    assert not is_whole or answer.body == b'{"data": 1}'


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(exchanges: Exchanges, status: int) -> None:
    """Neither the key nor the events go where a header says."""
    with Peer(answers(200)) as other, Peer(answers(status, b"", f"Location: {other.url}/x")) as peer:
        answer = _receive(exchanges, peer.url)
        assert (answer.status, answer.headers["location"]) == (status, f"{other.url}/x")
        assert other.opened.empty()


# Connections.


def test_a_connection_is_used_again(exchanges: Exchanges) -> None:
    """Keep-alive: the second request does not pay for a handshake."""
    with Peer(answers(200)) as peer:
        for number in (1, 2, 3):
            _receive(exchanges, peer.url)
            assert peer.calls.get(timeout=PATIENCE_S).number == number


def test_a_connection_that_the_server_closed_is_not_used(exchanges: Exchanges) -> None:
    """An end that has arrived before the request is seen, so the common case makes no doubt."""

    def answer_and_close(call: Call) -> None:
        call.answer(200)
        call.connection.close()

    with Peer(answer_and_close) as peer:
        for _ in range(5):
            _receive(exchanges, peer.url)
            peer.ended.get(timeout=PATIENCE_S)


def test_a_connection_that_closes_as_the_request_arrives_is_in_doubt(exchanges: Exchanges) -> None:
    """It can't be told from a server that died while it worked, so it is not called certain."""

    def close_at_the_second(call: Call) -> None:
        if call.number == 1:
            call.answer(200)
        else:
            call.connection.close()

    with Peer(close_at_the_second) as peer:
        _receive(exchanges, peer.url)
        assert _fail(exchanges, peer.url).failure is Failure.SENT_THEN_RESET
        assert _receive(exchanges, peer.url).status == 200


def test_idle_connections_go_before_servers_close_them() -> None:
    """Uvicorn and Node close after 5 s; ours must be gone by then, with time to spare."""
    assert KEEPALIVE_S <= 4.0


def test_many_threads_send_at_once(exchanges: Exchanges) -> None:
    """No exchange waits for another: all four are at the server before the first is answered."""
    together = threading.Barrier(4)

    def answer_together(call: Call) -> None:
        together.wait(PATIENCE_S)
        call.answer(200)

    with Peer(answer_together) as peer, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: _receive(exchanges, peer.url).status, range(4)))
    assert results == [200] * 4


def test_closing_closes_what_is_idle_and_lets_the_rest_end(exchanges: Exchanges) -> None:
    """What is under way ends as usual, what still comes works, and neither leaves a connection behind."""
    go = threading.Event()

    def wait(call: Call) -> None:
        if call.target == "/slow":
            go.wait(PATIENCE_S)
        call.answer(200)

    with Peer(wait) as peer, ThreadPoolExecutor(1) as pool:
        slow = pool.submit(_receive, exchanges, peer.url + "/slow")
        peer.calls.get(timeout=PATIENCE_S)
        _receive(exchanges, peer.url + "/idle")
        exchanges.close()
        peer.ended.get(timeout=PATIENCE_S)
        assert not slow.done()
        go.set()
        assert slow.result(PATIENCE_S).status == 200
        peer.ended.get(timeout=PATIENCE_S)
        assert _receive(exchanges, peer.url + "/late").status == 200
        peer.ended.get(timeout=PATIENCE_S)


def test_a_deadline_that_comes_late_does_not_touch_the_next_try() -> None:
    """A timer that could not be cancelled any more finds its try over and leaves the connection alone."""
    left, right = socket.socketpair()
    with left, right, httpx.Client() as client:
        lane = _Lane(client)
        lane.stream = SimpleNamespace(get_extra_info=lambda _: left)
        with (late := _Watch(lane, PATIENCE_S)):
            pass
        late._cut()
        assert not late.is_overdue
        right.sendall(b"x")
        assert left.recv(1) == b"x"
        with (early := _Watch(lane, PATIENCE_S)):
            early._cut()
        assert early.is_overdue
        assert left.recv(1) == b""


def test_a_try_that_is_overdue_before_its_first_byte_does_not_begin() -> None:
    """The deadline met a look-up that took too long: what comes next must not be sent unwatched."""
    with httpx.Client() as client, (watch := _Watch(_Lane(client), PATIENCE_S)):
        watch._cut()
        with pytest.raises(httpx.ConnectTimeout):
            watch("http11.send_request_headers.started", {"request": httpcore.Request("POST", "http://a/")})
        assert not watch.is_begun


def test_nothing_secret_is_logged(exchanges: Exchanges, caplog: pytest.LogCaptureFixture) -> None:
    """Not even by the libraries below, with all their logging on."""
    caplog.set_level(logging.DEBUG)
    with Peer(answers(200)) as peer:
        exchanges.exchange("POST", peer.url, headers={"X-API-Key": "hidden"}, body=b"{}")
    assert "hidden" not in caplog.text
    assert "send_request_headers" in caplog.text
