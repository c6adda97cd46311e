"""The Idempotency-Key header."""

from __future__ import annotations

import pytest

from settle_mp.sandbox.idempotency import BadKeyError, digest, fingerprint, parse_key


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ('"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('  "a b"  ', "a b"),
        (r'"quote \" and \\ backslash"', r'quote " and \ backslash'),
        ('"' + "k" * 255 + '"', "k" * 255),
    ],
)
def test_a_quoted_string_is_a_key(header: str, key: str) -> None:
    """Every sf-string of RFC 8941 within the length is taken, its escapes undone."""
    assert parse_key([header]) == key


@pytest.mark.parametrize(
    "header",
    [
        "bare-token",
        '"',
        '""',
        '"open',
        'open"',
        '"a" "b"',
        '"a";p=1',
        '"a", "b"',
        '"tab\there"',
        '"caf\xe9"',
        r'"\n"',
        '"a"\n',
        "'single'",
        '"' + "k" * 256 + '"',
        "",
    ],
)
def test_anything_else_is_refused(header: str) -> None:
    """What is not one quoted string of 1 to 255 characters is refused."""
    with pytest.raises(BadKeyError):
        parse_key([header])


def test_none_is_none_and_two_are_refused() -> None:
    """The header may be absent; clients must not send it twice (draft-07, section 2.1)."""
    assert parse_key([]) is None
    with pytest.raises(BadKeyError, match="once"):
        parse_key(['"a"', '"a"'])


def test_the_fingerprint_is_over_path_and_bytes() -> None:
    """Another path or another byte is another request."""
    one = fingerprint("/v1/events", digest(b"{}"))
    assert one == fingerprint("/v1/events", digest(b"{}"))
    assert one != fingerprint("/v1/events", digest(b"{} "))
    assert one != fingerprint("/v1/events/batch", digest(b"{}"))
