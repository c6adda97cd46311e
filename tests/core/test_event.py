"""What an event may be, said on both sides of every limit, and its way through bytes."""

from __future__ import annotations

import contextlib
import decimal
import enum
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.event import (
    EVENT_TYPE_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    QUANTITY_MAX,
    QUANTITY_PLACES_MAX,
    USER_ID_CHARS_MAX,
    InvalidEventError,
    pack_event,
    unpack_event,
)
from settle_mp.core.metadata import METADATA_BYTES_MAX, METADATA_DEPTH_MAX
from settle_mp.core.packing import DECIMAL_CODE
from tests.core.packed import metadata_of, nested, refusal, through_bytes, typed
from tests.core.strategies import METADATA, NAMES, PAYLOADS, QUANTITIES, exact

NUMBERS_ALLOWED = "an int, float or Decimal from 1E-9 to 1,000,000,000,000"


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
        ["u", "E", 1, {"a": msgpack.ExtType(DECIMAL_CODE, b"NaN")}],
        ["u", "E", 1, {"a": msgpack.ExtType(DECIMAL_CODE, b"1E+309")}],
        ["u", "E", 1, {"a": msgpack.Timestamp(1)}],
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
    ("quantity", "kind"),
    [(True, "bool"), (np.True_, "bool"), ("1", "str"), (None, "NoneType"), (1j, "complex"), ([1], "list")],
)
def test_a_quantity_is_a_number(quantity: object, kind: str) -> None:
    """A bool is no quantity, nor is anything else that is not an int, float or Decimal."""
    assert refusal(TypeError, quantity=quantity) == f"quantity must be {NUMBERS_ALLOWED}, not {kind}"


@pytest.mark.parametrize(
    ("quantity", "exactly"),
    [
        (np.int64(5), 5),
        (np.uint8(5), 5),
        (np.float64(0.1), Decimal("0.1")),
        (np.float32(0.1), Decimal("0.1")),
        (np.float32(1.5), Decimal("1.5")),
        (Fraction(3, 2), Decimal("1.5")),
        (Fraction(4, 2), 2),
        (Fraction(1, 10**9), Decimal("1e-9")),
        (Fraction(5, 2**27), Decimal("3.7252902984619140625E-8")),
    ],
)
def test_numbers_of_other_kinds_are_taken_as_what_they_are(quantity: object, exactly: int | Decimal) -> None:
    """Without what binary fractions add: a float32 of 0.1 is a tenth."""
    found = through_bytes(quantity=quantity).quantity
    assert (found, type(found)) == (exactly, type(exactly))


@pytest.mark.parametrize(
    ("quantity", "words"),
    [
        (Fraction(1, 3), "quantity must be a number of at most 27 decimal places, not 1/3"),
        (Fraction(1, 2**28), "quantity must be a number of at most 27 decimal places"),
        (Fraction(-1, 2), f"quantity must be {NUMBERS_ALLOWED}, not Decimal"),
        (Fraction(10**13), f"quantity must be {NUMBERS_ALLOWED}, not 10000000000000"),
        (np.int64(0), f"quantity must be {NUMBERS_ALLOWED}, not 0"),
        (np.float32("nan"), f"quantity must be {NUMBERS_ALLOWED}, not nan"),
    ],
)
def test_numbers_of_other_kinds_have_the_same_bounds(quantity: object, words: str) -> None:
    """What has no end as a decimal is refused rather than rounded."""
    assert refusal(ValueError, quantity=quantity).startswith(words)


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


def test_the_largest_event_fits_the_payload_bound() -> None:
    """PAYLOAD_BYTES_MAX bounds each accepted event, and is not much more than the largest needs."""
    widest = "\U0001f600"
    quantity = Decimal("123456789012." + "1" * QUANTITY_PLACES_MAX)
    payload = pack_event(
        widest * USER_ID_CHARS_MAX, widest * EVENT_TYPE_CHARS_MAX, quantity, metadata_of(METADATA_BYTES_MAX)
    )
    assert PAYLOAD_BYTES_MAX - 128 < len(payload) <= PAYLOAD_BYTES_MAX
