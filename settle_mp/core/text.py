"""Text that users give: whether it can be sent, and how an error repeats it."""

from __future__ import annotations

from typing import Final

#: Characters of a user's value that an error message repeats.
SHOWN_CHARS_MAX: Final = 40


def has_utf8(value: str) -> bool:
    """Whether a text can be written as UTF-8: a lone surrogate can't."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def surrogate_text(where: str, value: str) -> str:
    """What an error says of a text that can't be sent."""
    return f"{where} must be valid Unicode text; {value[:SHOWN_CHARS_MAX]!a} holds a lone surrogate"


def short(value: object) -> str:
    """A value as an error repeats it: its repr, cut."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  an int of more digits than Python prints, or a repr of the user's own
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 3] + "..."
