"""Exact numbers: JSON in and out without binary floats, and sums that never round.

Rule 1: a number that came in as JSON text is never held in a float here.
Rule 2: a sum that would round raises instead.
"""

from __future__ import annotations

import json
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from typing import Any, Final, NoReturn

#: Digits of one quantity at most, on either side of its point: beyond any event that can be tracked.
QUANTITY_DIGITS_MAX: Final = 60

# Made once: json.dumps makes an encoder a call, which costs more than the encoding.
_COMPACT: Final = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
_BEYOND: Final[int] = 10**QUANTITY_DIGITS_MAX
# Twice the digits of one quantity, and room for sums of 10**80 of them.
_EXACTLY: Final = Context(
    prec=2 * QUANTITY_DIGITS_MAX + 80, traps=[DivisionByZero, Inexact, InvalidOperation, Overflow]
)


def loads(text: bytes) -> Any:
    """Parse JSON; fractions become Decimal.

    Raises:
        ValueError: When it is not JSON (RFC 8259): NaN and infinity are not, nor is text beyond UTF-8.
    """
    try:
        return json.loads(text.decode(), parse_float=Decimal, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def dumps(value: Any) -> str:
    """Write what `loads` gave as compact ASCII JSON, numbers with the digits they came with."""
    try:
        return _COMPACT.encode(value)
    except TypeError:
        # The standard encoder can't be told to write a Decimal, and is several times faster without one.
        return _dumps_decimals(value)


def _dumps_decimals(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, dict):
        pairs = (f"{_COMPACT.encode(key)}:{_dumps_decimals(held)}" for key, held in value.items())
        return "{" + ",".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_dumps_decimals, value)) + "]"
    return _COMPACT.encode(value)


def plain(value: int | Decimal) -> str:
    """Write a number in its one plain form: no exponent, no zeros that say nothing."""
    if isinstance(value, int):
        return str(value)
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def is_within_digits(value: int | Decimal) -> bool:
    """Whether a finite number has no more digits, before and after its point, than can be summed."""
    if isinstance(value, int):
        return abs(value) < _BEYOND
    # Its smallest digit's place; that of infinity and the like, which `loads` never gives, is a letter.
    lowest = int(value.as_tuple().exponent)
    return lowest >= -QUANTITY_DIGITS_MAX and value.adjusted() < QUANTITY_DIGITS_MAX


def add(left: str, right: str) -> str:
    """Add two plain numbers exactly.

    Raises:
        decimal.Inexact: If the sum has more digits than can be held, which would take 10**80 rows.
    """
    if left.isdecimal() and right.isdecimal():
        return str(int(left) + int(right))
    return plain(_EXACTLY.add(Decimal(left), Decimal(right)))
