"""Metadata: what is refused and in which words, and what of them reaches the bytes."""

from __future__ import annotations

import re
from collections import ChainMap, UserDict
from types import MappingProxyType
from typing import Any

import msgpack
import pytest

from settle_mp.core.event import pack_event
from settle_mp.core.metadata import METADATA_BYTES_MAX, METADATA_DEPTH_MAX
from tests.core.packed import metadata_of, nested, refusal, through_bytes, typed


@pytest.mark.parametrize(("metadata", "kind"), [([], "list"), ("a", "str"), (1, "int"), ((), "tuple")])
def test_metadata_are_a_dict(metadata: object, kind: str) -> None:
    """Anything but a dict or None is refused by kind."""
    assert (
        refusal(TypeError, metadata=metadata) == f"metadata must be a dict with str keys, or None, not {kind}"
    )


def test_metadata_have_a_largest_size() -> None:
    """8,192 encoded bytes are taken, one more is refused with both figures."""
    largest = metadata_of(METADATA_BYTES_MAX)
    assert len(msgpack.packb(largest)) == METADATA_BYTES_MAX
    assert through_bytes(metadata=largest).metadata == largest
    assert (
        refusal(ValueError, metadata=metadata_of(METADATA_BYTES_MAX + 1))
        == "metadata must encode to at most 8,192 bytes, not 8,193"
    )


def test_metadata_have_a_largest_depth() -> None:
    """16 levels are taken, a 17th is refused by the path to it."""
    assert through_bytes(metadata=nested(METADATA_DEPTH_MAX)).metadata == nested(METADATA_DEPTH_MAX)
    assert refusal(ValueError, metadata=nested(METADATA_DEPTH_MAX + 1)).startswith(
        "metadata must be nested at most 16 levels deep, not as metadata['a'][0]"
    )


def test_metadata_that_hold_themselves_are_refused() -> None:
    """A circle ends at the depth limit."""
    circle: dict[str, Any] = {}
    circle["a"] = circle
    assert "16 levels" in refusal(ValueError, metadata=circle)


def test_metadata_that_share_much_are_refused_at_once() -> None:
    """Lists that hold each other many times over would take 10**14 steps to walk: their size ends it."""
    wide: list[Any] = [1] * 10
    for _ in range(13):
        wide = [wide] * 10
    assert refusal(ValueError, metadata={"a": wide}).startswith("metadata must encode to at most 8,192 bytes")


def test_as_many_values_as_bytes_are_taken() -> None:
    """The walk's own bound refuses nothing that the size allows: one-byte values up to the last byte."""
    values = [1] * (METADATA_BYTES_MAX - 6)
    metadata = {"a": values}
    assert len(msgpack.packb(metadata)) == METADATA_BYTES_MAX
    assert through_bytes(metadata=metadata).metadata == metadata


@pytest.mark.parametrize("value", [-(2**63), 2**64 - 1])
def test_ints_in_metadata_have_64_bits(value: int) -> None:
    """The ends of msgpack's integers are taken, one beyond is refused with the range."""
    assert through_bytes(metadata={"a": value}).metadata == {"a": value}
    beyond = value + (1 if value > 0 else -1)
    assert re.fullmatch(
        r"metadata\['a'\] must be an int from -2\*\*63 to 2\*\*64 - 1, not -?\d+",
        refusal(ValueError, metadata={"a": beyond}),
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floats_in_metadata_are_finite(value: float) -> None:
    """JSON has no NaN and no infinity."""
    assert re.fullmatch(
        r"metadata\['a'\] must be a finite number, not (nan|-?inf)",
        refusal(ValueError, metadata={"a": value}),
    )


@pytest.mark.parametrize(("value", "kind"), [(1j, "complex"), (object(), "object"), (int, "type")])
def test_metadata_hold_what_can_be_carried(value: object, kind: str) -> None:
    """Any other kind is refused with the path to it and with all that there is."""
    for metadata, path in (
        ({"a": {"b": [0, value]}}, "['a']['b'][1]"),
        ({"a": {"b": (0, {"c": value})}}, "['a']['b'][1]['c']"),
    ):
        message = refusal(TypeError, metadata=metadata)
        assert message.startswith(
            f"metadata{path} must be what JSON has (str, int, float, bool, None, list, dict)"
        )
        assert message.endswith(f", not {kind}")
        for name in ("datetime", "Decimal", "UUID", "Enum", "bytes", "set", "dataclass", "pydantic", "numpy"):
            assert name in message


class Unprintable:
    """A key whose repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (1, r"int \(1\)"),
        (None, r"NoneType \(None\)"),
        (("x",) * 50, r"tuple \(\('x', .{30,40}\.\.\.\)"),
        (Unprintable(), r"Unprintable \(a value of type Unprintable\)"),
    ],
)
def test_keys_of_metadata_are_str(key: object, shown: str) -> None:
    """At any level, with the path to the dict; a key's own repr can't make it fail otherwise."""
    assert re.fullmatch(rf"metadata must have str keys, not {shown}", refusal(TypeError, metadata={key: 1}))
    assert re.fullmatch(
        rf"metadata\['a'\]\[0\] must have str keys, not {shown}",
        refusal(TypeError, metadata={"a": [{key: 1}]}),
    )


@pytest.mark.parametrize("metadata", [{"a": "\udfff"}, {"a\udfff": 1}, {"b": [{"a\udfff": 1}]}])
def test_text_in_metadata_is_unicode(metadata: dict[str, Any]) -> None:
    """Lone surrogates are refused in values and keys, with a message that can be printed."""
    message = refusal(ValueError, metadata=metadata)
    assert re.match(r"metadata\[.* must be valid Unicode text", message)
    assert message.isascii()


def test_our_own_name_is_reserved_at_the_top_only() -> None:
    """`settle_mp` is where a row's annotation stands; deeper it is anybody's."""
    assert refusal(ValueError, metadata={"settle_mp": 1}).startswith("metadata['settle_mp'] is reserved")
    assert through_bytes(metadata={"a": {"settle_mp": 1}}).metadata == {"a": {"settle_mp": 1}}


def test_long_keys_make_short_messages() -> None:
    """A message repeats at most some 40 characters of each key on the path."""
    assert len(refusal(TypeError, metadata={"k" * 100_000: object()})) < 300


@pytest.mark.parametrize(
    "given_metadata", [MappingProxyType({"a": {"b": 1}}), ChainMap({"a": UserDict(b=1)})]
)
def test_any_mapping_is_a_dict(given_metadata: Any) -> None:
    """At the top and inside."""
    assert typed(through_bytes(metadata=given_metadata).metadata) == typed({"a": {"b": 1}})


def test_packing_leaves_the_callers_metadata_alone() -> None:
    """Checking copies; what the user holds is not touched."""
    inner: dict[str, Any] = {"b": (1,)}
    metadata = {"a": inner}
    pack_event("u", "E", 1, metadata)
    assert metadata == {"a": {"b": (1,)}}
    assert metadata["a"] is inner
