"""Frames and control messages: all that is said arrives, and any other bytes are refused by name."""

from __future__ import annotations

import math
from dataclasses import astuple, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args
from zlib import crc32

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.record import HEADER_BYTES, POSITION_MAX, RECORD_BYTES_MAX, TIME_S_MAX
from settle_mp.core.wire import (
    CONTROL_BYTES_MAX,
    FRAME_BODY_BYTES_MAX,
    VERSION,
    Ack,
    Adopt,
    AskPosition,
    Decide,
    Decided,
    Farewell,
    Flush,
    Flushed,
    Frame,
    GoBack,
    Goodbye,
    Hello,
    HostFlush,
    Lost,
    Message,
    Ping,
    Pong,
    Position,
    Refused,
    Welcome,
    WireError,
    decode_frame,
    decode_message,
    encode_frame,
    encode_message,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PRODUCER = bytes(range(16))
LEDGER = bytes(range(16, 32))
FRAME = Frame(producer=PRODUCER, first=1000, base=640, cut_s=1_800_000_000.5, body=b"records")
#: One of each kind, with values at their bounds here and there.
MESSAGES: list[Message] = [
    Hello(PRODUCER, 1000, bytes(HEADER_BYTES), is_volatile=True),
    Flush(PRODUCER, 7, POSITION_MAX, 5.0),
    Position(PRODUCER, 8, 0),
    Goodbye(PRODUCER, 1000, 3, "2.75", is_over=True),
    Lost(PRODUCER, 1000, 1200, "200 bytes at position 1000 can't be read"),
    Farewell(),
    HostFlush(9, 0.0),
    Decide(10, "retry", 1, POSITION_MAX),
    Adopt(11, PRODUCER),
    Decided(10, 3, 120, "12.5", 0, "batch 7 is not held"),
    Ping(),
    Welcome(LEDGER, 1000, is_seen=True),
    Ack(LEDGER, POSITION_MAX),
    GoBack(640),
    Refused("another key's mode: \u201ctest\u201d"),
    Flushed(7, 10, 2, 1, "the upstream refused a row"),
    AskPosition(8),
    Pong(LEDGER, '{"state": "up"}'),
]
EACH_KIND = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)


# --- Frames ---


@given(
    producer=st.binary(min_size=16, max_size=16),
    base=st.integers(0, 2**62),
    offset=st.integers(0, 2**32),
    cut_s=st.floats(0, TIME_S_MAX, exclude_max=True),
    body=st.binary(min_size=1, max_size=300),
)
def test_a_frame_comes_back(producer: bytes, base: int, offset: int, cut_s: float, body: bytes) -> None:
    """All of it."""
    frame = Frame(producer=producer, first=base + offset, base=base, cut_s=cut_s, body=body)
    assert decode_frame(encode_frame(frame)) == frame
    assert frame.last == base + offset + len(body)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: bytes([VERSION]) + data))
def test_any_bytes_are_no_frame(data: bytes) -> None:
    """Whatever comes is refused with WireError and nothing else."""
    with pytest.raises(WireError):
        decode_frame(data)


def test_a_changed_frame_is_refused() -> None:
    """Each bit is covered, the version's included."""
    data = encode_frame(FRAME)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError, match=r"version|checksum"):
            decode_frame(bytes(changed))


def test_a_cut_frame_is_refused() -> None:
    """At each length, also where its checksum is made to fit."""
    data = encode_frame(FRAME)
    for size in range(len(data)):
        with pytest.raises(WireError, match=r"too short|checksum"):
            decode_frame(data[:size])
        if size < len(data) - 4 - len(FRAME.body):
            with pytest.raises(WireError, match=r"too short"):
                decode_frame(data[:size] + crc32(data[:size]).to_bytes(4, "little"))


def test_a_frame_has_room_for_any_record() -> None:
    """Records are never divided."""
    assert FRAME_BODY_BYTES_MAX > RECORD_BYTES_MAX


def test_a_frame_of_another_version_is_refused_by_version() -> None:
    """The reason says which version came and which is spoken here."""
    with pytest.raises(WireError, match=f"^frame version {VERSION + 1}, this side speaks {VERSION}$"):
        decode_frame(bytes([VERSION + 1]) + encode_frame(FRAME)[1:])


@pytest.mark.parametrize(
    "frame",
    [
        replace(FRAME, body=b"x"),
        replace(FRAME, body=bytes(FRAME_BODY_BYTES_MAX)),
        replace(FRAME, base=FRAME.first),
        replace(FRAME, first=0, base=0),
        replace(FRAME, first=POSITION_MAX - len(FRAME.body)),
        replace(FRAME, cut_s=0.0),
        replace(FRAME, cut_s=math.nextafter(TIME_S_MAX, 0)),
    ],
)
def test_frames_within_the_bounds_are_taken(frame: Frame) -> None:
    """The last value on this side of each bound."""
    assert decode_frame(encode_frame(frame)) == frame


