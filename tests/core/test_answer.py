"""Answers: whatever comes back is read, and what may have been applied is known."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.answer import (
    MESSAGE_CHARS_MAX,
    NAMED_ROWS_MAX,
    BodyKind,
    Failure,
    Reply,
    one_line,
    read_reply,
)


def _read(body: bytes, *, status: int = 400, is_whole: bool = True) -> Reply:
    return read_reply(status, {}, body, is_whole=is_whole)


def test_only_failures_after_the_first_byte_may_have_been_applied() -> None:
    """The line between certain and in doubt is drawn once, here."""
    maybe = {failure for failure in Failure if failure.is_maybe_applied}
    assert maybe == {Failure.SENT_THEN_TIMEOUT, Failure.SENT_THEN_RESET, Failure.SENT_THEN_OTHER}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"data": {}}', BodyKind.JSON),
        (b"[]", BodyKind.JSON),
        (b"null", BodyKind.JSON),
        ('"käse"'.encode(), BodyKind.JSON),
        (b"", BodyKind.EMPTY),
        (b" \r\n", BodyKind.EMPTY),
        (b"<html>fine</html>", BodyKind.OTHER),
        (b"OK", BodyKind.OTHER),
        (b'{"data": ', BodyKind.OTHER),
        (b"\xff\xfe\x00", BodyKind.OTHER),
        (b"[" * 200_000, BodyKind.OTHER),
        (b"9" * 500_000, BodyKind.JSON),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_body_is_json_or_empty_or_other(body: bytes, kind: BodyKind) -> None:
    """JSON is what parses as JSON, whatever the content type says; hostile JSON is read in bounded time."""
    assert _read(body, status=200).body_kind is kind


def test_a_body_that_was_not_read_to_its_end_is_cut() -> None:
    """A beginning proves nothing, also when it happens to parse or to be empty."""
    assert _read(b"{}", is_whole=False).body_kind is BodyKind.CUT
    assert _read(b"", is_whole=False).body_kind is BodyKind.CUT


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({"message": "no such plan"}, "no such plan"),
        ({"message": None, "error": "bad"}, "bad"),
        ({"detail": [{"loc": ["body"]}], "title": "Invalid"}, "Invalid"),
        ({"message": "two\nlines\x1b[31m and a colour"}, "two lines [31m and a colour"),
        ({"message": "x" * 5000}, "x" * MESSAGE_CHARS_MAX),
        ({"message": 3}, ""),
        (["message"], ""),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_the_message_is_one_short_printable_line(payload: object, message: str) -> None:
    """The upstream's words fit on a line of a terminal and cannot act on it."""
    assert _read(json.dumps(payload).encode()).message == message


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({"data": {"fields": {"events.3.userId": ["required"], "events.0.quantity": ["min"]}}}, (0, 3)),
        ({"fields": {"events[12].metadata": ["too large"]}}, (12,)),
        ({"errors": [{"pointer": "/events/7/eventType"}]}, (7,)),
        ({"detail": [{"loc": ["body", "events", 2, "quantity"]}]}, (2,)),
        ({"message": "events must not be empty"}, ()),
        ({"message": "at most 50 events. 3 given"}, ()),
        ({"fields": {f"events.{row}.userId": [] for row in range(NAMED_ROWS_MAX + 1)}}, ()),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_refusal_may_name_its_rows(body: object, rows: tuple[int, ...]) -> None:
    """Paths into `events` are found in the forms that validators write; too many point at no single row."""
    assert _read(json.dumps(body).encode(), status=400).refused_rows == rows
    assert _read(json.dumps(body).encode(), status=422).refused_rows == rows


def test_only_400_and_422_name_rows() -> None:
    """A rate limit that mentions a path is not about a row."""
    assert _read(b'{"message": "events.3 is late"}', status=429).refused_rows == ()


def test_the_headers_that_matter_are_kept() -> None:
    """Retry-After as it came; Location and Content-Type as one line."""
    headers = {"retry-after": "3", "location": "https://a.example/\n", "content-type": "text/html"}
    reply = read_reply(302, headers, b"", is_whole=True)
    assert (reply.retry_after, reply.location, reply.content_type) == ("3", "https://a.example/", "text/html")


@given(st.integers(100, 999), st.binary(max_size=200), st.booleans())
def test_reading_never_fails(status: int, body: bytes, is_whole: bool) -> None:  # noqa: FBT001 - drawn
    """Any status with any bytes is an answer."""
    reply = read_reply(status, {}, body, is_whole=is_whole)
    assert (reply.body_kind is BodyKind.CUT) is not is_whole


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    """No control character survives, and the length is bounded."""
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= MESSAGE_CHARS_MAX
