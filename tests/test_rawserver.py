"""The raw servers misbehave as they say, or tests built on them would prove nothing."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.rawserver import (
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
    resets_at_once,
    resets_mid_body,
    silent,
)

if TYPE_CHECKING:
    from tests.rawserver import Behaviour

TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _post(url: str, timeout: float = 10.0) -> httpx.Response:
    return httpx.post(url, content=b'{"a":1}', timeout=timeout, trust_env=False, verify=TLS)


@pytest.mark.parametrize(
    ("behave", "error"),
    [
        (closes, httpx.RemoteProtocolError),
        (resets, httpx.ReadError),
        (resets_mid_body, httpx.ReadError),
        (closes_mid_body, httpx.RemoteProtocolError),
        (garbage, httpx.RemoteProtocolError),
    ],
)
def test_each_behaviour_is_the_error_it_stands_for(behave: Behaviour, error: type[Exception]) -> None:
    """A real client meets the misbehaviour after it has sent its request."""
    with raw_server(behave) as raw:
        with pytest.raises(error):
            _post(raw.base_url)
        assert raw.connections[0].received.endswith(b'{"a":1}')


def test_a_reset_at_once_is_a_transport_error() -> None:
    """Without reading, a client may see it while it writes or reads, or as an end without an answer."""
    with raw_server(resets_at_once) as raw, pytest.raises(httpx.TransportError) as caught:
        _post(raw.base_url)
    assert not isinstance(caught.value, httpx.TimeoutException)


def test_silence_lasts() -> None:
    """A client that waits for an answer times out, and the server counts it."""
    with raw_server(silent) as raw:
        with pytest.raises(httpx.ReadTimeout):
            _post(raw.base_url, timeout=2.0)
        raw.wait_connections(1)
        assert raw.connections_count == 1


def test_bytes_are_sent_as_given() -> None:
    """Scripted answers arrive whole, at once or byte by byte."""
    said = b"HTTP/1.1 207 Odd\r\nContent-Length: 2\r\n\r\nok"
    for behave in (answers(said), drips(said, 0.001)):
        with raw_server(behave) as raw:
            answer = _post(raw.base_url)
            assert (answer.status_code, answer.content) == (207, b"ok")


def test_a_drip_outlasts_a_read_timeout() -> None:
    """A client whose timeout is for each read alone waits as long as bytes come."""
    with raw_server(drips(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 0.1)) as raw:
        assert _post(raw.base_url, timeout=3.0).status_code == 200


def test_tls_meets_a_server_that_knows_none() -> None:
    """An https URL on a raw server is a TLS failure while connecting."""
    with raw_server(knows_no_tls) as raw, pytest.raises(httpx.ConnectError, match=r"(?i)ssl"):
        _post(f"https://127.0.0.1:{raw.port}")


def test_a_refusing_port_refuses() -> None:
    """Nothing listens there, and nobody else can take it."""
    with refusing_port() as port, pytest.raises(httpx.ConnectError):
        _post(f"http://127.0.0.1:{port}")


def test_a_deaf_port_times_out() -> None:
    """Connecting neither succeeds nor fails."""
    with deaf_port() as port, pytest.raises(httpx.ConnectTimeout):
        _post(f"http://127.0.0.1:{port}", timeout=0.3)
