"""Values that people pass and JSON does not have: what becomes of each.

Rule 1: the same value becomes the same text or number in every process, whatever its hash seed or time zone.
Rule 2: nothing is imported for it: a type is known by the name of its class, or of one that it comes from.
Rule 3: no value is rounded; what has no exact form is refused.
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, SupportsIndex

from settle_mp.core.text import short

if TYPE_CHECKING:
    from collections.abc import Callable

#: Digits of a Decimal in metadata: Python's own precision is 28.
DECIMAL_DIGITS_MAX: Final = 50
#: Powers of ten that a Decimal in metadata may reach down and up: those of a float.
DECIMAL_POWER_MIN: Final = -324
DECIMAL_POWER_MAX: Final = 308
#: Integers that msgpack has.
INT_MIN: Final = -(2**63)
INT_MAX: Final = 2**64 - 1

#: Stands for the form of what has none.
NO_FORM: Final = object()

#: Decimal places of a Fraction, as of any quantity.
_PLACES_MAX: Final = 27


def known_form(value: object) -> object:
    """What a value of a known type becomes, maybe with more such values inside; NO_FORM for any other."""
    for cls in type(value).__mro__:
        form = _FORMS.get((cls.__module__, cls.__qualname__))
        if form is not None:
            return form(value)
    fields = getattr(type(value), "__dataclass_fields__", None)
    if isinstance(fields, dict):
        # Class variables stand there as well, marked so by dataclasses.
        return {name: getattr(value, name) for name, field in fields.items() if _is_field(field)}
    return NO_FORM


def plain_number(value: Decimal) -> int | float | Decimal:
    """A Decimal as the plainest number that is exactly it: an int, a float that prints so, or itself.

    Raises:
        ValueError: When it is not finite, or has more digits or a larger power than can be carried.
    """
    value = Decimal(value)  # none of a subclass, with a text of its own
    if not value.is_finite():
        raise ValueError(f"must be a finite number, not {short(value)}")
    digits, exponent = value.as_tuple().digits, int(value.as_tuple().exponent)
    power = exponent + len(digits) - 1
    if len(digits) > DECIMAL_DIGITS_MAX or exponent < DECIMAL_POWER_MIN or power > DECIMAL_POWER_MAX:
        raise ValueError(
            f"must be a Decimal of at most {DECIMAL_DIGITS_MAX} digits between 1E{DECIMAL_POWER_MIN} and "
            f"1E{DECIMAL_POWER_MAX}, not {short(value)}"
        )
    text = format(value, "f")
    whole, _, fraction = text.partition(".")
    if not fraction.strip("0"):
        number = int(whole)
        return number if INT_MIN <= number <= INT_MAX else Decimal(number)
    nearest = float(text)
    if Decimal(repr(nearest)) == value:
        return nearest
    return Decimal(text.rstrip("0"))


def number_of(value: object) -> object:
    """A number of another kind (a Fraction, a numpy scalar) as Python's own; anything else as it is.

    Raises:
        ValueError: For a Fraction without an exact decimal.
    """
    for cls in type(value).__mro__:
        name = (cls.__module__, cls.__qualname__)
        if name == ("numpy", "generic"):
            return _numpy_scalar(value)
        if name == ("fractions", "Fraction"):
            return _fraction(value)
    return value.__index__() if isinstance(value, SupportsIndex) else value


def set_order(plain: Any) -> tuple[int, Any, str]:
    """Where a plain value of a set stands in the list that it becomes: numbers, then text, then the rest."""
    if isinstance(plain, str):
        return 1, 0, plain
    if isinstance(plain, int | float | Decimal) and not isinstance(plain, bool):
        return 0, Decimal(repr(plain)) if isinstance(plain, float) else plain, ""
    return 2, 0, repr(plain)


def _is_field(field: Any) -> bool:
    return getattr(getattr(field, "_field_type", None), "name", "") == "_FIELD"


def _datetime(value: Any) -> str:
    # RFC 3339 has Z for UTC. One without a time zone stays without: whose it is only the application knows.
    text: str = value.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _iso(value: Any) -> str:
    text: str = value.isoformat()
    return text


def _bytes(value: Any) -> str:
    """Text where it is text (headers, Redis), else base64 that says so."""
    data = bytes(value)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    if text is not None and all(char.isprintable() or char in "\t\r\n" for char in text):
        return text
    return f"base64:{base64.b64encode(data).decode()}"


def _model(value: Any) -> object:
    # The second name is that of pydantic before its version 2.
    return value.model_dump() if hasattr(value, "model_dump") else value.dict()


def _numpy_scalar(value: Any) -> object:
    item = value.item()
    # The shortest text that reads as it: a float32 of 0.1 is no 0.10000000149011612.
    return float(str(value)) if isinstance(item, float) and not isinstance(value, float) else item


def _fraction(value: Any) -> object:
    scaled, rest = divmod(value.numerator * 10**_PLACES_MAX, value.denominator)
    if rest:
        raise ValueError(f"must be a number of at most {_PLACES_MAX} decimal places, not {value}")
    return value.numerator if value.denominator == 1 else Decimal(f"{scaled}E-{_PLACES_MAX}")


#: By module and name of a class.
_FORMS: Final[dict[tuple[str, str], Callable[[Any], object]]] = {
    ("builtins", "bytes"): _bytes,
    ("builtins", "bytearray"): _bytes,
    ("builtins", "memoryview"): _bytes,
    ("datetime", "datetime"): _datetime,
    ("datetime", "date"): _iso,
    ("datetime", "time"): _datetime,
    ("enum", "Enum"): lambda member: member.value,
    ("uuid", "UUID"): str,
    ("pydantic.main", "BaseModel"): _model,
    ("numpy", "datetime64"): str,
    ("numpy", "timedelta64"): lambda _: NO_FORM,  # a number without its unit would mislead
    ("numpy", "generic"): _numpy_scalar,
}
