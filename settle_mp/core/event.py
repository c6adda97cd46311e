"""An event: what `track()` accepts, its limits, and how it looks as bytes.

Rule 1: every limit of an event stands in this file.
Rule 2: whatever `pack_event` accepts, `unpack_event` gives back equal, in any process.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from settle_mp.core.text import has_utf8, short, surrogate_text

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Characters of a user id. Ids in use (UUIDs, e-mail addresses, Auth0 subjects) stay far below.
USER_ID_CHARS_MAX: Final = 256
#: Characters of an event type.
EVENT_TYPE_CHARS_MAX: Final = 128
#: Bytes of an event's metadata, msgpack-encoded. With both names a record stays below 10 KiB,
#: so that any record fits into the smallest journal segment.
METADATA_BYTES_MAX: Final = 8192
#: Levels of nesting in metadata.
METADATA_DEPTH_MAX: Final = 16
#: Largest quantity of one event. Sums of 9,000 of the largest still fit the 2**53 - 1 up to which
#: JSON numbers are safe in every reader (RFC 8259, section 6).
QUANTITY_MAX: Final = 10**12
#: Smallest fraction of a unit in one event.
QUANTITY_MIN: Final = Decimal("1e-9")
#: Decimal places of a fraction: enough for every float of at least QUANTITY_MIN.
QUANTITY_PLACES_MAX: Final = 27
#: Bytes of a whole packed event at most: names at 4 bytes a character, metadata, quantity, framing.
PAYLOAD_BYTES_MAX: Final = 4 * (USER_ID_CHARS_MAX + EVENT_TYPE_CHARS_MAX) + METADATA_BYTES_MAX + 128
#: The one metadata name that is ours (see `annotate`).
RESERVED_NAME: Final = "settle_mp"

#: msgpack's extension code for a Decimal, written as its decimal string.
DECIMAL_CODE: Final = 1
_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_FIELDS_COUNT = 4
#: Bytes of a Decimal's string: 13 digits, a point and 27 places take 41.
_DECIMAL_BYTES_MAX = 64
# Floats are held against floats: where the application's decimal context traps FloatOperation, comparing
# a float with a Decimal raises. Both stand within the exact limits (this 1e-9 lies above 10**-9).
_QUANTITY_MIN_FLOAT, _QUANTITY_MAX_FLOAT = 1e-9, 1e12
# Made once: building these for each event takes longer than all of its checks.
_QUANTITY_ALLOWED = f"an int, float or Decimal from {QUANTITY_MIN} to {QUANTITY_MAX:,}"
_NUMBERS = (int, float, Decimal)
_NESTS = (dict, list, tuple)

# Where in metadata a value stands: the keys and indexes that lead to it, spelled only in errors.
_Path = tuple[object, ...]

Quantity = int | Decimal


#: Types of metadata values that need no look inside.
PLAIN_TYPES: Final = frozenset((str, int, bool, type(None)))


class Event(NamedTuple):
    """One tracked usage: who, what, how much, and under which circumstances."""

    user_id: str
    event_type: str
    quantity: Quantity
    metadata: dict[str, Any] | None


class InvalidEventError(ValueError):
    """Bytes that stand where an event should, and are none. The reason is its message."""


def exact(quantity: float | Decimal) -> Quantity:
    """A checked quantity without binary artefacts: a float is the shortest decimal that reads as it."""
    return Decimal(repr(float(quantity))) if isinstance(quantity, float) else quantity


def pack_event(user_id: object, event_type: object, quantity: object, metadata: object) -> bytes:
    """Check an event in full and encode it as `[user_id, event_type, quantity, metadata]`.

    Raises:
        TypeError, ValueError: Naming the argument, what was given and what is allowed.
    """
    user = _checked_name("user_id", user_id, USER_ID_CHARS_MAX)
    kind = _checked_name("event_type", event_type, EVENT_TYPE_CHARS_MAX)
    amount = _checked_quantity(quantity)
    plain = None if metadata is None else _checked_metadata(metadata)
    payload: bytes = msgpack.packb([user, kind, amount, plain], default=_pack_decimal)
    return payload


def unpack_event(payload: bytes) -> Event:
    """Decode and check what a journal or a frame holds; the inverse of `pack_event`.

    Raises:
        InvalidEventError: When the bytes are not an event within the limits.
    """
    try:
        fields = msgpack.unpackb(payload, ext_hook=_unpack_ext, strict_map_key=True)
    except Exception as error:  # noqa: BLE001  msgpack raises a dozen unrelated classes for bad bytes
        msg = f"not msgpack: {type(error).__name__}"
        raise InvalidEventError(msg) from None
    if type(fields) is not list or len(fields) != _FIELDS_COUNT:
        msg = "not a list of four fields"
        raise InvalidEventError(msg)
    user_id, event_type, quantity, metadata = fields
    if (
        type(user_id) is str
        and type(event_type) is str
        and type(quantity) is int
        and 0 < len(user_id) <= USER_ID_CHARS_MAX
        and 0 < len(event_type) <= EVENT_TYPE_CHARS_MAX
        and 0 < quantity <= QUANTITY_MAX
        and (metadata is None or is_flat(metadata))
        and len(payload) <= METADATA_BYTES_MAX
    ):
        # Nearly all events are as plain as that, and need none of the slower checks below.
        return Event(user_id, event_type, quantity, metadata)
    try:
        user = _checked_name("user_id", user_id, USER_ID_CHARS_MAX)
        kind = _checked_name("event_type", event_type, EVENT_TYPE_CHARS_MAX)
        amount = _checked_quantity(quantity)
        plain = None if metadata is None else _checked_metadata(metadata)
    except (TypeError, ValueError) as error:
        raise InvalidEventError(str(error)) from None
    return Event(user, kind, exact(amount), plain)


def checked_user_id(user_id: object) -> str:
    """Return a user id within its limits, as exactly `str`.

    Raises:
        TypeError, ValueError: Naming what was given and what is allowed.
    """
    return _checked_name("user_id", user_id, USER_ID_CHARS_MAX)


def checked_event_type(event_type: object) -> str:
    """Return an event type within its limits likewise."""
    return _checked_name("event_type", event_type, EVENT_TYPE_CHARS_MAX)


def checked_metadata(metadata: object) -> dict[str, Any]:
    """Return metadata within their limits, in exact built-in types that JSON has.

    Raises:
        TypeError, ValueError: Naming the key, what was given and what is allowed.
    """
    return _checked_metadata(metadata)


def is_flat(metadata: object) -> bool:
    """Whether metadata are what nearly all are, and need no look inside any value."""
    if type(metadata) is not dict or RESERVED_NAME in metadata:
        return False
    for name, value in metadata.items():
        if type(name) is not str or type(value) not in PLAIN_TYPES:
            return False
    return True


def _checked_name(argument: str, value: object, chars_max: int) -> str:
    if not isinstance(value, str):
        msg = f"{argument} must be a str of 1 to {chars_max} characters, not {type(value).__name__}"
        raise TypeError(msg)
    if not 0 < len(value) <= chars_max:
        msg = f"{argument} must have 1 to {chars_max} characters, not {len(value)}"
        raise ValueError(msg)
    if not value.isascii() and not has_utf8(value):
        raise ValueError(surrogate_text(argument, value))
    return str.__str__(value)


def _checked_quantity(value: object) -> int | float | Decimal:
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        msg = f"quantity must be {_QUANTITY_ALLOWED}, not {type(value).__name__}"
        raise TypeError(msg)
    if not _is_within_range(value):
        msg = f"quantity must be {_QUANTITY_ALLOWED}, not {short(value)}"
        raise ValueError(msg)
    if isinstance(value, Decimal):
        return _checked_places(value)
    return int(value) if isinstance(value, int) else float(value)


def _is_within_range(value: float | Decimal) -> bool:
    if isinstance(value, Decimal):
        # NaN and infinity first: a signalling NaN raises when it is compared.
        return value.is_finite() and QUANTITY_MIN <= value <= QUANTITY_MAX
    if isinstance(value, int):
        return 0 < value <= QUANTITY_MAX
    return _QUANTITY_MIN_FLOAT <= value <= _QUANTITY_MAX_FLOAT  # false for NaN


def _checked_places(value: Decimal) -> Decimal:
    places = -int(value.as_tuple().exponent)
    if places > QUANTITY_PLACES_MAX:
        msg = f"quantity must have at most {QUANTITY_PLACES_MAX} decimal places, not {places}"
        raise ValueError(msg)
    return Decimal(value)


def _checked_metadata(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        msg = f"metadata must be a dict with str keys, or None, not {type(value).__name__}"
        raise TypeError(msg)
    if RESERVED_NAME in value:
        msg = f"metadata[{RESERVED_NAME!r}] is reserved for what settle-mp adds to a row; choose another name"
        raise ValueError(msg)
    plain: dict[str, Any] = _plain_nest(value, (), iter(range(METADATA_BYTES_MAX)))
    bytes_count = len(msgpack.packb(plain))
    if bytes_count > METADATA_BYTES_MAX:
        msg = f"metadata must encode to at most {METADATA_BYTES_MAX:,} bytes, not {bytes_count:,}"
        raise ValueError(msg)
    return plain


def _plain(value: object, path: _Path, room: Iterator[int]) -> Any:
    """A value of metadata in exact built-in types, or an error that names the key.

    Each value takes a byte of `room` at least: without that, a few lists that hold each other many times
    over would keep the caller busy for years before their size is known.
    """
    if next(room, None) is None:
        msg = f"metadata must encode to at most {METADATA_BYTES_MAX:,} bytes, not as many values as it holds"
        raise ValueError(msg)
    if isinstance(value, str):
        return _plain_str(value, path)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _plain_int(value, path)
    if isinstance(value, float):
        return _plain_float(value, path)
    if isinstance(value, _NESTS):
        return _plain_nest(value, path, room)
    msg = (
        f"{_spelled(path)} must be what JSON has (str, int, float, bool, None, list, dict), "
        f"not {type(value).__name__}"
    )
    raise TypeError(msg)


def _plain_nest(value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: _Path, room: Iterator[int]) -> Any:
    if len(path) >= METADATA_DEPTH_MAX:
        msg = f"metadata must be nested at most {METADATA_DEPTH_MAX} levels deep, not as {_spelled(path)} is"
        raise ValueError(msg)
    if isinstance(value, dict):
        return {_key(key, path): _plain(item, (*path, key), room) for key, item in value.items()}
    return [_plain(item, (*path, index), room) for index, item in enumerate(value)]


def _key(key: object, path: _Path) -> str:
    if not isinstance(key, str):
        msg = f"{_spelled(path)} must have str keys, not {type(key).__name__} ({short(key)})"
        raise TypeError(msg)
    return _plain_str(key, (*path, key))


def _plain_str(value: str, path: _Path) -> str:
    if not value.isascii() and not has_utf8(value):
        raise ValueError(surrogate_text(_spelled(path), value))
    return str.__str__(value)


def _plain_int(value: int, path: _Path) -> int:
    if not _INT64_MIN <= value <= _UINT64_MAX:
        msg = f"{_spelled(path)} must be an int from -2**63 to 2**64 - 1, not {short(value)}"
        raise ValueError(msg)
    return int(value)


def _plain_float(value: float, path: _Path) -> float:
    if not math.isfinite(value):
        msg = f"{_spelled(path)} must be a finite number, not {short(value)}"
        raise ValueError(msg)
    return float(value)


def _spelled(path: _Path) -> str:
    return "metadata" + "".join(f"[{short(step)}]" for step in path)


def _pack_decimal(value: object) -> msgpack.ExtType:
    return msgpack.ExtType(DECIMAL_CODE, str(value).encode())


def _unpack_ext(code: int, data: bytes) -> Decimal:
    if code != DECIMAL_CODE or len(data) > _DECIMAL_BYTES_MAX:
        msg = f"unknown extension {code}"
        raise ValueError(msg)
    return Decimal(data.decode("ascii"))
