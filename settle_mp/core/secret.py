"""Secrets: an API key that cannot be printed by accident, and text from which keys are taken out.

Rule 1: a key leaves a Secret only through reveal(): a search for that word finds all that may leak one.
Rule 2: text from elsewhere (an answer, an exception) goes through hide_keys() before it is kept or shown.
"""

from __future__ import annotations

import re
from typing import Final, Literal

KeyMode = Literal["test", "live", ""]

#: The two forms of the vendor's keys, up to a character that ends a word in JSON, HTML or a log line.
_KEY: Final = re.compile(r"ss_(live|test)_[^\s\"'<>&,;()\[\]{}]*")

#: Stands for what is not shown; ASCII, so that every terminal can print it.
_HIDDEN: Final = "***"


class Secret:
    """An API key. Its repr, its str and its format show the mode and nothing more.

    Not a dataclass on purpose: dataclasses.asdict() would unfold it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the key itself, for the one header that needs it."""
        return self._value

    @property
    def mode(self) -> KeyMode:
        """What the key's prefix says: "test" (the vendor's sandbox), "live", or "" for any other form."""
        if self._value.startswith("ss_test_"):
            return "test"
        return "live" if self._value.startswith("ss_live_") else ""

    def __repr__(self) -> str:
        return f"Secret({self})"

    def __str__(self) -> str:
        return f"ss_{self.mode}_{_HIDDEN}" if self.mode else _HIDDEN

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._value)


def hide_keys(text: str) -> str:
    """Return the text with the secret part of each of the vendor's API keys replaced by "***"."""
    return _KEY.sub(rf"ss_\1_{_HIDDEN}", text)
