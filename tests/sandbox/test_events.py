"""The upstream's calls, over real HTTP."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.sandbox.posting import TLS, batch, error_of, get, post, row
from tests.upstreams import sandbox

if TYPE_CHECKING:
    from tests.upstreams import Upstream


def test_a_batch_is_applied(upstream: Upstream) -> None:
    """Rows arrive as they were sent, with the key and the time, and are summed by event type."""
    body = batch(
        row("u1", quantity=3, metadata={"model": "gpt-4", "n": [1, {"deep": True}]}),
        row("ü/2", "PDF_EXPORT", quantity=0.5),
    )
    answer = post(upstream, body, key="k1")
    assert (answer.status_code, answer.json()) == (200, {"data": {"accepted": 2}})
    first, second = upstream.rows()
    assert (first.user_id, first.event_type, first.quantity) == ("u1", "AI_QUERY", Decimal(3))
    assert first.metadata == {"model": "gpt-4", "n": [1, {"deep": True}]}
    assert (second.user_id, second.quantity, second.metadata) == ("ü/2", Decimal("0.5"), None)
    assert {first.idempotency_key, second.idempotency_key} == {"k1"}
    assert first.request == second.request
    assert first.received_at.endswith("+00:00")
    assert upstream.quantity("AI_QUERY") == 3
    assert upstream.quantity() == Decimal("3.5")


def test_one_event_is_applied(upstream: Upstream) -> None:
    """POST /v1/events takes one event, with and without a key."""
    event = json.dumps(row(quantity=2)).encode()
    assert post(upstream, event, path="/v1/events").status_code == 200
    assert post(upstream, event, path="/v1/events", key="k").status_code == 200
    assert upstream.quantity("AI_QUERY") == 4


def test_sums_do_not_round(upstream: Upstream) -> None:
    """Ten times 0.1 is 1, and 10**30 plus one billionth keeps both ends."""
    for _ in range(10):
        post(upstream, batch(row(quantity=0.1)))
    post(upstream, b'{"events":[{"userId":"u","eventType":"BIG","quantity":1e30}]}')
    post(upstream, b'{"events":[{"userId":"u","eventType":"BIG","quantity":0.000000001}]}')
    assert upstream.usage()["AI_QUERY"].quantity == 1
    assert str(upstream.usage()["BIG"].quantity) == "1" + "0" * 30 + ".000000001"


def test_a_batch_with_a_bad_row_changes_nothing(upstream: Upstream) -> None:
    """The whole batch is refused with 400, and `fields` names the row."""
    answer = post(upstream, batch(row(), row(quantity=0), row()))
    assert answer.status_code == 400
    assert error_of(answer)["data"]["fields"] == {"events[1].quantity": ["must be greater than 0"]}
    assert upstream.rows() == []


def test_too_large_is_413(upstream: Upstream) -> None:
    """A body or a batch over its limit is 413, and the connection lives on for the answer."""
    too_long = post(upstream, b" " * (2**20 + 1))
    assert (too_long.status_code, error_of(too_long)["data"]) == (413, {"bytesMax": 2**20})
    assert post(upstream, batch(*[row()] * 1_001)).status_code == 413
    assert upstream.rows() == []
    with sandbox(rows_max=2, body_bytes_max=1_000) as small:
        assert post(small, batch(row(), row())).status_code == 200
        assert post(small, batch(row(), row(), row())).status_code == 413
        assert post(small, batch(row(metadata={"a": "x" * 1_000}))).status_code == 413


def test_the_summary_of_a_user(upstream: Upstream) -> None:
    """The summary holds one user's totals by event type, in the documented shape."""
    post(upstream, batch(row(quantity=0.1), row(quantity=0.2), row("u2"), row(event_type="PDF_EXPORT")))
    answer = get(upstream, "/v1/events/summary?userId=u1")
    assert json.loads(answer.content, parse_float=Decimal) == {
        "data": {
            "summary": [
                {"eventType": "AI_QUERY", "totalQuantity": Decimal("0.3"), "count": 2},
                {"eventType": "PDF_EXPORT", "totalQuantity": 1, "count": 1},
            ]
        }
    }
    assert get(upstream, "/v1/events/summary?userId=nobody").json() == {"data": {"summary": []}}
    assert get(upstream, "/v1/events/summary").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/events/batch", 405),
        ("POST", "/v1/events/batch/", 404),
        ("GET", "/sandbox/nothing", 404),
    ],
)
def test_unknown_ways_are_refused_in_shape(upstream: Upstream, method: str, path: str, status: int) -> None:
    """404 and 405 are in the upstream's shape too, and a slash too many is no redirect."""
    answer = get(upstream, path) if method == "GET" else post(upstream, path=path)
    assert answer.status_code == status
    error_of(answer)


def test_a_refused_method_is_told_the_others(upstream: Upstream) -> None:
    """All that the path has, whichever of its routes comes first (RFC 9110, section 10.2.1)."""
    for path, methods in (("/sandbox/faults", "DELETE, GET, POST"), ("/v1/events", "POST")):
        answer = httpx.put(upstream.base_url + path, trust_env=False, verify=TLS)
        assert (answer.status_code, answer.headers["allow"]) == (405, methods)


def test_usage_outlives_a_restart(upstream: Upstream) -> None:
    """Stopped and started again on its file, it goes on where it was, keys included."""
    post(upstream, batch(row(quantity=5)), key="k")
    upstream.stop()
    upstream.start()
    again = post(upstream, batch(row(quantity=5)), key="k")
    assert again.headers["idempotency-replayed"] == "true"
    assert upstream.quantity("AI_QUERY") == 5
