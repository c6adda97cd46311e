"""What an event may be, said on both sides of every limit, and its way through bytes."""

from __future__ import annotations

import contextlib
import decimal
import enum
import re
from decimal import Decimal
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.event import (
    DECIMAL_CODE,
    EVENT_TYPE_CHARS_MAX,
    METADATA_BYTES_MAX,
    METADATA_DEPTH_MAX,
    PAYLOAD_BYTES_MAX,
    QUANTITY_MAX,
    QUANTITY_PLACES_MAX,
    USER_ID_CHARS_MAX,
    Event,
    InvalidEventError,
    pack_event,
    unpack_event,
)
from tests.core.strategies import METADATA, NAMES, PAYLOADS, QUANTITIES, exact

NUMBERS_ALLOWED = "an int, float or Decimal from 1E-9 to 1,000,000,000,000"


def through_bytes(
    user_id: object = "u", event_type: object = "E", quantity: object = 1, metadata: object = None
) -> Event:
    """Pack an event and unpack it."""
    return unpack_event(pack_event(user_id, event_type, quantity, metadata))


def refusal(error: type[Exception], **arguments: object) -> str:
    """Track what must be refused, and return the message."""
    with pytest.raises(error) as caught:
        through_bytes(**arguments)
    # Not a subclass: a UnicodeEncodeError is a ValueError too, and names no argument.
    assert caught.type is error
    return str(caught.value)


