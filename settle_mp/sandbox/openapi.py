"""The OpenAPI document's parts: what each call takes and answers, for `GET /openapi.json`.

FastAPI writes the document; the routes read raw bodies (a body's exact bytes belong to its idempotency key),
so what it would find out from types is said here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEXT: Final = {"type": "string"}
_REASON_OF_STATUS: Final[Mapping[int | str, str]] = {
    400: "The request is not valid; `data.fields` says where.",
    401: "The API key is missing or not valid.",
    402: "The wallet holds less than was asked for.",
    409: "A request with this Idempotency-Key is still in progress.",
    413: "The body or the batch is too large.",
    422: "This Idempotency-Key was used for another request.",
    "4XX": "The request is not valid.",
}
#: What any writing call may answer besides success.
WRITE_STATUSES: Final = (400, 401, 409, 413, 422)
#: What any reading call may answer besides success.
READ_STATUSES: Final = (400, 401)

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A quoted string (draft-ietf-httpapi-idempotency-key-header-07).",
    "schema": {"type": "string", "pattern": r'^"[0-9A-Za-z_.:-]{1,255}"$'},
}


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Let null stand there as well."""
    return {"anyOf": [dict(schema), {"type": "null"}]}


def whole(low: int, high: int) -> dict[str, Any]:
    """A whole number."""
    return {"type": "integer", "minimum": low, "maximum": high}


def text(chars_max: int | None = None) -> dict[str, Any]:
    """A text that is not empty."""
    return {"type": "string", "minLength": 1, **({} if chars_max is None else {"maxLength": chars_max})}


def record(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def listed(of: Mapping[str, Any]) -> dict[str, Any]:
    """An array."""
    return {"type": "array", "items": dict(of)}


def parameter(name: str, where: str, schema: Mapping[str, Any], description: str = "") -> dict[str, Any]:
    """A parameter in the path or the query; one in the path is always required."""
    is_required = where == "path"
    said = {"description": description} if description else {}
    return {"name": name, "in": where, "required": is_required, "schema": dict(schema), **said}


def operation(
    summary: str,
    data: Mapping[str, Any],
    *,
    statuses: Sequence[int | str] = READ_STATUSES,
    parameters: Sequence[Mapping[str, Any]] = (),
    body: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the arguments of a route's decorator.

    Args:
        summary: What the call does.
        data: What stands under `data` in the answer of a success.
        statuses: What else it may answer.
        parameters: What its path, query and headers hold.
        body: What its body holds, if it has one.
    """
    extra: dict[str, Any] = {"parameters": [dict(each) for each in parameters]}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": _json(body)}
    refusals = {
        status: {"description": _REASON_OF_STATUS[status], "content": _REFUSAL} for status in statuses
    }
    success = {"description": "Done.", "content": _json(record({"data": data}))}
    return {"summary": summary, "openapi_extra": extra, "responses": {200: success, **refusals}}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": dict(schema)}}


_REFUSAL: Final = _json(record({"message": _TEXT, "data": {"type": "object"}}))
