"""Exact sums per key, and what the metadata rules make of an event.

Rule 1: integers stay integers; fractions add as decimals; a sum is never rounded.
Rule 2: two events share a key only when user, type and the metadata that the rules leave are equal;
`1`, `1.0` and `true` differ, the order of keys does not matter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact, Overflow, Rounded, localcontext
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from settle_mp.core.event import InvalidEventError, unpack_event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from settle_mp.core.event import Quantity
    from settle_mp.core.rules import MetadataRule

# The widest sum is one of metadata floats: digits from 1e308 down to 5e-324, and 17 of the mantissa.
_EXACT: Final = Context(prec=1100, traps=[Inexact, Overflow, Rounded])


def add(left: Quantity, right: Quantity) -> Quantity:
    """The exact sum; an int when both are."""
    if type(left) is int and type(right) is int:
        return left + right
    return _EXACT.add(Decimal(left), Decimal(right))


def subtract(left: Quantity, right: Quantity) -> Quantity:
    """The exact difference; an int when both are."""
    if type(left) is int and type(right) is int:
        return left - right
    return _EXACT.subtract(Decimal(left), Decimal(right))


def times(quantity: Quantity, count: int) -> Quantity:
    """The exact sum of `count` equal quantities."""
    if type(quantity) is int:
        return quantity * count
    return _EXACT.multiply(Decimal(quantity), Decimal(count))


def total(quantities: Iterable[Quantity]) -> Quantity:
    """The exact sum of many; an int when all are."""
    with localcontext(_EXACT):
        return sum(quantities)


def number_text(quantity: Quantity) -> str:
    """A quantity as JSON and `status` write it: plain decimal digits, no exponent, no trailing zeros."""
    if type(quantity) is int:
        return str(quantity)
    text = format(quantity, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


def parse_number(text: str) -> Quantity:
    """The inverse of `number_text`."""
    return Decimal(text) if "." in text else int(text)


#: What most entries share, and nobody can write to.
_NO_SUMS: Final[Mapping[str, Quantity]] = MappingProxyType({})
_quoted = json.encoder.encode_basestring
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Key(NamedTuple):
    """What must be equal for two events to be added up. `metadata` is canonical JSON, or empty for none."""

    user_id: str
    event_type: str
    metadata: str


class Folded(NamedTuple):
    """One event, ready to be added: its key, its quantity, and the metadata that its rule adds up."""

    key: Key
    quantity: Quantity
    sums: dict[str, Quantity] | None


@dataclass(slots=True)
class Entry:
    """One sum: how many events, how much, and the summed metadata."""

    count: int = 0
    quantity: Quantity = 0
    sums: Mapping[str, Quantity] = field(default_factory=lambda: _NO_SUMS)

    def add(self, event: Folded | Repeats, count: int) -> None:
        """Add `count` events like this one."""
        self.count += count
        self.quantity = add(self.quantity, times(event.quantity, count))
        if event.sums:
            sums = {
                name: add(self.sums.get(name, 0), times(each, count)) for name, each in event.sums.items()
            }
            self.sums = {**self.sums, **sums}


_NOWHERE: Final = Entry()


class Repeats:
    """Events that are alike to the byte: counted as they come, and added to an entry together.

    Equal only to itself.

    Attributes:
        count: How many wait to be added.
        entry: What they are added to.
        window: The token of the entry's window.
    """

    __slots__ = ("count", "entry", "key", "quantity", "sums", "window")

    def __init__(self, folded: Folded) -> None:
        self.key: Key = folded.key
        self.quantity: Quantity = folded.quantity
        self.sums: Mapping[str, Quantity] | None = folded.sums
        self.count: int = 0
        self.entry: Entry = _NOWHERE
        self.window: object = None

    def pour(self) -> None:
        """Add those that wait."""
        count, self.count = self.count, 0
        if count:
            self.entry.add(self, count)


def fold_payload(payload: bytes, rules: Mapping[str, MetadataRule]) -> Folded:
    """Decode one journaled event and apply its type's rule.

    Raises:
        InvalidEventError: When the bytes are no event, or a metadata field to be summed is no number.
    """
    user_id, event_type, quantity, metadata = unpack_event(payload)
    sums: dict[str, Quantity] = {}
    rule = rules.get(event_type) if metadata else None
    if metadata and rule:
        sums = {name: _summable(name, metadata[name]) for name in rule.sum if name in metadata}
        gone = rule.drop | rule.sum
        metadata = {name: value for name, value in metadata.items() if name not in gone}
    # An empty object says no more than none does; kept apart, two rows would read the same upstream.
    text = _canonical(metadata) if metadata else ""
    return Folded(Key(user_id, event_type, text), quantity, sums or None)


def fold_payload_without_rules(payload: bytes) -> Folded:
    """As `fold_payload` for what an earlier setting accepted and today's rules would refuse."""
    return fold_payload(payload, {})


def _canonical(metadata: dict[str, Any]) -> str:
    """JSON text that is equal for equal metadata: keys sorted, no spaces."""
    parts = []
    for name in sorted(metadata):
        value = metadata[name]
        if type(value) is str:
            parts.append(f"{_quoted(name)}:{_quoted(value)}")
        elif type(value) is int:
            parts.append(f"{_quoted(name)}:{value}")
        else:
            return json_text(metadata)
    # Flat text and whole numbers are nearly all there is, and four times as fast without the encoder.
    return f"{{{','.join(parts)}}}"


def json_text(value: Any) -> str:
    """Metadata or any part of them as JSON: keys sorted, no spaces, Decimals as the numbers that they are."""
    try:
        return _ENCODER.encode(value)
    except TypeError:
        # The encoder knows no Decimal, and few metadata have one.
        return _text_with_decimals(value)


def _text_with_decimals(value: Any) -> str:
    if isinstance(value, dict):
        return (
            f"{{{','.join(f'{_quoted(name)}:{_text_with_decimals(value[name])}' for name in sorted(value))}}}"
        )
    if isinstance(value, list):
        return f"[{','.join(map(_text_with_decimals, value))}]"
    return number_text(value) if isinstance(value, Decimal) else _ENCODER.encode(value)


def _summable(name: str, value: object) -> Quantity:
    if type(value) is int or type(value) is Decimal:
        return value
    if type(value) is float:
        return Decimal(repr(value))
    msg = f"metadata[{name!r}] is to be summed and must be a number, not {type(value).__name__}"
    raise InvalidEventError(msg)


def row_text(key: Key, entry: Entry, annotation: str | None) -> str:
    """One row of a batch as JSON text: the user's metadata first and unchanged, then sums, then ours.

    Args:
        key: Whose sum it is.
        entry: The sum.
        annotation: What stands under `metadata.settle_mp`, as JSON text; None leaves it out.
    """
    members = [key.metadata[1:-1]] if key.metadata else []
    members += [f"{json.dumps(name)}:{number_text(value)}" for name, value in sorted(entry.sums.items())]
    if annotation is not None:
        members.append(f'"settle_mp":{annotation}')
    metadata = f',"metadata":{{{",".join(members)}}}' if members else ""
    return (
        f'{{"userId":{_quoted(key.user_id)},"eventType":{_quoted(key.event_type)},'
        f'"quantity":{number_text(entry.quantity)}{metadata}}}'
    )
