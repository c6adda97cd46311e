"""Where the sandbox listens, and how it starts and ends."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from settle_mp.sandbox.pipeline import Options
from settle_mp.sandbox.server import ListenError, SandboxServer, base_url, listen
from tests.sandbox.posting import post
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.upstreams import Upstream


def test_port_0_is_a_free_port() -> None:
    """Two sandboxes that ask for any port get different ones."""
    with (
        listen("127.0.0.1", 0, has_pinned_key=False) as one,
        listen("127.0.0.1", 0, has_pinned_key=False) as two,
    ):
        assert base_url(one) != base_url(two)


def test_a_taken_port_is_a_clear_error() -> None:
    """A port in use is refused by name, without a traceback's words."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"127.0.0.1 port {port}: Address already in use"):
            listen("127.0.0.1", port, has_pinned_key=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - That is what must be refused.
def test_other_machines_need_a_pinned_key(host: str) -> None:
    """Listening beyond this machine is refused unless a key is pinned."""
    with pytest.raises(ListenError, match="--api-key"):
        listen(host, 0, has_pinned_key=False)


def test_with_a_pinned_key_any_address_will_do() -> None:
    """With a key pinned it listens everywhere, and names an address that works from here."""
    with listen("0.0.0.0", 0, has_pinned_key=True) as listener:  # noqa: S104 - For a moment, with nothing behind.
        assert base_url(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_an_unknown_host_is_a_clear_error() -> None:
    """A name that does not resolve is refused by name."""
    with pytest.raises(ListenError, match=r"no\.such\.host\.invalid"):
        listen("no.such.host.invalid", 0, has_pinned_key=False)


def test_localhost_is_this_machine() -> None:
    """A name is judged by the address it stands for."""
    listen("localhost", 0, has_pinned_key=False).close()


def test_ending_frees_port_database_and_threads(tmp_path: Path) -> None:
    """After the end nothing is left: the port can be bound, and the write-ahead log is folded in."""
    listener = listen("127.0.0.1", 0, has_pinned_key=False)
    port = listener.getsockname()[1]
    is_started = threading.Event()
    server = SandboxServer(str(tmp_path / "s.db"), Options(), is_started.set)
    thread = threading.Thread(target=server.run_on, args=(listener,))
    thread.start()
    assert is_started.wait(20)
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    assert [each.name for each in tmp_path.iterdir()] == ["s.db"]
    listen("127.0.0.1", port, has_pinned_key=False).close()


def test_a_body_that_stops_is_no_error(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """A client that goes in the middle of its body changes nothing and leaves no traceback."""
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        head = b"POST /v1/events/batch HTTP/1.1\r\nHost: x\r\nX-API-Key: ss_test_a\r\n"
        client.sendall(head + b'Content-Length: 1000\r\n\r\n{"events"')
        upstream.wait_requests(1)
    wait_until(lambda: upstream.requests()["ended"] == 1, "the cut request has ended")
    assert upstream.rows() == []
    assert post(upstream).status_code == 200
    assert caplog.records == []


def test_garbage_is_400(upstream: Upstream) -> None:
    """Bytes that are no HTTP are answered and the connection closed; others don't notice."""
    with socket.create_connection(("127.0.0.1", upstream.port)) as client:
        client.settimeout(20)
        client.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    assert post(upstream).status_code == 200