@pytest.mark.parametrize(
    "frame",
    [
        replace(FRAME, body=b""),
        replace(FRAME, body=bytes(FRAME_BODY_BYTES_MAX + 1)),
        replace(FRAME, base=FRAME.first + 1),
        replace(FRAME, first=POSITION_MAX - len(FRAME.body) + 1),
        replace(FRAME, first=2**64 - 1),
        replace(FRAME, cut_s=-1.0),
        replace(FRAME, cut_s=TIME_S_MAX),
        replace(FRAME, cut_s=math.nan),
        replace(FRAME, cut_s=math.inf),
    ],
)
def test_frames_beyond_a_bound_are_refused(frame: Frame) -> None:
    """The first value on the other side, though the checksum is right."""
    with pytest.raises(WireError, match="out of bounds"):
        decode_frame(encode_frame(frame))


# --- Control messages ---


def test_each_kind_of_message_is_tested() -> None:
    """A new kind cannot be forgotten here."""
    assert {type(message) for message in MESSAGES} == set(get_args(Message))


@EACH_KIND
def test_a_message_comes_back(message: Message) -> None:
    """Each kind, with its fields' types."""
    decoded = decode_message(encode_message(message))
    assert decoded == message
    assert [type(value) for value in astuple(decoded)] == [type(value) for value in astuple(message)]


INT63 = st.integers(0, POSITION_MAX)
IDS = st.binary(min_size=16, max_size=16)
TIMEOUTS = st.floats(0, 1e9)
REASONS = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
ANY_MESSAGE: st.SearchStrategy[Message] = st.one_of(
    st.builds(Hello, IDS, INT63, st.just(bytes(HEADER_BYTES)), st.booleans()),
    st.builds(Flush, IDS, INT63, INT63, TIMEOUTS),
    st.builds(Position, IDS, INT63, INT63),
    st.builds(
        Goodbye,
        IDS,
        INT63,
        INT63,
        st.from_regex(r"[0-9]{1,31}(\.[0-9]{1,27})?", fullmatch=True),
        st.booleans(),
    ),
    st.builds(Lost, IDS, INT63, INT63, REASONS),
    st.builds(Farewell),
    st.builds(HostFlush, INT63, TIMEOUTS),
    st.builds(Welcome, IDS, INT63, st.booleans()),
    st.builds(Ack, IDS, INT63),
    st.builds(GoBack, INT63),
    st.builds(Refused, REASONS),
    st.builds(Flushed, INT63, INT63, INT63, INT63, REASONS),
    st.builds(AskPosition, INT63),
    st.builds(Pong, IDS, REASONS),
)


@given(ANY_MESSAGE)
def test_any_message_comes_back(message: Message) -> None:
    """Whatever the values within the bounds."""
    assert decode_message(encode_message(message)) == message


def decoded_or_none(data: bytes) -> Message | None:
    """The message, or None when it was refused as it should be."""
    try:
        message = decode_message(data)
    except WireError as error:
        assert str(error)  # noqa: PT017  most inputs raise, and none has to
        return None
    for field in fields(message):
        assert type(getattr(message, field.name)).__name__ in (field.type, "int")
    return message


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    """Nothing but WireError, and what is taken has fields of the right types."""
    decoded_or_none(data)


@given(ANY_MESSAGE, st.data())
def test_a_mutated_message_is_a_message_or_refused(message: Message, data: st.DataObject) -> None:
    """The same for messages of which some bytes were changed or cut away."""
    mutated = bytearray(encode_message(message))
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, min(len(mutated), 60) - 1))] = data.draw(st.integers(0, 255))
    decoded_or_none(bytes(mutated[: data.draw(st.integers(0, len(mutated)))]))
    decoded_or_none(bytes(mutated))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@EACH_KIND
@given(data=st.data())
def test_a_field_of_any_value_is_taken_or_refused(message: Message, data: st.DataObject) -> None:
    """One field of a real message replaced by anything that msgpack can say."""
    items = [VERSION, type(message).__name__, *astuple(message)]
    items[data.draw(st.integers(0, len(items) - 1))] = data.draw(VALUES)
    decoded_or_none(msgpack.packb(items))


def wrong(message: Message, change: Callable[[list[Any]], object]) -> str:
    """Why a changed message is refused."""
    items = msgpack.unpackb(encode_message(message))
    change(items)
    with pytest.raises(WireError) as caught:
        decode_message(msgpack.packb(items))
    return str(caught.value)


