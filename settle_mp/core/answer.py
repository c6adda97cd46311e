"""An answer: what came back for one try at the upstream, or why nothing did.

Rule 1: a failure says whether the request may have been applied; nothing else about it decides anything.
Rule 2: what an answer's body says is only read for people and as a hint; the status decides.
Rule 3: whatever the upstream sends, reading it ends in an answer and never in an exception.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

#: Characters kept of the upstream's own words: enough for a reason on one line of a status page.
MESSAGE_CHARS_MAX = 300

#: Refused rows that an answer may name before we stop believing that it points at single rows.
NAMED_ROWS_MAX = 8

#: Digits of a JSON integer that are worth converting; int() of a megabyte of digits takes seconds.
_INT_DIGITS_MAX = 18

# "events[3].userId", "events.3.userId", "/events/3/userId" and FastAPI's ["body", "events", 3]: the vendor
# does not document how a refusal names a row, and these are the ways that validators write a path.
_NAMED_ROW = re.compile(r"""\bevents(?:\[|\.|/|"\s*,\s*)(\d{1,6})\b""")


class Failure(Enum):
    """Why no answer came. Those that begin with SENT may have been applied; the others certainly were not."""

    REFUSED = "connection refused"
    NAME_NOT_FOUND = "name not found"
    CONNECT_TIMEOUT = "no connection in time"
    TLS = "TLS failed"
    NOT_SENT_OTHER = "not sent"
    SENT_THEN_TIMEOUT = "no answer in time"
    SENT_THEN_RESET = "connection lost before the answer"
    SENT_THEN_OTHER = "failed after sending began"

    @property
    def is_maybe_applied(self) -> bool:
        """Whether a byte of the request may have reached the upstream."""
        return self in _SENT


_SENT = frozenset({Failure.SENT_THEN_TIMEOUT, Failure.SENT_THEN_RESET, Failure.SENT_THEN_OTHER})


class BodyKind(Enum):
    """What an answer's body is. CUT: it was longer than we read, or ended before its end."""

    JSON = "json"
    EMPTY = "empty"
    OTHER = "other"
    CUT = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The upstream, or something on the way to it, answered with a status.

    Attributes:
        status: The HTTP status.
        body_kind: What the body is.
        message: What the body says went wrong, on one short line; empty when it says nothing.
        retry_after: The Retry-After header as it came.
        location: The Location header of a redirect.
        content_type: The Content-Type header, for a body that is not JSON.
        refused_rows: Rows that a 400 or 422 names, counted from 0, sorted. A hint: it may be wrong.
    """

    status: int
    body_kind: BodyKind
    message: str = ""
    retry_after: str | None = None
    location: str | None = None
    content_type: str | None = None
    refused_rows: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoReply:
    """Nothing usable came back.

    Attributes:
        failure: What happened, and with it whether the request may have been applied.
        detail: The cause in the words of the system or of the library, on one short line.
    """

    failure: Failure
    detail: str = ""


Answer: TypeAlias = "Reply | NoReply"


def read_reply(status: int, headers: Mapping[str, str], body: bytes, *, is_whole: bool) -> Reply:
    """Read what came back into a reply.

    Args:
        status: The HTTP status.
        headers: The headers, found by lower-case names.
        body: The body as sent, any content coding removed.
        is_whole: False when the body was not read to its end.
    """
    kind, payload = _read_body(body, is_whole=is_whole)
    names_rows = kind is BodyKind.JSON and status in {400, 422}
    return Reply(
        status=status,
        body_kind=kind,
        message=_message(payload),
        retry_after=headers.get("retry-after"),
        location=_optional_line(headers.get("location")),
        content_type=_optional_line(headers.get("content-type")),
        refused_rows=_named_rows(body) if names_rows else (),
    )


def one_line(text: str) -> str:
    """The text on one line of at most MESSAGE_CHARS_MAX printable characters."""
    # A terminal's control sequences in a server's message would act on the operator's screen.
    shown = "".join(char if char.isprintable() else " " for char in text[: MESSAGE_CHARS_MAX * 4])
    return " ".join(shown.split())[:MESSAGE_CHARS_MAX]


def _optional_line(text: str | None) -> str | None:
    return None if text is None else one_line(text)


def _read_body(body: bytes, *, is_whole: bool) -> tuple[BodyKind, Any]:
    if not is_whole:
        return BodyKind.CUT, None
    if not body.strip():
        return BodyKind.EMPTY, None
    try:
        return BodyKind.JSON, json.loads(body, parse_int=_short_int)
    except (ValueError, RecursionError):
        return BodyKind.OTHER, None


def _short_int(digits: str) -> int | None:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else None


def _message(payload: Any) -> str:
    """The upstream's own words: `message` in the vendor's API, other names in the gateways before it."""
    if not isinstance(payload, dict):
        return ""
    texts = (payload.get(name) for name in ("message", "error", "detail", "title"))
    return next((one_line(text) for text in texts if isinstance(text, str)), "")


def _named_rows(body: bytes) -> tuple[int, ...]:
    rows = {int(found) for found in _NAMED_ROW.findall(body.decode("utf-8", "replace"))}
    return tuple(sorted(rows)) if len(rows) <= NAMED_ROWS_MAX else ()
