"""What a strict upstream takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from settle_mp.sandbox.rows import (
    BadBodyError,
    Row,
    TooManyRowsError,
    metadata_of,
    parse_batch,
    parse_event,
)
from tests.sandbox.posting import batch, row


def _fields(body: bytes) -> dict[str, list[str]]:
    with pytest.raises(BadBodyError) as caught:
        parse_batch(body, 100)
    return caught.value.fields


def test_good_rows() -> None:
    """Quantity defaults to 1, null metadata are none, and fractions stay exact."""
    second = b'{"userId":"\\u00fc","eventType":"B","quantity":0.10,"metadata":null}'
    body = b'{"events":[{"userId":"u","eventType":"A"},%s]}' % second
    assert parse_batch(body, 2) == [Row("u", "A", "1"), Row("ü", "B", "0.1")]
    assert parse_event(b'{"userId":"u","eventType":"A","quantity":1e3}') == Row("u", "A", "1000")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"userId": ""}, "userId"),
        ({"userId": 7}, "userId"),
        ({"userId": None}, "userId"),
        ({"userId": "\ud800"}, "userId"),
        ({"eventType": ""}, "eventType"),
        ({"eventType": ["A"]}, "eventType"),
        ({"quantity": 0}, "quantity"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": -0.5}, "quantity"),
        ({"quantity": "1"}, "quantity"),
        ({"quantity": True}, "quantity"),
        ({"quantity": None}, "quantity"),
        ({"quantity": 10**60}, "quantity"),
        ({"metadata": []}, "metadata"),
        ({"metadata": "m"}, "metadata"),
        ({"timestamp": "2026"}, "timestamp"),
    ],
)
def test_a_bad_row_is_named_by_index(change: dict[str, Any], name: str) -> None:
    """A batch with one bad row is refused, and the refusal names that row and that field alone."""
    fields = _fields(batch(row(), row() | change, row()))
    assert list(fields) == [f"events[1].{name}"]
    with pytest.raises(BadBodyError) as caught:
        parse_event(json.dumps(row() | change).encode())
    assert list(caught.value.fields) == [name]


def test_every_bad_row_is_named() -> None:
    """All bad rows are named, up to a bound."""
    assert set(_fields(batch(row(""), row(), row(quantity=0)))) == {"events[0].userId", "events[2].quantity"}
    assert _fields(b'{"events":[1]}') == {"events[0]": ["must be an object"]}
    with pytest.raises(BadBodyError) as caught:
        parse_batch(batch(*[row("")] * 150), 200)
    assert len(caught.value.fields) == 100


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"events":{}}',
        b'{"events":[]}',
        b'{"events":[{}],"more":1}',
        b"\xff",
        b"[" * 10**5,
    ],
)
def test_what_is_no_batch_is_refused(body: bytes) -> None:
    """Whatever the bytes are, the answer is a refusal and not an error of ours."""
    _fields(body)


def test_depth_is_bounded() -> None:
    """Metadata that could not be written out again are refused when they come in."""
    deep = b'{"a":' * 65 + b"1.5" + b"}" * 65
    deeper = b'{"a":' * 66 + b"1.5" + b"}" * 66
    frame = b'{"events":[{"userId":"u","eventType":"A","metadata":%s}]}'
    assert len(parse_batch(frame % deep, 1)) == 1
    assert list(_fields(frame % deeper)) == ["events[0].metadata"]
    assert metadata_of(frame % deep) == [deep.decode()]


def test_too_many_rows_is_its_own_refusal() -> None:
    """A batch over the limit is told apart from a bad one, for a 413."""
    assert len(parse_batch(batch(row(), row()), 2)) == 2
    with pytest.raises(TooManyRowsError):
        parse_batch(batch(row(), row(), row()), 2)
