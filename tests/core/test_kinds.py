"""Kinds of setting values: what each takes, and what each refuses."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.core import kinds
from settle_mp.core.secret import Secret

if TYPE_CHECKING:
    from settle_mp.core.kinds import Kind

NUMBER = kinds.number(0.5, 60, "seconds")
WHOLE = kinds.whole(1, 10_000, "rows")
SIZE = kinds.size(1024, 2**40)
CHOICE = kinds.choice("retry", "hold")


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (NUMBER, 2, 2.0),
        (NUMBER, 0.5, 0.5),
        (NUMBER, 60, 60.0),
        (WHOLE, 1, 1),
        (WHOLE, 10_000, 10_000),
        (SIZE, 1024, 1024),
        (SIZE, "1024", 1024),
        (SIZE, "64MiB", 64 * 1024 * 1024),
        (SIZE, " 64 mib ", 64 * 1024 * 1024),
        (SIZE, "4Gi", 4 * 1024**3),
        (SIZE, "1 TiB", 2**40),
        (SIZE, "64MB", 64_000_000),
        (SIZE, "2k", 2000),
        (CHOICE, "hold", "hold"),
        (kinds.flag(), False, False),
        (kinds.path(), "run/x", "run/x"),
        (kinds.path(), PurePosixPath("/run/x"), "/run/x"),
        (kinds.name_of_group(), "www-data", "www-data"),
        (kinds.key(), "  ss_live_1\n", Secret("ss_live_1")),
        (kinds.key(), Secret("ss_live_1"), Secret("ss_live_1")),
        (kinds.base_url(), "https://api.example.com", "https://api.example.com"),
        (kinds.base_url(), "https://api.example.com/", "https://api.example.com"),
        (kinds.base_url(), "https://api.example.com/v1", "https://api.example.com"),
        (kinds.base_url(), "https://api.example.com/v1/", "https://api.example.com"),
        (kinds.base_url(), "http://127.0.0.1:8080/settle/v1", "http://127.0.0.1:8080/settle"),
        (kinds.base_url(), "http://[::1]:8080", "http://[::1]:8080"),
        (kinds.endpoint(), "ipc:///run/settle-mp/socket", "ipc:///run/settle-mp/socket"),
        (kinds.endpoint(), "tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
        (kinds.endpoint(), "tcp://127.9.9.9:1", "tcp://127.9.9.9:1"),
        (kinds.endpoint(), "tcp://localhost:65535", "tcp://localhost:65535"),
        (kinds.endpoint(), "tcp://[::1]:5555", "tcp://[::1]:5555"),
        (kinds.endpoint(), "tcp://*:5555", "tcp://*:5555"),
        (kinds.endpoint(), "tcp://settle-mp.internal:5555", "tcp://settle-mp.internal:5555"),
    ],
)
def test_what_is_allowed_is_taken(kind: Kind, value: object, expected: Any) -> None:
    """Each value becomes the setting's value, of the setting's type."""
    checked = kind.check(value)
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        (NUMBER, "2", "type str"),
        (NUMBER, True, "type bool"),
        (NUMBER, 0.49, "out of range"),
        (NUMBER, 60.1, "out of range"),
        (NUMBER, float("nan"), "out of range"),
        (NUMBER, float("inf"), "out of range"),
        (WHOLE, 2.0, "type float"),
        (WHOLE, True, "type bool"),
        (WHOLE, 0, "out of range"),
        (WHOLE, 10_001, "out of range"),
        (SIZE, 1023, "out of range"),
        (SIZE, "1023", "out of range"),
        (SIZE, "-1", "not a size"),
        (SIZE, "64 XB", "not a size"),
        (SIZE, "", "not a size"),
        (SIZE, "1.5GiB", "not a size"),
        (SIZE, 1e6, "type float"),
        (CHOICE, "Retry", "none of them"),
        (CHOICE, ["retry"], "none of them"),
        (kinds.flag(), 1, "type int"),
        (kinds.flag(), "true", "type str"),
        (kinds.path(), "", "nothing"),
        (kinds.path(), 7, "type int"),
        (kinds.path(), "a\0b", "NUL"),
        (kinds.name_of_group(), "a b", "cannot be"),
        (kinds.name_of_group(), "-x", "cannot be"),
        (kinds.name_of_group(), 0, "type int"),
        (kinds.base_url(), "api.example.com", "not such an address"),
        (kinds.base_url(), "ftp://api.example.com", "not such an address"),
        (kinds.base_url(), "https://", "not such an address"),
        (kinds.base_url(), "https://api.example.com?x=1", "not such an address"),
        (kinds.base_url(), "https://api.example.com#x", "not such an address"),
        (kinds.base_url(), "https://api.example.com:99999", "ort"),
        (kinds.base_url(), 7, "type int"),
        (kinds.endpoint(), "/run/socket", "not such an address"),
        (kinds.endpoint(), "ipc://run/socket", "not absolute"),
        (kinds.endpoint(), "ipc://@abstract", "not absolute"),
        (kinds.endpoint(), "ipc:///" + "é" * 60, "121 bytes"),
        (kinds.endpoint(), "tcp://127.0.0.1", "not a port"),
        (kinds.endpoint(), "tcp://127.0.0.1:0", "not a port"),
        (kinds.endpoint(), "tcp://:5555", "not a host"),
        (kinds.endpoint(), "tcp://::1:5555", "not a host"),
        (kinds.endpoint(), "tcp://eth0;10.0.0.7:5555", "not a host"),
        (kinds.endpoint(), "tcp://127.0.0.1:65536", "not a port"),
    ],
)
def test_what_is_not_allowed_is_refused(kind: Kind, value: object, problem: str) -> None:
    """The problem says what was wrong with the value."""
    with pytest.raises((TypeError, ValueError), match=problem):
        kind.check(value)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (NUMBER, "2", 2),
        (NUMBER, "2.5", 2.5),
        (NUMBER, "1e1", 10.0),
        (WHOLE, "50", 50),
        (kinds.flag(), "YES", True),
        (kinds.flag(), "1", True),
        (kinds.flag(), "on", True),
        (kinds.flag(), "True", True),
        (kinds.flag(), "0", False),
        (kinds.flag(), "off", False),
        (kinds.flag(), "no", False),
        (kinds.flag(), "false", False),
    ],
)
def test_text_of_the_environment_becomes_a_typed_value(kind: Kind, text: str, expected: object) -> None:
    """Numbers and flags are read from text; the check then takes them."""
    assert kind.check(kind.read(text)) == expected


@pytest.mark.parametrize(("kind", "text"), [(NUMBER, "abc"), (WHOLE, "5 rows"), (kinds.flag(), "maybe")])
def test_text_that_is_no_such_value_is_refused(kind: Kind, text: str) -> None:
    """The problem quotes the text."""
    with pytest.raises(ValueError, match=text):
        kind.read(text)


@pytest.mark.parametrize("value", ["", "   ", "ss_live_1 x7", "ss_live_\nx7", "ss_live_éx7", 7])
def test_a_bad_key_is_refused_without_repeating_it(value: object) -> None:
    """What could not be sent in a header is no key; the problem does not show what was given."""
    with pytest.raises((TypeError, ValueError)) as caught:
        kinds.key().check(value)
    assert "x7" not in str(caught.value)


def test_a_password_in_an_address_is_refused_without_repeating_it() -> None:
    """The base URL is shown by `settle-mp config` and in errors, so no secret may be in it."""
    with pytest.raises(ValueError, match="user name or password") as caught:
        kinds.base_url().check("https://me:hunter2@api.example.com")
    assert "hunter2" not in str(caught.value)
