"""An event: what `track()` accepts, its limits, and how it looks as bytes.

Rule 1: every limit of an event stands in this file, those of its metadata in `metadata`.
Rule 2: whatever `pack_event` accepts, `unpack_event` gives back equal, in any process.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NamedTuple

from settle_mp.core.metadata import METADATA_BYTES_MAX, checked_metadata, is_flat, plain_metadata
from settle_mp.core.packing import pack, unpack
from settle_mp.core.text import has_utf8, short, surrogate_text
from settle_mp.core.values import number_of

#: Characters of a user id. Ids in use (UUIDs, e-mail addresses, Auth0 subjects) stay far below.
USER_ID_CHARS_MAX: Final = 256
#: Characters of an event type.
EVENT_TYPE_CHARS_MAX: Final = 128
#: Largest quantity of one event. Sums of 9,000 of the largest still fit the 2**53 - 1 up to which
#: JSON numbers are safe in every reader (RFC 8259, section 6).
QUANTITY_MAX: Final = 10**12
#: Smallest fraction of a unit in one event.
QUANTITY_MIN: Final = Decimal("1e-9")
#: Decimal places of a fraction: enough for every float of at least QUANTITY_MIN.
QUANTITY_PLACES_MAX: Final = 27
#: Bytes of a whole packed event at most: names at 4 bytes a character, metadata, quantity, framing.
PAYLOAD_BYTES_MAX: Final = 4 * (USER_ID_CHARS_MAX + EVENT_TYPE_CHARS_MAX) + METADATA_BYTES_MAX + 128
_FIELDS_COUNT = 4
# Floats are held against floats: where the application's decimal context traps FloatOperation, comparing
# a float with a Decimal raises. Both stand within the exact limits (this 1e-9 lies above 10**-9).
_QUANTITY_MIN_FLOAT, _QUANTITY_MAX_FLOAT = 1e-9, 1e12
# Made once: building these for each event takes longer than all of its checks.
_QUANTITY_ALLOWED = f"an int, float or Decimal from {QUANTITY_MIN} to {QUANTITY_MAX:,}"
_NUMBERS = (int, float, Decimal)

Quantity = int | Decimal


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
    amount = _checked_quantity(quantity if isinstance(quantity, _NUMBERS) else _number_of(quantity))
    plain = None if metadata is None else plain_metadata(metadata)
    return pack([user, kind, amount, plain])


def unpack_event(payload: bytes) -> Event:
    """Decode and check what a journal or a frame holds; the inverse of `pack_event`.

    Raises:
        InvalidEventError: When the bytes are not an event within the limits.
    """
    try:
        fields = unpack(payload)
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
        plain = None if metadata is None else checked_metadata(metadata)
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


def _number_of(quantity: object) -> object:
    try:
        return number_of(quantity)
    except ValueError as error:
        raise ValueError(f"quantity {error}") from None


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