def typed(value: Any) -> Any:
    """A value beside its type, all the way down: Python's == takes True for 1 and 1.0."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [typed(item) for item in value]
    return type(value), repr(value)


def nested(levels: int) -> dict[str, Any]:
    """Metadata of that many levels, a dict and lists in it."""
    inner: list[Any] = []
    for _ in range(levels - 2):
        inner = [inner]
    return {"a": inner}


def metadata_of(bytes_count: int) -> dict[str, str]:
    """Metadata whose encoding takes exactly that many bytes."""
    return {"a": "x" * (bytes_count - 6)}


@given(NAMES, NAMES, QUANTITIES, METADATA)
def test_an_accepted_event_comes_back_equal(
    user_id: str, event_type: str, quantity: float | Decimal, metadata: dict[str, Any] | None
) -> None:
    """What was packed is unpacked: names, the exact quantity, and metadata down to the types."""
    event = through_bytes(user_id, event_type, quantity, metadata)
    assert (event.user_id, event.event_type) == (user_id, event_type)
    assert event.quantity == exact(quantity)
    assert type(event.quantity) is (int if type(quantity) is int else Decimal)
    assert typed(event.metadata) == typed(metadata)


@given(PAYLOADS)
def test_an_unpacked_event_packs_into_the_same_event(payload: bytes) -> None:
    """Rule 2 holds for what comes out as well: nothing that was accepted is refused later."""
    event = unpack_event(payload)
    again = unpack_event(pack_event(event.user_id, event.event_type, event.quantity, event.metadata))
    assert again.quantity == event.quantity
    assert typed(again.metadata) == typed(event.metadata)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_invalid(data: bytes) -> None:
    """Decoding raises InvalidEventError and nothing else, whatever the bytes."""
    try:
        unpack_event(data)
    except InvalidEventError as error:
        assert str(error)  # noqa: PT017  most examples raise, and none has to


@given(PAYLOADS, st.data())
def test_mutated_events_are_an_event_or_invalid(payload: bytes, data: st.DataObject) -> None:
    """The same for bytes that were an event before some of them were changed or cut away."""
    mutated = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(mutated)))
    with contextlib.suppress(InvalidEventError):
        unpack_event(bytes(mutated[:end]))


@given(st.recursive(st.binary() | st.text() | st.floats() | st.integers(-5, 5), st.lists, max_leaves=6))
def test_any_msgpack_value_is_an_event_or_invalid(value: object) -> None:
    """The same for well-formed msgpack of any other shape."""
    with contextlib.suppress(InvalidEventError):
        unpack_event(msgpack.packb(["u", "E", value, value]))


@pytest.mark.parametrize(
    "fields",
    [
        {"a": 1},
        ["u", "E", 1],
        ["u", "E", 1, None, None],
        [1, "E", 1, None],
        ["u", b"E", 1, None],
        ["u", "E", True, None],
        ["u", "E", 0, None],
        ["u", "E", -1, None],
        ["u", "E", QUANTITY_MAX + 1, None],
        ["", "E", 1, None],
        ["u", "", 1, None],
        ["u", "E", 1, "a"],
        ["u", "E", 1, {"a": 1, "settle_mp": 1}],
        ["u", "E", float("nan"), None],
        ["u", "E", float("inf"), None],
        ["u", "E", 1, []],
        ["u", "E", 1, {"a": b"bytes"}],
        ["u", "E", 1, {b"a": 1}],
        ["u", "E", 1, {"settle_mp": 1}],
        ["u", "E", 1, {"a": float("nan")}],
        ["u", "E", 1, {"a": msgpack.ExtType(DECIMAL_CODE, b"1.5")}],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"NaN"), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"sNaN"), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"Infinity"), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"1E+999999"), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"many"), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"\xff"), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE, b"1" + b"0" * 64), None],
        ["u", "E", msgpack.ExtType(DECIMAL_CODE + 1, b"1"), None],
        ["u", "E", msgpack.Timestamp(1), None],
        ["u", "E", 1, nested(METADATA_DEPTH_MAX + 1)],
        ["u", "E", 1, metadata_of(METADATA_BYTES_MAX + 1)],
        ["u" * (USER_ID_CHARS_MAX + 1), "E", 1, None],
        ["u", "E" * (EVENT_TYPE_CHARS_MAX + 1), 1, None],
    ],
)
def test_decoding_holds_every_limit_again(fields: object) -> None:
    """Bytes from a journal are held to what `pack_event` accepts: another version may have written them."""
    with pytest.raises(InvalidEventError):
        unpack_event(msgpack.packb(fields))


def test_trailing_bytes_are_not_an_event() -> None:
    """An event ends where its bytes end."""
    with pytest.raises(InvalidEventError, match="not msgpack"):
        unpack_event(pack_event("u", "E", 1, None) + b"\x01")


# --- names ---


@pytest.mark.parametrize(("argument", "chars_max"), [("user_id", 256), ("event_type", 128)])
@pytest.mark.parametrize("char", ["x", "é", "\U0001f600"])
def test_a_name_has_a_longest_length(argument: str, chars_max: int, char: str) -> None:
    """The longest name is taken and one character more is refused, in characters and not in bytes."""
    assert getattr(through_bytes(**{argument: char * chars_max}), argument) == char * chars_max
    assert (
        refusal(ValueError, **{argument: char * (chars_max + 1)})
        == f"{argument} must have 1 to {chars_max} characters, not {chars_max + 1}"
    )


@pytest.mark.parametrize(("argument", "chars_max"), [("user_id", 256), ("event_type", 128)])
def test_a_name_has_a_character(argument: str, chars_max: int) -> None:
    """One character is a name, none is not."""
    assert getattr(through_bytes(**{argument: "x"}), argument) == "x"
    assert refusal(ValueError, **{argument: ""}) == f"{argument} must have 1 to {chars_max} characters, not 0"


@pytest.mark.parametrize(("argument", "chars_max"), [("user_id", 256), ("event_type", 128)])
@pytest.mark.parametrize(
    ("value", "kind"), [(None, "NoneType"), (7, "int"), (b"u", "bytes"), (["u"], "list")]
)
def test_a_name_is_a_str(argument: str, chars_max: int, value: object, kind: str) -> None:
    """Anything but a str is refused by a message that names argument, kind and what is allowed."""
    assert (
        refusal(TypeError, **{argument: value})
        == f"{argument} must be a str of 1 to {chars_max} characters, not {kind}"
    )


@pytest.mark.parametrize("argument", ["user_id", "event_type"])
def test_a_name_is_unicode_text(argument: str) -> None:
    """A lone surrogate cannot be sent as UTF-8; the message shows it in a form that can be printed."""
    wanted = rf"{argument} must be valid Unicode text; 'a\ud800' holds a lone surrogate"
    assert refusal(ValueError, **{argument: "a\ud800"}) == wanted


def test_a_str_enum_is_packed_as_its_text() -> None:
    """A user's subclass of str leaves as plain text, whatever its own __str__ says."""

    class AppEvent(str, enum.Enum):
        AI_QUERY = "AI_QUERY"

    event = through_bytes(event_type=AppEvent.AI_QUERY, metadata={"a": AppEvent.AI_QUERY})
    assert (event.event_type, type(event.event_type)) == ("AI_QUERY", str)
    assert event.metadata == {"a": "AI_QUERY"}


