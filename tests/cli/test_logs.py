"""Log lines: one a record, fields as key=value, no keys."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from settle_mp.cli.logs import LineFormatter


def line(message: str, *, exc_info: bool = False, **fields: object) -> str:
    """Format one record, made as `logging` makes it."""
    record = logging.getLogger("settle_mp").makeRecord(
        "settle_mp", logging.INFO, "f.py", 1, message, (), sys.exc_info() if exc_info else None, extra=fields
    )
    record.created = 1_795_334_400.25
    return LineFormatter().format(record)


def test_a_record_is_time_level_event_and_fields() -> None:
    """The time is UTC; the fields come in the order in which they were given."""
    assert line("batch_sent", rows=50, key="k-1", ratio=0.5) == (
        "2026-11-22T08:00:00.250Z INFO batch_sent rows=50 key=k-1 ratio=0.5"
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("two words", '"two words"'),
        ("", '""'),
        ('a"b', r'"a\"b"'),
        ("a=b", '"a=b"'),
        ("a\nb", r'"a\nb"'),
        ("a\x1b[31m", r'"a\u001b[31m"'),
        ("é…", "é…"),
        (None, "None"),
        ([1, 2], '"[1, 2]"'),
    ],
)
def test_values_that_would_not_read_back_are_quoted(value: object, shown: str) -> None:
    """Text from elsewhere, with whatever characters in it, cannot forge a field or a line."""
    assert line("x", field=value).endswith(f" x field={shown}")


def test_a_message_with_line_ends_stays_one_line() -> None:
    """Other libraries' messages are not ours to choose."""
    assert "\n" not in line("first\nsecond\rthird")


def test_a_traceback_is_a_field() -> None:
    """Nothing of it is lost, and it is one line all the same."""
    try:
        raise ZeroDivisionError("no")  # noqa: TRY301 - a traceback is wanted
    except ZeroDivisionError:
        text = line("failed", exc_info=True)
    assert "\n" not in text
    assert "exception=\"ZeroDivisionError('no')\"" in text
    assert 'traceback="Traceback (most recent call last):\\n' in text


def test_keys_never_reach_a_line() -> None:
    """Neither through a message, a field nor an exception."""
    try:
        raise ValueError("ss_live_4f9a")  # noqa: TRY301 - the same
    except ValueError:
        assert "4f9a" not in line("ss_test_4f9a", exc_info=True, field="X-API-Key: ss_live_4f9a")


def test_the_level_is_ours_and_others_are_heard_from_warnings_on() -> None:
    """`--log-level debug` shows our debug lines and not httpx's."""
    code = (
        "import logging; from settle_mp.cli.logs import configure; configure('debug')\n"
        "for name in ('settle_mp', 'settle_mp.sub', 'httpx'):\n"
        "    for level in ('debug', 'info', 'warning'):\n"
        "        getattr(logging.getLogger(name), level)('%s %s', name, level)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heard = [tuple(text.split()[2:]) for text in run.stderr.splitlines()]
    ours = [
        (name, level) for name in ("settle_mp", "settle_mp.sub") for level in ("debug", "info", "warning")
    ]
    assert heard == [*ours, ("httpx", "warning")]
    assert run.stdout == ""
