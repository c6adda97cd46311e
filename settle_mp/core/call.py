"""Calls: one request of the vendor's API whose answer somebody waits for, and what was heard in reply.

Rule 1: what goes out is complete and frozen here: each try of a call sends the same bytes, the same key.
Rule 2: what an answer holds is read by the call itself, and whatever it can't read is an UnreadableError.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote

from settle_mp.core.answer import BodyKind, Reply, read_reply
from settle_mp.core.event import checked_user_id
from settle_mp.core.fold import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

#: Characters of an idempotency key: what servers that publish a bound take (Stripe's API docs).
KEY_CHARS_MAX: Final = 255

#: Digits of an integer that are worth converting; int() of a megabyte of digits takes seconds.
_INT_DIGITS_MAX: Final = 60
_WHOLE_MAX: Final = 10**_INT_DIGITS_MAX


class UnreadableError(ValueError):
    """A success whose body does not hold what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One call of the API.

    Attributes:
        name: What it does, for messages: "debit".
        method: GET or POST.
        path: Path and query, percent-encoded, `/v1` included.
        read: From the answer's `data` to what the caller gets; raises UnreadableError.
        body: The exact bytes to send.
        idempotency_key: The key of a write; None for a read.
        is_callers_key: Whether the caller chose the key, and so may have used it before.
    """

    name: str
    method: str
    path: str
    read: Callable[[Any], T]
    body: bytes = b""
    idempotency_key: str | None = None
    is_callers_key: bool = False

    @property
    def is_write(self) -> bool:
        """Whether it changes something, so that doing it twice is not the same as once."""
        return self.idempotency_key is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """An answer with its content.

    Attributes:
        reply: The answer as the table of outcomes takes it.
        payload: The decoded body; None when there was none or it was not JSON. Fractions are exact (Decimal)
            in a success. In a refusal they are floats: its payload ends in an error that users write as JSON.
        headers: The headers that say when to ask again.
    """

    reply: Reply
    payload: Any
    headers: Mapping[str, str]


def hear(status: int, headers: Mapping[str, str], body: bytes, *, is_whole: bool) -> Heard:
    """Read what came back for a call; see `read_reply`."""
    reply = read_reply(status, headers, body, is_whole=is_whole)
    is_success = 200 <= status < 300  # noqa: PLR2004 - HTTP's 2xx
    payload = _loads(body, is_exact=is_success) if reply.body_kind is BodyKind.JSON else None
    return Heard(reply=reply, payload=payload, headers=headers)


def _loads(body: bytes, *, is_exact: bool) -> Any:
    return json.loads(body, parse_float=Decimal if is_exact else None, parse_int=_bounded_int)


def _bounded_int(digits: str) -> int | None:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else None


def in_path(user_id: object) -> str:
    """Check a user id and percent-encode it as one part of a path, `/` included.

    Raises:
        TypeError, ValueError: Naming what was given and what is allowed.
    """
    checked = checked_user_id(user_id)
    if checked in {".", ".."}:
        # Clients, proxies and servers take these out of a path, encoded or not, and another call is left.
        raise ValueError(f"user_id must not be {checked!r}, which has another meaning in an address")
    return quote(checked, safe="")


def encode(body: Mapping[str, Any]) -> bytes:
    """Write a body as compact JSON, without the fields that are None."""
    given = {name: value for name, value in body.items() if value is not None}
    return json_text(given).encode()


def checked_key(idempotency_key: object) -> str:
    """Check an idempotency key of the caller's.

    Raises:
        TypeError, ValueError: Naming what was given and what is allowed.
    """
    allowed = f"1 to {KEY_CHARS_MAX} printable ASCII characters"
    if not isinstance(idempotency_key, str):
        raise TypeError(f"idempotency_key must be a str of {allowed}, not {type(idempotency_key).__name__}")
    is_printable = idempotency_key.isascii() and idempotency_key.isprintable()
    if not (is_printable and 0 < len(idempotency_key) <= KEY_CHARS_MAX):
        raise ValueError(f"idempotency_key must have {allowed}, not {idempotency_key[:40]!r}")
    return idempotency_key


def field(data: Any, name: str, kind: type[T]) -> T:
    """Take a field of an answer.

    Raises:
        UnreadableError: When it is absent or of another type.
    """
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind):
        raise UnreadableError(f"{name} is not there or is not {kind.__name__}")
    return value


def whole(data: Any, name: str) -> int:
    """Take a whole number out of an answer; 10.0 is one too.

    Raises:
        UnreadableError: When it is absent or none.
    """
    value = data.get(name) if isinstance(data, dict) else None
    if isinstance(value, Decimal) and abs(value) < _WHOLE_MAX and value == int(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnreadableError(f"{name} is not there or is not a whole number")
    return value
