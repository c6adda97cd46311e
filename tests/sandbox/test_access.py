"""Whose requests are taken."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import httpx
import pytest

from settle_mp.sandbox.access import is_loopback
from settle_mp.sandbox.app import make_app
from settle_mp.sandbox.pipeline import Options, Sandbox
from settle_mp.sandbox.store import Store
from tests.sandbox.posting import error_of, get, post
from tests.upstreams import sandbox

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tests.upstreams import Upstream


@pytest.mark.parametrize(
    ("key", "said"),
    [("", "missing"), ("ss_live_abc", "live"), ("ss_test_", "not valid"), ("other", "not valid")],
)
def test_without_a_test_key_nothing_is_applied(upstream: Upstream, key: str, said: str) -> None:
    """Only test keys are taken by default; a live key gets an explanation. All of it is 401."""
    answer = post(upstream, headers={"X-API-Key": key})
    assert answer.status_code == 401
    assert said in error_of(answer)["message"]
    assert get(upstream, "/v1/events/summary?userId=u", {"X-API-Key": key}).status_code == 401
    assert upstream.rows() == []


def test_any_test_key_is_taken(upstream: Upstream) -> None:
    """Whatever follows ss_test_ will do."""
    assert post(upstream, headers={"X-API-Key": "ss_test_anything"}).status_code == 200


def test_a_pinned_key_is_the_only_one() -> None:
    """With a key pinned, no other is taken, test key or not."""
    with sandbox(api_key="ss_live_pinned") as upstream:
        assert post(upstream).status_code == 200
        assert post(upstream, headers={"X-API-Key": "ss_test_a"}).status_code == 401
        odd = httpx.get(upstream.base_url + "/v1/events/summary?userId=u", headers={b"X-API-Key": b"caf\xe9"})
        assert odd.status_code == 401


def test_a_key_is_in_no_repr() -> None:
    """Options can be printed."""
    assert "ss_live_secret" not in repr(Options(api_key="ss_live_secret"))


async def _status_from(app: FastAPI, peer: str, headers: dict[str, str]) -> int:
    transport = httpx.ASGITransport(app=app, client=(peer, 40_000))
    async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:
        return (await client.get("/sandbox/usage", headers=headers)).status_code


@pytest.mark.parametrize(
    ("peer", "headers", "status"),
    [
        ("127.0.0.1", {}, 200),
        ("::1", {}, 200),
        ("192.0.2.7", {}, 401),
        ("192.0.2.7", {"X-Forwarded-For": "127.0.0.1"}, 401),
        ("192.0.2.7", {"X-API-Key": "ss_test_pinned"}, 200),
        ("192.0.2.7", {"X-API-Key": "ss_test_other"}, 401),
        ("192.0.2.7", {"Authorization": "Basic " + base64.b64encode(b"me:ss_test_pinned").decode()}, 200),
        ("192.0.2.7", {"Authorization": "Basic ???"}, 401),
    ],
)
def test_from_elsewhere_the_own_calls_need_the_key(peer: str, headers: dict[str, str], status: int) -> None:
    """From this machine they need none; from another the pinned key, in its header or as a password."""
    # A peer of another machine can't be had in a test, so this one speaks ASGI.
    store = Store(":memory:")
    app = make_app(Sandbox(store, Options(api_key="ss_test_pinned")))
    assert asyncio.run(_status_from(app, peer, headers)) == status
    store.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),  # noqa: S104 - Nothing is bound.
        ("::", False),
        ("192.168.1.1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, *, expected: bool) -> None:
    """Only addresses that no other machine can have are this machine's."""
    assert is_loopback(host) is expected
