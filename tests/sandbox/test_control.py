"""The sandbox's own calls."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from settle_mp.sandbox.faults import Fault
from tests.sandbox.posting import TLS, batch, error_of, get, post, row

if TYPE_CHECKING:
    from tests.upstreams import Upstream


def _told(upstream: Upstream, told: Any) -> httpx.Response:
    body = told if isinstance(told, bytes) else json.dumps(told).encode()
    return httpx.post(upstream.base_url + "/sandbox/faults", content=body, trust_env=False, verify=TLS)


def test_usage_is_exact_text(upstream: Upstream) -> None:
    """Totals come as decimal strings with the counts of rows and requests."""
    post(upstream, batch(row(quantity=0.1), row(quantity=0.2), row(event_type="B")))
    post(upstream)
    assert get(upstream, "/sandbox/usage").json()["data"] == {
        "usage": {
            "AI_QUERY": {"quantity": "1.3", "rows": 3, "requests": 2},
            "B": {"quantity": "1", "rows": 1, "requests": 1},
        },
        "rows": 4,
        "requests": 2,
    }


def test_rows_are_paged_and_filtered(upstream: Upstream) -> None:
    """Pages join without a gap or a repeat, filtered by type and user."""
    for number in range(5):
        post(upstream, batch(row("a", quantity=number + 1), row("b", "OTHER")))
    first = get(upstream, "/sandbox/rows?eventType=AI_QUERY&limit=2").json()["data"]
    second = get(upstream, f"/sandbox/rows?eventType=AI_QUERY&limit=2&after={first['next']}").json()["data"]
    third = get(upstream, f"/sandbox/rows?eventType=AI_QUERY&limit=2&after={second['next']}").json()["data"]
    listed = [each["quantity"] for page in (first, second, third) for each in page["rows"]]
    assert (listed, third["next"]) == (["1", "2", "3", "4", "5"], None)
    assert len(upstream.rows(user_id="b")) == 5
    assert len(upstream.rows("AI_QUERY", "b")) == 0
    assert len(upstream.rows()) == 10


def test_metadata_keep_their_digits(upstream: Upstream) -> None:
    """Numbers in metadata are read back with the digits they were sent with."""
    body = b'{"events":[{"userId":"u","eventType":"A","metadata":{"t":0.10,"n":12345678901234567890.125}}]}'
    post(upstream, body)
    assert b'"metadata": {"t":0.10,"n":12345678901234567890.125}' in get(upstream, "/sandbox/rows").content
    assert upstream.rows()[0].metadata == {"t": Decimal("0.10"), "n": Decimal("12345678901234567890.125")}


@pytest.mark.parametrize("query", ["after=x", "after=-1", "limit=5001", "after=" + "9" * 30, "after=%C2%B2"])
def test_a_bad_page_is_400(upstream: Upstream, query: str) -> None:
    """What is no whole number within its bounds is refused."""
    answer = get(upstream, f"/sandbox/rows?{query}")
    assert answer.status_code == 400
    error_of(answer)


def test_requests_are_counted_as_they_end(upstream: Upstream) -> None:
    """Every request under /v1 is counted, by status and path; the sandbox's own are not."""
    post(upstream, key="k")
    post(upstream, key="k")
    post(upstream, b"{")
    get(upstream, "/v1/nothing")
    get(upstream, "/sandbox/usage")
    assert upstream.requests() == {
        "received": 4,
        "ended": 4,
        "held": 0,
        "replayed": 1,
        "byStatus": {"200": 2, "400": 1, "404": 1},
        "byPath": {"/v1/events/batch": 3, "/v1/nothing": 1},
    }


def test_paths_of_a_scan_do_not_pile_up(upstream: Upstream) -> None:
    """Beyond a bound, different paths count as one."""
    for number in range(105):
        get(upstream, f"/v1/scan/{number}")
    by_path = upstream.requests()["byPath"]
    assert len(by_path) == 101
    assert by_path["other"] == 5


def test_the_log_tells_same_bytes_from_others(upstream: Upstream) -> None:
    """Each request is listed with its key and the digest of its exact bytes, applied or not."""
    upstream.fault(Fault.answering(503, when="before"), Fault.reset())
    post(upstream, key="k")
    with pytest.raises(httpx.ReadError):
        post(upstream, key="k")
    post(upstream, key="k")
    log = upstream.log()
    assert [each["number"] for each in log] == [1, 2, 3]
    assert [each["status"] for each in log] == [503, None, 200]
    assert [each["fault"] for each in log] == ["answer", "reset", None]
    assert [each["isApplied"] for each in log] == [False, True, False]
    assert [each["isReplayed"] for each in log] == [False, False, True]
    assert [each["isReset"] for each in log] == [False, True, False]
    assert {each["idempotencyKey"] for each in log} == {"k"}
    assert {each["bodySha256"] for each in log} == {hashlib.sha256(batch()).hexdigest()}
    assert upstream.log(after=2) == log[2:]


def test_faults_are_told_over_http(upstream: Upstream) -> None:
    """One fault or a list; they are listed until they are used up or cleared."""
    assert _told(upstream, {"action": "answer", "status": 500}).json() == {"data": {"numbers": [1]}}
    told = [{"action": "reset", "times": 2}, {"action": "hold", "times": None}]
    assert _told(upstream, told).json() == {"data": {"numbers": [2, 3]}}
    post(upstream)
    assert [(each["number"], each["left"]) for each in upstream.faults()] == [(2, 2), (3, None)]
    upstream.clear_faults()
    assert upstream.faults() == []


@pytest.mark.parametrize(
    "told", [b"{", [[]], {"action": "explode"}, {"times": "x"}, {"nonsense": 1}, b"\xff"]
)
def test_a_bad_fault_is_400(upstream: Upstream, told: Any) -> None:
    """A fault that can't be meant is refused, and of a list with one bad fault none stands."""
    for body in (told, [{"action": "reset"}, told] if not isinstance(told, bytes) else told):
        answer = _told(upstream, body)
        assert answer.status_code == 400
        error_of(answer)
    assert upstream.faults() == []