# --- quantity ---


@pytest.mark.parametrize(
    "quantity",
    [
        1,
        QUANTITY_MAX,
        1e-9,
        0.1,
        1e12,
        Decimal("1E-9"),
        Decimal("1E-27") + 1,
        Decimal(QUANTITY_MAX),
        Decimal("1E+12"),
        Decimal("999999999999." + "9" * QUANTITY_PLACES_MAX),
    ],
)
def test_quantities_within_the_range_are_taken_exactly(quantity: float | Decimal) -> None:
    """Both ends of the range, in each kind of number."""
    assert through_bytes(quantity=quantity).quantity == exact(quantity)


@pytest.mark.parametrize(
    ("quantity", "shown"),
    [
        (0, "0"),
        (-1, "-1"),
        (QUANTITY_MAX + 1, "1000000000001"),
        (0.0, "0.0"),
        (-0.5, "-0.5"),
        (9.999999999999999e-10, "9.999999999999999e-10"),
        (1000000000000.0001, "1000000000000.0001"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (float("-inf"), "-inf"),
        (Decimal(0), "Decimal('0')"),
        (Decimal("-0.5"), "Decimal('-0.5')"),
        (Decimal("9.9E-10"), "Decimal('9.9E-10')"),
        (Decimal("1000000000000.1"), "Decimal('1000000000000.1')"),
        (Decimal("NaN"), "Decimal('NaN')"),
        (Decimal("sNaN"), "Decimal('sNaN')"),
        (Decimal("Infinity"), "Decimal('Infinity')"),
        (Decimal("1E+999999"), "Decimal('1E+999999')"),
        (Decimal("1" * 50), "Decimal('1111111111111111111111111111..."),
    ],
)
def test_quantities_beyond_the_range_are_refused(quantity: object, shown: str) -> None:
    """Zero, negative, too small, too large, infinite and NaN: refused with the value and the range."""
    assert refusal(ValueError, quantity=quantity) == f"quantity must be {NUMBERS_ALLOWED}, not {shown}"


def test_an_int_too_long_to_print_is_refused_like_any_other() -> None:
    """Python ends the repr of more than 4,300 digits with an error of its own; ours names the quantity."""
    message = refusal(ValueError, quantity=10**5000)
    assert message.startswith(f"quantity must be {NUMBERS_ALLOWED}, not ")
    assert len(message) < 150


@pytest.mark.parametrize(
    ("quantity", "kind"), [(True, "bool"), ("1", "str"), (None, "NoneType"), (1j, "complex"), ([1], "list")]
)
def test_a_quantity_is_a_number(quantity: object, kind: str) -> None:
    """A bool is no quantity, nor is anything else that is not an int, float or Decimal."""
    assert refusal(TypeError, quantity=quantity) == f"quantity must be {NUMBERS_ALLOWED}, not {kind}"


def test_a_decimal_has_a_longest_fraction() -> None:
    """27 places are taken to the last one, 28 are refused rather than rounded."""
    longest = Decimal("0." + "1" * QUANTITY_PLACES_MAX)
    assert through_bytes(quantity=longest).quantity == longest
    assert (
        refusal(ValueError, quantity=Decimal("0." + "1" * 28))
        == "quantity must have at most 27 decimal places, not 28"
    )


@pytest.mark.parametrize(
    "context",
    [
        decimal.Context(prec=3),
        decimal.Context(prec=3, traps=[decimal.Inexact, decimal.Rounded, decimal.FloatOperation]),
        decimal.Context(prec=3, traps=[], capitals=0, Emax=2, Emin=-2),
    ],
    ids=["short", "trapping", "narrow"],
)
@pytest.mark.parametrize(
    "quantity", [0.1234567890123456, 123456789, Decimal("1.0000000001"), Decimal("1E-9"), 1e-9]
)
def test_the_applications_decimal_context_changes_nothing(
    context: decimal.Context, quantity: float | Decimal
) -> None:
    """Neither precision nor traps of the caller's context reach an event."""
    wanted = exact(quantity)
    with decimal.localcontext(context):
        event = through_bytes(quantity=quantity)
        assert "quantity must be" in refusal(ValueError, quantity=1e300)
    assert str(event.quantity).upper() == str(wanted)


def test_subclasses_of_numbers_are_packed_as_numbers() -> None:
    """What looks like an int or a float to Python is one in the bytes (numpy's float64 is a float)."""

    class Level(enum.IntEnum):
        TWO = 2

    class Ratio(float):
        def __repr__(self) -> str:
            return "Ratio"

    class Money(Decimal):
        def __str__(self) -> str:
            return "EUR"

    assert typed(through_bytes(quantity=Level.TWO).quantity) == typed(2)
    assert through_bytes(quantity=Ratio(0.1)).quantity == Decimal("0.1")
    assert through_bytes(quantity=Money("0.3")).quantity == Decimal("0.3")
    assert typed(through_bytes(metadata={"a": Level.TWO, "b": Ratio(0.5)}).metadata) == typed(
        {"a": 2, "b": 0.5}
    )


# --- metadata ---


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


@pytest.mark.parametrize(
    ("value", "kind"), [(b"x", "bytes"), ({1}, "set"), (Decimal(1), "Decimal"), (1j, "complex")]
)
def test_metadata_hold_what_json_has(value: object, kind: str) -> None:
    """Any other kind is refused with the path to it."""
    allowed = "what JSON has (str, int, float, bool, None, list, dict)"
    assert (
        refusal(TypeError, metadata={"a": {"b": [0, value]}})
        == f"metadata['a']['b'][1] must be {allowed}, not {kind}"
    )


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
    assert len(refusal(TypeError, metadata={"k" * 100_000: object()})) < 200


def test_tuples_become_lists() -> None:
    """As in JSON."""
    assert through_bytes(metadata={"a": (1, (2,))}).metadata == {"a": [1, [2]]}


def test_packing_leaves_the_callers_metadata_alone() -> None:
    """Checking copies; what the user holds is not touched."""
    inner: dict[str, Any] = {"b": (1,)}
    metadata = {"a": inner}
    pack_event("u", "E", 1, metadata)
    assert metadata == {"a": {"b": (1,)}}
    assert metadata["a"] is inner


def test_the_largest_event_fits_the_payload_bound() -> None:
    """PAYLOAD_BYTES_MAX bounds each accepted event, and is not much more than the largest needs."""
    widest = "\U0001f600"
    quantity = Decimal("123456789012." + "1" * QUANTITY_PLACES_MAX)
    payload = pack_event(
        widest * USER_ID_CHARS_MAX, widest * EVENT_TYPE_CHARS_MAX, quantity, metadata_of(METADATA_BYTES_MAX)
    )
    assert PAYLOAD_BYTES_MAX - 128 < len(payload) <= PAYLOAD_BYTES_MAX
