"""The OpenAPI document: it says what is served, and what is served is as it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.sandbox.posting import get

if TYPE_CHECKING:
    from tests.upstreams import Upstream

CALLS = {
    ("/v1/events", "post"),
    ("/v1/events/batch", "post"),
    ("/v1/events/summary", "get"),
    ("/v1/wallet/{userId}", "get"),
    ("/v1/wallet/{userId}/balance", "get"),
    ("/v1/wallet/{userId}/history", "get"),
    ("/v1/wallet/{userId}/debit", "post"),
    ("/v1/wallet/{userId}/credit", "post"),
    ("/v1/wallet/{userId}/ad-reward", "post"),
}


def _document(upstream: Upstream) -> dict[str, Any]:
    answer = get(upstream, "/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def test_every_call_of_the_upstream_is_described(upstream: Upstream) -> None:
    """Each with its parameters, its body, the key's header and what it may answer."""
    paths = _document(upstream)["paths"]
    described = {(path, method) for path, each in paths.items() for method in each if path.startswith("/v1")}
    assert described == CALLS
    for path, method in CALLS:
        operation = paths[path][method]
        names = {each["name"] for each in operation["parameters"]}
        assert ("userId" in names) == (path not in {"/v1/events", "/v1/events/batch"})
        assert ("Idempotency-Key" in names) == ("requestBody" in operation) == (method == "post")
        assert {"200", "400", "401"} <= set(operation["responses"])
        assert operation["security"] == [{"APIKeyHeader": []}]
    assert "402" in paths["/v1/wallet/{userId}/debit"]["post"]["responses"]
    assert "402" not in paths["/v1/wallet/{userId}/credit"]["post"]["responses"]


def test_the_key_is_the_upstreams_header(upstream: Upstream) -> None:
    """Clients made from the document send it as the upstream wants it."""
    schemes = _document(upstream)["components"]["securitySchemes"]
    assert schemes == {"APIKeyHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}


def test_answers_are_as_described(upstream: Upstream) -> None:
    """A transaction and a page of history have the fields that the document requires, and no others."""
    upstream.seed({"u1": 5})
    paths = _document(upstream)["paths"]
    for path in ("/v1/wallet/{userId}", "/v1/wallet/{userId}/history"):
        schema = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        data = schema["properties"]["data"]
        _check(data, get(upstream, path.replace("{userId}", "u1")).json()["data"])


def _check(schema: dict[str, Any], value: Any) -> None:
    if schema.get("type") == "object":
        assert set(value) == set(schema["required"])
        for name, each in value.items():
            _check(schema["properties"][name], each)
    elif schema.get("type") == "array":
        assert value
        for each in value:
            _check(schema["items"], each)
    elif schema.get("type") == "integer":
        assert isinstance(value, int)