@EACH_KIND
def test_a_message_with_a_field_too_many_or_too_few_is_refused(message: Message) -> None:
    """By kind and count."""
    kind, count = type(message).__name__, len(fields(message))
    assert wrong(message, lambda items: items.append(1)) == f"{kind} has {count} fields, not {count + 1}"
    if count:
        assert wrong(message, lambda items: items.pop()) == f"{kind} has {count} fields, not {count - 1}"


@EACH_KIND
def test_a_message_of_another_version_is_refused_by_version(message: Message) -> None:
    """The reason says which version came and which is spoken here."""
    reason = wrong(message, partial(replace_item, 0, VERSION + 1))
    assert reason == f"control version {VERSION + 1}, this side speaks {VERSION}"


@pytest.mark.parametrize("version", [True, 1.0, "1", None])
def test_a_version_is_an_int(version: object) -> None:
    """True is no version 1."""
    assert wrong(Ping(), partial(replace_item, 0, version)) == "not a control message"


@pytest.mark.parametrize("kind", ["Frame", "ping", "", None, 1, b"Ping", [], {}])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    """Also one that is not even a name."""
    assert wrong(Ping(), partial(replace_item, 1, kind)) == "a control message of unknown kind"


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x91\x01", b"\x01", b"\x80", msgpack.packb({1: 2})])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Nothing, too short a list, no list."""
    with pytest.raises(WireError):
        decode_message(data)


def test_too_long_a_message_is_refused_unread() -> None:
    """One byte above the bound, though it is well-formed."""
    longest = msgpack.packb([VERSION, "Ping", bytes(CONTROL_BYTES_MAX - 11), None])
    assert len(longest) == CONTROL_BYTES_MAX
    with pytest.raises(WireError, match="Ping has 0 fields"):
        decode_message(longest)
    longer = msgpack.packb([VERSION, "Ping", bytes(CONTROL_BYTES_MAX - 11), None, None])
    with pytest.raises(WireError, match="too long"):
        decode_message(longer)


def replace_item(at: int, value: object, items: list[Any]) -> None:
    """Put another value into a message's list."""
    items[at] = value


BAD_VALUES: dict[str, list[object]] = {
    "bytes": [b"", bytes(15), bytes(17), "x" * 16, None, 1],
    "int": [-1, POSITION_MAX + 1, 1.0, True, "1", None],
    "float": [-1.0, math.nan, math.inf, 2.0**40, True, "1", None],
    "bool": [0, 1, None, "true"],
    "str": [b"x", None, 1, "x" * 4097],
}


@EACH_KIND
def test_each_field_has_a_type_and_bounds(message: Message) -> None:
    """Every field of every kind is refused by name when it is of another type or beyond its bounds."""
    for index, field in enumerate(fields(message)):
        for bad in BAD_VALUES[str(field.type)]:
            reason = wrong(message, partial(replace_item, index + 2, bad))
            assert reason == f"{type(message).__name__}.{field.name} is out of bounds"


@pytest.mark.parametrize("quantity", ["", "NaN", "-1", "1e5", "Infinity", "1.", ".5", "1\n", "9" * 65, "x"])
def test_a_dropped_quantity_is_a_number(quantity: str) -> None:
    """Whoever adds it up gets plain decimal digits or no message."""
    with pytest.raises(WireError, match=r"Goodbye\.dropped_quantity is out of bounds"):
        decode_message(encode_message(Goodbye(PRODUCER, 1, 1, quantity, is_over=False)))


def test_a_header_has_its_whole_length() -> None:
    """Hello carries all of it, not an id's length."""
    for size in (16, HEADER_BYTES - 1, HEADER_BYTES + 1):
        with pytest.raises(WireError, match=r"Hello\.header is out of bounds"):
            decode_message(encode_message(Hello(PRODUCER, 1, bytes(size), is_volatile=False)))


def test_a_whole_timeout_may_be_an_int() -> None:
    """`flush(timeout=5)` is a timeout too."""
    assert decode_message(encode_message(HostFlush(1, 5))) == HostFlush(1, 5)


@pytest.mark.parametrize("char", ["x", "\U0001f600", "\udcff"])
def test_too_long_a_reason_is_clipped(char: str) -> None:
    """An upstream's long text, or one that is no Unicode, must not keep an answer from arriving."""
    data = encode_message(Refused(char * 100_000))
    assert len(data) <= CONTROL_BYTES_MAX
    shown = "?" if char == "\udcff" else char
    assert decode_message(data) == Refused(shown * 4096)
