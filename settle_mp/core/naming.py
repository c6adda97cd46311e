"""Names of event types: the vendor's naming rule, the names that an application declares, and what was meant.

Rule 1: a name is what is sent: of a member of an Enum its value.
Rule 2: a name that breaks the vendor's convention is no error unless the application says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

from settle_mp.core.text import short

_SCREAMING_SNAKE_CASE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*\Z")
#: Where a word begins within a name: aiQuery, PDFExport.
_WORD_BEGINS: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_IN_A_WORD: Final = re.compile(r"[^A-Za-z0-9]+")
#: Declared names that an error lists.
_LISTED_MAX: Final = 10


def is_well_named(name: str) -> bool:
    """Whether a name is SCREAMING_SNAKE_CASE, as the upstream's vendor asks for."""
    return _SCREAMING_SNAKE_CASE.match(name) is not None


def well_named(name: str) -> str:
    """The name as the convention has it ("aiQuery": "AI_QUERY"); empty where none is to be seen in it."""
    if not name.isascii():
        return ""
    spelled = _NOT_IN_A_WORD.sub("_", _WORD_BEGINS.sub("_", name)).strip("_").upper()
    return spelled if is_well_named(spelled) else ""


def name_of(event_type: object) -> object:
    """What is sent for an event type: of a member of an Enum its value, as plain text; else as it is."""
    name = event_type.value if isinstance(event_type, Enum) else event_type
    return str.__str__(name) if isinstance(name, str) else name


def read_names(given: object) -> frozenset[str]:
    """Read declared names: an Enum class, or names and members in any iterable.

    Raises:
        TypeError, ValueError: With what is wrong.
    """
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise TypeError(f"a value of type {type(given).__name__} was given")
    names = set()
    for each in given:
        name = name_of(each)
        if not isinstance(name, str):
            raise TypeError(f"{short(each)} is no name and has none")
        names.add(name)
    if not names:
        raise ValueError("there is no name in it")
    return frozenset(names)


def ill_named_text(name: str) -> str:
    """What is said of a name that breaks the convention."""
    meant = well_named(name)
    hint = f"; did you mean {meant!r}?" if meant else ""
    return f"event_type should be SCREAMING_SNAKE_CASE, as the vendor asks for, not {short(name)}{hint}"


def undeclared_text(name: str, declared: frozenset[str]) -> str:
    """What is said of a name that was not declared."""
    meant = _meant(name, declared)
    hint = f"; did you mean {meant!r}?" if meant else ""
    listed = sorted(declared)[:_LISTED_MAX]
    more = f" and {len(declared) - len(listed)} more" if len(declared) > len(listed) else ""
    return f"event_type must be one of event_types ({', '.join(listed)}{more}), not {short(name)}{hint}"


def _meant(name: str, declared: frozenset[str]) -> str:
    spelled = well_named(name)
    if spelled in declared:
        return spelled
    from difflib import get_close_matches  # only who makes a mistake pays for it

    near = [*get_close_matches(name, declared, n=1), *get_close_matches(spelled, declared, n=1)]
    return near[0] if near else ""
