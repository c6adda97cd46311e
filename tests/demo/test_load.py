"""The clients: each request once, and its ending told as it was."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from settle_mp.demo import load as load_module
from settle_mp.demo.load import Load
from settle_mp.demo.traffic import SABOTAGE_HEADER, WORKER_HEADER, answer_to, request
from settle_mp.demo.verdict import Ending
from tests.rawserver import (
    closes,
    garbage,
    raw_server,
    refusing_port,
    resets,
    resets_at_once,
    resets_mid_body,
)
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from tests.rawserver import Behaviour, RawConnection

WORKER = 4_711


def asked_id(connection: RawConnection) -> str:
    """Read a request and give its id."""
    body = connection.read_request().partition(b"\r\n\r\n")[2]
    return str(json.loads(body)["request_id"])


def answer(connection: RawConnection, body: bytes, status: str = "200 OK") -> None:
    """Answer as the app does, and close."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{WORKER_HEADER}: {WORKER}\r\n"
    connection.send(head.encode() + b"Connection: close\r\n\r\n" + body)
    connection.close()


def well(connection: RawConnection) -> None:
    """Answer every request as the app does."""
    answer(connection, answer_to(asked_id(connection)))


def run(port: int, requests_count: int) -> Load:
    """Send all requests and wait for their end."""
    load = Load(port, requests_count)
    load.start()
    wait_until(lambda: load.is_done, "all requests have ended")
    return load


def test_each_request_is_sent_once() -> None:
    """By all clients together, and each is answered."""
    with raw_server(well) as raw:
        load = run(raw.port, 200)
        sent = Counter(asked.split(b"request_id")[1][4:11] for asked in (c.received for c in raw.connections))
    assert sent == {request(number).id.encode(): 1 for number in range(200)}
    assert list(load.sent()) == [(request(number), Ending.ANSWERED) for number in range(200)]
    assert (load.answered_count, load.cut_off_count, load.failure) == (200, 0, None)
    assert (load.workers, load.busy_workers) == ({WORKER}, [WORKER])


@pytest.mark.parametrize("ends", [closes, resets, resets_at_once, resets_mid_body])
def test_one_without_its_whole_answer_is_cut_off(ends: Behaviour) -> None:
    """However the connection breaks; the next request gets a new one, and this one is not sent again."""

    def behave(connection: RawConnection) -> None:
        (ends if len(raw.connections) % 2 else well)(connection)

    with raw_server(behave) as raw:
        load = run(raw.port, 60)
        connections_count = len(raw.connections)
    assert load.failure is None
    assert load.answered_count + load.cut_off_count == load.ended_count == connections_count == 60
    assert Counter(ending for _, ending in load.sent()) == {
        Ending.ANSWERED: load.answered_count,
        Ending.CUT_OFF: load.cut_off_count,
    }
    assert load.cut_off_count > 0
    assert load.answered_count > 0


@pytest.mark.parametrize(
    ("status", "body"),
    [("500 Internal Server Error", b"broken"), ("200 OK", answer_to("r999999")), ("200 OK", b"{}")],
)
def test_an_answer_that_no_kill_explains_ends_the_load(status: str, body: bytes) -> None:
    """A wrong status, another request's answer, or none of the app's: it is told, not counted."""

    def behave(connection: RawConnection) -> None:
        connection.read_request()
        answer(connection, body, status)

    with raw_server(behave) as raw:
        load = run(raw.port, 1_000)
    assert load.failure is not None
    assert status[:3] in load.failure
    assert load.answered_count == 0


def test_a_server_that_is_gone_ends_the_load() -> None:
    """A refused connection is nobody's kill."""
    with refusing_port() as port:
        load = run(port, 1_000)
    assert load.failure == "gunicorn no longer listens"
    assert list(load.sent()) == []


@pytest.mark.parametrize("ends", [closes, garbage])
def test_too_many_cut_off_end_the_load(ends: Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kills explain a few dozen."""
    monkeypatch.setattr(load_module, "CUT_OFF_MAX", 20)
    with raw_server(ends) as raw:
        load = run(raw.port, 10_000)
    assert load.failure == "more than 20 requests were cut off"
    assert load.ended_count < 100


def test_a_stopped_load_ends() -> None:
    """What is under way ends, and nothing new is sent."""
    with raw_server(well) as raw:
        load = Load(raw.port, 200_000)
        load.start()
        wait_until(lambda: load.answered_count > 10, "some are answered")
        load.stop()
        wait_until(lambda: load.is_done, "it ends")
    assert load.failure is None
    assert len(list(load.sent())) == load.ended_count


def test_a_worker_can_be_asked_for() -> None:
    """Whatever it answers to a path that it does not have; nobody is 0."""

    def not_found(connection: RawConnection) -> None:
        connection.read_request()
        answer(connection, b"", "404 Not Found")

    with raw_server(not_found) as raw:
        assert Load(raw.port, 1).ask_worker() == WORKER
    with refusing_port() as port:
        assert Load(port, 1).ask_worker() == 0


def test_the_untracked_request_says_so() -> None:
    """The sabotage is in a header, and in no other request."""
    with raw_server(well) as raw:
        load = run(raw.port, 1)
        assert load.send_untracked(5) == (request(5), Ending.ANSWERED)
        plain, sabotaged = (connection.received for connection in raw.connections)
    assert SABOTAGE_HEADER.encode() not in plain
    assert SABOTAGE_HEADER.encode() in sabotaged
