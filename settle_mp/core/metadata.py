"""Metadata of an event: what may be in them, their limits, and the plain values that they become.

Rule 1: every limit of metadata stands in this file.
Rule 2: what can't be carried is an error that names the key.
Rule 3: what was carried is plain: read back it is taken as it is, and nothing becomes anything else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

from settle_mp.core.packing import pack
from settle_mp.core.text import has_utf8, short, surrogate_text
from settle_mp.core.values import INT_MAX, INT_MIN, NO_FORM, known_form, plain_number, set_order

#: Bytes of an event's metadata, msgpack-encoded. With both names a record stays below 10 KiB,
#: so that any record fits into the smallest journal segment.
METADATA_BYTES_MAX: Final = 8192
#: Levels of nesting in metadata.
METADATA_DEPTH_MAX: Final = 16
#: The one metadata name that is ours (see `annotate`).
RESERVED_NAME: Final = "settle_mp"
#: Types of metadata values that need no look inside.
PLAIN_TYPES: Final = frozenset((str, int, bool, type(None)))

_JSON: Final = "what JSON has (str, int, float, bool, None, list, dict)"
_FORMS: Final = (
    "a datetime, date, time, Decimal, UUID, Enum, bytes, set, dataclass, pydantic model or numpy scalar"
)

# Where in metadata a value stands: the keys and indexes that lead to it, spelled only in errors.
_Path = tuple[object, ...]


def is_flat(metadata: object) -> bool:
    """Whether metadata are what nearly all are, and need no look inside any value."""
    if type(metadata) is not dict or RESERVED_NAME in metadata:
        return False
    for name, value in metadata.items():
        if type(name) is not str or type(value) not in PLAIN_TYPES:
            return False
    return True


def plain_metadata(metadata: object) -> dict[str, Any]:
    """What a user's metadata become: the built-in types that JSON has, and Decimals where no float is exact.

    Raises:
        TypeError, ValueError: Naming the key, what was given and what is allowed.
    """
    return _plain(metadata, has_forms=True)


def checked_metadata(metadata: object) -> dict[str, Any]:
    """Hold metadata that were plain before to the same limits.

    Raises:
        TypeError, ValueError: Likewise.
    """
    return _plain(metadata, has_forms=False)


def _plain(metadata: object, *, has_forms: bool) -> dict[str, Any]:
    if not isinstance(metadata, Mapping):
        msg = f"metadata must be a dict with str keys, or None, not {type(metadata).__name__}"
        raise TypeError(msg)
    if RESERVED_NAME in metadata:
        msg = f"metadata[{RESERVED_NAME!r}] is reserved for what settle-mp adds to a row; choose another name"
        raise ValueError(msg)
    plain: dict[str, Any] = _Walk(has_forms=has_forms).nest(metadata, ())
    bytes_count = len(pack(plain))
    if bytes_count > METADATA_BYTES_MAX:
        msg = f"metadata must encode to at most {METADATA_BYTES_MAX:,} bytes, not {bytes_count:,}"
        raise ValueError(msg)
    return plain


class _Walk:
    """One way through metadata.

    Args:
        has_forms: Whether values that JSON does not have are given the form that they have in it.
    """

    def __init__(self, *, has_forms: bool) -> None:
        # Each value takes a byte at least: without that, a few lists that hold each other many times over
        # would keep the caller busy for years before their size is known.
        self._room = iter(range(METADATA_BYTES_MAX))
        self._has_forms = has_forms

    def value(self, value: object, path: _Path) -> Any:
        """A value in exact built-in types."""
        if next(self._room, None) is None:
            size = f"{METADATA_BYTES_MAX:,} bytes"
            raise ValueError(f"metadata must encode to at most {size}, not as many values as it holds")
        if isinstance(value, str):
            return _text(value, path)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float | Decimal):
            return _number(value, path)
        if isinstance(value, Mapping | list | tuple):
            return self.nest(value, path)
        if self._has_forms:
            if isinstance(value, set | frozenset):
                return self._set(value, path)
            form = known_form(value)
            if form is not NO_FORM and type(form) is not type(value):
                return self.value(form, path)
        msg = f"{_spelled(path)} must be {_JSON}, or {_FORMS}, not {type(value).__name__}"
        raise TypeError(msg)

    def nest(self, value: Mapping[Any, Any] | list[Any] | tuple[Any, ...], path: _Path) -> Any:
        """A dict or a list and what is in it."""
        _check_depth(path)
        if isinstance(value, Mapping):
            return {_key(key, path): self.value(item, (*path, key)) for key, item in value.items()}
        return [self.value(item, (*path, index)) for index, item in enumerate(value)]

    def _set(self, value: set[Any] | frozenset[Any], path: _Path) -> list[Any]:
        """A set as a list; its own order depends on hashes, which differ from process to process."""
        _check_depth(path)
        return sorted((self.value(item, (*path, item)) for item in value), key=set_order)


def _check_depth(path: _Path) -> None:
    if len(path) >= METADATA_DEPTH_MAX:
        msg = f"metadata must be nested at most {METADATA_DEPTH_MAX} levels deep, not as {_spelled(path)} is"
        raise ValueError(msg)


def _key(key: object, path: _Path) -> str:
    if not isinstance(key, str):
        msg = f"{_spelled(path)} must have str keys, not {type(key).__name__} ({short(key)})"
        raise TypeError(msg)
    return _text(key, (*path, key))


def _text(value: str, path: _Path) -> str:
    if not value.isascii() and not has_utf8(value):
        raise ValueError(surrogate_text(_spelled(path), value))
    return str.__str__(value)


def _number(value: float | Decimal, path: _Path) -> int | float | Decimal:
    if isinstance(value, Decimal):
        try:
            return plain_number(value)
        except ValueError as error:
            raise ValueError(f"{_spelled(path)} {error}") from None
    if isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            msg = f"{_spelled(path)} must be an int from -2**63 to 2**64 - 1, not {short(value)}"
            raise ValueError(msg)
        return int(value)
    if not math.isfinite(value):
        msg = f"{_spelled(path)} must be a finite number, not {short(value)}"
        raise ValueError(msg)
    return float(value)


def _spelled(path: _Path) -> str:
    return "metadata" + "".join(f"[{short(step)}]" for step in path)
