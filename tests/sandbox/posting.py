"""Posting to a sandbox as a client does: over real HTTP, byte for byte."""

from __future__ import annotations

import json
import ssl
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.upstreams import Upstream

TIMEOUT_S = 20.0
# Made once, since httpx reads all certificates of the machine for each client that brings none.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def row(user_id: str = "u1", event_type: str = "AI_QUERY", **fields: Any) -> dict[str, Any]:
    """One event of a batch."""
    return {"userId": user_id, "eventType": event_type, **fields}


def batch(*rows: dict[str, Any]) -> bytes:
    """The body of a batch."""
    return json.dumps({"events": list(rows) or [row()]}).encode()


def post(
    upstream: Upstream,
    body: bytes | None = None,
    *,
    key: str | None = None,
    path: str = "/v1/events/batch",
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT_S,
) -> httpx.Response:
    """Post one body over a connection of its own; `key` is quoted here."""
    sent = {"X-API-Key": upstream.api_key, "Content-Type": "application/json"}
    if key is not None:
        sent["Idempotency-Key"] = f'"{key}"'
    return httpx.post(
        upstream.base_url + path,
        content=batch() if body is None else body,
        headers={**sent, **(headers or {})},
        timeout=timeout,
        trust_env=False,
        verify=TLS,
    )


def get(upstream: Upstream, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Get one path with the API key."""
    sent = {"X-API-Key": upstream.api_key, **(headers or {})}
    return httpx.get(upstream.base_url + path, headers=sent, timeout=TIMEOUT_S, trust_env=False, verify=TLS)


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The parsed body of a refusal, checked for the upstream's shape."""
    parsed: dict[str, Any] = json.loads(answer.content, parse_float=Decimal)
    assert answer.headers["content-type"] == "application/json"
    assert set(parsed) == {"message", "data"}
    assert isinstance(parsed["message"], str)
    assert parsed["message"]
    return parsed
