"""Faults as values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from settle_mp.sandbox.faults import Fault


@pytest.mark.parametrize(
    "fault",
    [
        Fault.answering(503, when="before", times=3, headers={"Retry-After": "2"}, body="busy"),
        Fault.html(),
        Fault.redirect("https://elsewhere.example/"),
        Fault.delay(0.5, when="before"),
        Fault.reset(path="/v1/events/batch"),
        Fault.hold(),
        Fault.drip(0.1),
        Fault.refuse("u1"),
    ],
)
def test_a_fault_survives_json(fault: Fault) -> None:
    """What is sent to POST /sandbox/faults is what arrives."""
    assert Fault.from_json(json.loads(json.dumps(fault.to_json()))) == fault


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"action": "explode"}, "action"),
        ({"when": "during"}, "when"),
        ({"times": 0}, "times"),
        ({"times": 1.5}, "times"),
        ({"times": True}, "times"),
        ({"delay_s": -1}, "delay_s"),
        ({"delay_s": "1"}, "delay_s"),
        ({"action": "answer"}, "status"),
        ({"action": "answer", "status": 99}, "status"),
        ({"action": "answer", "status": 204, "body": "x"}, "body"),
        ({"action": "drip", "when": "before"}, "status"),
        ({"action": "refuse"}, "user_id"),
        ({"action": "reset", "is_stored": True}, "is_stored"),
        ({"is_stored": 1}, "is_stored"),
        ({"path": 7}, "path"),
        ({"headers": {"a": 1}}, "headers"),
        ({"headers": {"a": "b\r\nc: d"}}, "headers"),
        ({"headers": {"Content-Length": "1"}}, "Content-Length"),
        ({"dely_s": 1}, "dely_s"),
        ([], "object"),
    ],
)
def test_a_bad_fault_names_its_field(given: Any, named: str) -> None:
    """A fault that can't be meant is refused when it is made, by the name of its field."""
    with pytest.raises((TypeError, ValueError), match=named):
        Fault.from_json(given)


def test_what_a_fault_matches() -> None:
    """Each condition narrows a fault down; without any it meets every request."""
    users, types = {"u1", "u2"}, {"A"}
    assert Fault().matches("/v1/events", users, types)
    assert Fault(path="/v1/events", user_id="u2", event_type="A").matches("/v1/events", users, types)
    assert not Fault(path="/v1/events/batch").matches("/v1/events", users, types)
    assert not Fault(user_id="u3").matches("/v1/events", users, types)
    assert not Fault(event_type="B").matches("/v1/events", users, types)


def test_the_answer_of_a_fault() -> None:
    """Without a body it is in the upstream's shape; with one, it is that, under its own type."""
    plain = Fault.answering(503).answer()
    assert plain.status == 503
    assert set(json.loads(plain.body)) == {"message", "data"}
    assert plain.headers == {"content-type": "application/json"}
    assert Fault.html().answer().headers == {"content-type": "text/html"}
    assert Fault.answering(204).answer().body == b""
