"""Records and headers: what is written is read back, and nothing else is."""

from __future__ import annotations

import math
import struct
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.event import (
    EVENT_TYPE_CHARS_MAX,
    PAYLOAD_BYTES_MAX,
    USER_ID_CHARS_MAX,
    pack_event,
)
from settle_mp.core.metadata import METADATA_BYTES_MAX
from settle_mp.core.record import (
    EVENT_BYTE,
    HEAD_BYTES,
    HEADER_BYTES,
    NO_LEDGER,
    POSITION_MAX,
    RECORD_BYTES_MAX,
    TIME_S_MAX,
    Identity,
    Slot,
    count_events,
    decode_identity,
    decode_slot,
    encode_identity,
    encode_mark,
    encode_record,
    encode_slot,
    mark_s,
    read_records,
    segment_seed,
    whole_records_bytes,
)
from tests.core.segments import PRODUCER, SEED, event, events, records, segment
from tests.core.strategies import PAYLOADS

LEDGER = bytes(range(16, 32))
TIMES = st.floats(0, TIME_S_MAX, exclude_max=True)
MARKS = st.builds(encode_mark, TIMES)
WRITERS = ("courier", "drops", "collector")
IDENTITY = Identity(
    producer=PRODUCER,
    key_mode="test",
    name="gunicorn",
    host="web-1",
    born_s=1_800_000_000.25,
    facts={"python": "3.12"},
)
SLOT = Slot(
    sequence=1, ledger=LEDGER, position=1000, events_count=10, dropped_count=2, dropped_quantity="2.5"
)


# --- Records ---


@given(st.lists(PAYLOADS | MARKS, max_size=8), st.integers(0, 2**31), st.binary(min_size=16, max_size=16))
def test_records_are_read_back_in_order(payloads: list[bytes], offset: int, producer: bytes) -> None:
    """All payloads come back, and the end is where the last record ends."""
    seed = segment_seed(producer, 1 << 40)
    body = b"".join(records(payloads, offset, seed))
    assert read_records(body, seed, offset) == (payloads, len(body))
    assert read_records(body + bytes(30), seed, offset) == (payloads, len(body))


def test_the_largest_record_is_read_back() -> None:
    """A record's length field holds the largest payload."""
    largest = bytes([EVENT_BYTE]) * PAYLOAD_BYTES_MAX
    body = encode_record(largest, SEED, 0)
    assert len(body) == RECORD_BYTES_MAX
    assert read_records(body, SEED, 0) == ([largest], RECORD_BYTES_MAX)


def test_a_segment_cut_anywhere_gives_its_whole_records() -> None:
    """For each length, what is whole is read and the rest is left for later."""
    payloads = events(6)
    made = records(payloads)
    body = b"".join(made)
    ends = [sum(map(len, made[:count])) for count in range(len(made) + 1)]
    for size in range(len(body) + 1):
        whole = sum(end <= size for end in ends) - 1
        for zeros in (0, 40):
            cut = body[:size] + bytes(zeros)
            # A last byte of zero is there even when it was cut away.
            if len(read_records(cut, SEED, 0)[0]) == whole:
                assert read_records(cut, SEED, 0) == (payloads[:whole], ends[whole])
            else:
                assert body[size : ends[whole + 1]].strip(b"\0") == b""
        assert whole_records_bytes(body[:size]) == ends[whole]
        assert count_events(body[:size]) == whole


def test_a_flipped_bit_ends_the_reading_or_is_harmless() -> None:
    """Reading stops before the record, unless the bit lowers its offset, which changes nothing."""
    payloads = events(4)
    made = records(payloads)
    body = b"".join(made)
    starts = [sum(map(len, made[:count])) for count in range(len(made))]
    for bit in range(8 * len(body)):
        flipped = flip(body, bit)
        number = max(index for index, start in enumerate(starts) if start <= bit // 8)
        is_offset = 6 <= bit // 8 - starts[number] < HEAD_BYTES
        is_lower = is_offset and flipped[bit // 8] < body[bit // 8]
        wanted = payloads if is_lower else payloads[:number]
        assert read_records(flipped, SEED, 0)[0] == wanted


def flip(data: bytes, bit: int) -> bytes:
    """The data with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_records_of_another_producer_or_segment_are_not_read() -> None:
    """The seed holds the producer's secret and the segment's base, so a copied record is none."""
    body = segment(events(2))
    for seed in (segment_seed(LEDGER, 0), segment_seed(PRODUCER, 1), segment_seed(PRODUCER, 65536), 0):
        assert read_records(body, seed, 0) == ([], 0)


def test_a_record_may_stand_later_than_its_writer_saw() -> None:
    """Threads that saw the same end land one behind the other: each is good."""
    body = b"".join(encode_record(payload, SEED, 0) for payload in events(3))
    assert read_records(body, SEED, 0) == (events(3), len(body))


def test_a_record_never_stands_earlier_than_its_writer_saw() -> None:
    """One byte earlier means that something before it is gone."""
    record = encode_record(event(0), SEED, 100)
    assert read_records(record, SEED, 100)[0] == [event(0)]
    assert read_records(record, SEED, 99) == ([], 0)


def test_a_length_of_zero_is_the_end() -> None:
    """Nothing behind the zeros is read, even a good record."""
    body = bytes(HEAD_BYTES) + encode_record(event(0), SEED, 0)
    assert read_records(body, SEED, 0) == ([], 0)
    # A checksum over nothing is the seed itself.
    empty = encode_record(b"", SEED, 0) + encode_record(event(0), SEED, 0)
    assert read_records(empty, SEED, 0) == ([], 0)
    assert count_events(empty) == whole_records_bytes(empty) == 0


@given(st.binary(max_size=300))
def test_any_bytes_can_be_read(data: bytes) -> None:
    """No reader fails, and none goes beyond the data."""
    payloads, end = read_records(data, SEED, 0)
    assert end == sum(HEAD_BYTES + len(payload) for payload in payloads) <= len(data)
    assert end <= whole_records_bytes(data) <= len(data)
    assert count_events(data) <= len(data) // HEAD_BYTES


@given(st.lists(PAYLOADS | MARKS, max_size=8))
def test_events_are_counted_without_decoding(payloads: list[bytes]) -> None:
    """Counting by lengths finds each event, and no mark."""
    events_count = sum(mark_s(payload) is None for payload in payloads)
    assert count_events(segment(payloads, zeros=20)) == events_count


def test_an_event_as_long_as_a_mark_is_counted() -> None:
    """A mark is told by its first byte, not by its length."""
    payload = pack_event("user", "E", 1, None)
    assert len(payload) == len(encode_mark(0.0)) + 1
    payload = pack_event("use", "E", 1, None)
    assert len(payload) == len(encode_mark(0.0))
    assert mark_s(payload) is None
    assert count_events(segment([payload, encode_mark(1.0), payload])) == 2


# --- Time marks ---


@given(TIMES)
def test_a_mark_tells_its_time(at_s: float) -> None:
    """Exactly."""
    assert mark_s(encode_mark(at_s)) == at_s


@given(PAYLOADS)
def test_an_event_is_no_mark(payload: bytes) -> None:
    """Whatever the event."""
    assert payload[0] == EVENT_BYTE
    assert mark_s(payload) is None


@pytest.mark.parametrize("at_s", [-1.0, math.nan, math.inf, -math.inf, TIME_S_MAX, 1e300])
def test_a_mark_that_no_clock_shows_is_time_zero(at_s: float) -> None:
    """What calendars cannot hold would stop whoever makes an hour of it."""
    assert mark_s(encode_mark(at_s)) == 0.0


# --- Headers: identity ---


@given(
    st.builds(
        Identity,
        producer=st.binary(min_size=16, max_size=16),
        key_mode=st.sampled_from(["", "test", "live"]),
        name=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
        host=st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
        born_s=TIMES,
        facts=st.dictionaries(st.text("abc", max_size=40), st.text("abc", max_size=80), max_size=12),
    )
)
def test_an_identity_comes_back(identity: Identity) -> None:
    """From a header of any further content, for any identity of usual size."""
    header = encode_identity(identity)
    assert len(header) == 2048
    assert decode_identity(header + b"\xff" * 2048) == identity


@pytest.mark.parametrize("char", ["x", "é", "\U0001f600", "\udcff"])
def test_too_long_an_identity_is_clipped(char: str) -> None:
    """Whatever a host or a program is called, the identity stays within its part of the header."""
    identity = replace(
        IDENTITY,
        name=char * 999,
        host=char * 999,
        facts={f"{number:02}{char * 99}": char * 999 for number in range(99)},
    )
    header = encode_identity(identity)
    assert len(header) == 2048
    decoded = decode_identity(header)
    assert decoded is not None
    shown = char if char != "\udcff" else "?"
    assert decoded.name == decoded.host == shown * (200 // len(shown.encode()))
    assert len(decoded.facts) == 12
    for key, value in decoded.facts.items():
        assert len(key.encode()) in range(40 - 3, 41)
        assert len(value.encode()) in range(80 - 3, 81)


def test_a_changed_identity_is_none() -> None:
    """Each bit of what was written is covered."""
    header = encode_identity(IDENTITY)
    used = len(header.rstrip(b"\0"))
    for bit in range(8 * used):
        assert decode_identity(flip(header, bit)) is None


@given(st.binary(max_size=100) | st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_garbage_is_no_header(data: bytes) -> None:
    """Any bytes: no identity and empty slots, and no error."""
    assert decode_identity(data) is None
    assert {decode_slot(writer, data) for writer in WRITERS} == {Slot()}


def identity_header(*fields: Any) -> bytes:
    """A header whose checksum is right, whatever the fields are."""
    blob: bytes = msgpack.packb(list(fields))
    whole = encode_identity(IDENTITY)
    return whole[:4] + struct.pack("<HI", len(blob), checksum(blob)) + blob.ljust(2048, b"\0")


def checksum(data: bytes) -> int:
    """The checksum of headers, computed as a bit loop so that it is not the tested code's own (ISO 3309)."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xEDB88320 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    "fields",
    [
        (b"short", "test", "n", "h", 1.0, {}),
        ("sixteen letters!", "test", "n", "h", 1.0, {}),
        (PRODUCER, 1, "n", "h", 1.0, {}),
        (PRODUCER, "Test", "n", "h", 1.0, {}),
        (PRODUCER, "test", None, "h", 1.0, {}),
        (PRODUCER, "test", "n", b"h", 1.0, {}),
        (PRODUCER, "test", "n", "h", "1", {}),
        (PRODUCER, "test", "n", "h", True, {}),
        (PRODUCER, "test", "n", "h", math.nan, {}),
        (PRODUCER, "test", "n", "h", -1.0, {}),
        (PRODUCER, "test", "n", "h", TIME_S_MAX, {}),
        (PRODUCER, "test", "n", "h", 1.0, []),
        (PRODUCER, "test", "n", "h", 1.0, {"a": 1}),
        (PRODUCER, "test", "n", "h", 1.0, {b"a": "b"}),
        (PRODUCER, "test", "n", "h", 1.0),
    ],
)
def test_an_identity_of_wrong_types_is_none(fields: tuple[Any, ...]) -> None:
    """Over a socket the header is a stranger's word; a right checksum does not make it sound."""
    assert decode_identity(identity_header(PRODUCER, "test", "n", "h", 1.0, {"a": "b"})) is not None
    assert decode_identity(identity_header(*fields)) is None


# --- Headers: slots ---


def header_with(*slots: tuple[str, Slot]) -> bytes:
    """A header into which these were written, one after the other."""
    header = bytearray(encode_identity(IDENTITY).ljust(HEADER_BYTES, b"\0"))
    for writer, slot in slots:
        at, data = encode_slot(writer, slot)
        header[at : at + len(data)] = data
    assert len(header) == HEADER_BYTES
    return bytes(header)


INT63 = st.integers(0, POSITION_MAX)
SLOTS = st.builds(
    Slot,
    sequence=st.integers(1, POSITION_MAX),
    ledger=st.binary(min_size=16, max_size=16),
    position=INT63,
    events_count=INT63,
    dropped_count=INT63,
    dropped_quantity=st.from_regex(r"[0-9]{1,36}(\.[0-9]{1,27})?", fullmatch=True),
)


@given(st.lists(SLOTS, min_size=3, max_size=3), st.lists(SLOTS, min_size=3, max_size=3))
def test_each_writer_has_slots_of_its_own(older: list[Slot], newer: list[Slot]) -> None:
    """None hides another's word or the identity, however often each wrote."""
    header = header_with(*zip(WRITERS, older, strict=True), *zip(WRITERS, newer, strict=True))
    for writer, before, after in zip(WRITERS, older, newer, strict=True):
        is_kept = before.sequence % 2 != after.sequence % 2 and before.sequence > after.sequence
        assert decode_slot(writer, header) == (before if is_kept else after)
    assert decode_identity(header) == IDENTITY


def test_a_header_without_slots_has_empty_ones() -> None:
    """Nothing taken, by no ledger, nothing dropped."""
    empty = decode_slot("drops", header_with())
    assert empty == Slot()
    assert (empty.ledger, empty.position, empty.dropped_quantity) == (NO_LEDGER, 0, "0")


@pytest.mark.parametrize("writer", WRITERS)
def test_the_newest_slot_counts(writer: str) -> None:
    """Slots take turns, and the higher sequence is the last word."""
    written: list[tuple[str, Slot]] = []
    for sequence in range(1, 6):
        written.append((writer, replace(SLOT, sequence=sequence, position=sequence * 100)))
        assert decode_slot(writer, header_with(*written)) == written[-1][1]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("sequence", [2, 3])
def test_a_torn_slot_leaves_the_older(writer: str, sequence: int) -> None:
    """Killed at any byte of a slot, in either turn, the one before it is the last word."""
    older = replace(SLOT, sequence=sequence)
    before = header_with((writer, replace(SLOT, sequence=sequence - 1, position=1)), (writer, older))
    newer = replace(SLOT, sequence=sequence + 1, position=2**40, events_count=999, dropped_quantity="7.25")
    at, data = encode_slot(writer, newer)
    seen = set()
    for size in range(len(data) + 1):
        header = before[:at] + data[:size] + before[at + size :]
        seen.add(decode_slot(writer, header))
    assert seen == {older, newer}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_changed_slot_is_none(writer: str) -> None:
    """Each bit of a slot is covered."""
    at, data = encode_slot(writer, SLOT)
    header = header_with((writer, SLOT))
    for bit in range(8 * at, 8 * (at + len(data))):
        assert decode_slot(writer, flip(header, bit)) == Slot()


@pytest.mark.parametrize("name", ["sequence", "position", "events_count", "dropped_count"])
def test_a_slot_beyond_63_bits_is_none(name: str) -> None:
    """A ledger cannot store such a number; the largest that it can is taken."""
    beyond: dict[str, Any] = {name: POSITION_MAX + 1}
    within: dict[str, Any] = {name: POSITION_MAX}
    largest = replace(SLOT, **within)
    assert decode_slot("drops", header_with(("drops", largest))) == largest
    assert decode_slot("drops", header_with(("drops", replace(SLOT, **beyond)))) == Slot()


@pytest.mark.parametrize("quantity", ["", "NaN", "-1", "1e5", "1.", ".5", "1\n", "1_0", " 1"])
def test_a_slot_whose_quantity_is_no_number_is_none(quantity: str) -> None:
    """Only plain decimal digits are a quantity."""
    slot = replace(SLOT, dropped_quantity=quantity)
    assert decode_slot("drops", header_with(("drops", slot))) == Slot()


def test_the_widest_sum_of_drops_fits_a_slot() -> None:
    """2**63 events of the largest quantity and the longest fraction, each dropped, are told exactly."""
    widest = f"{10**12 * 2**63}.{'9' * 27}"
    slot = replace(SLOT, dropped_quantity=widest)
    assert decode_slot("drops", header_with(("drops", slot))).dropped_quantity == widest


def test_the_largest_event_has_a_record() -> None:
    """RECORD_BYTES_MAX holds what `pack_event` can make."""
    payload = pack_event(
        "\U0001f600" * USER_ID_CHARS_MAX,
        "\U0001f600" * EVENT_TYPE_CHARS_MAX,
        1,
        {"a": "x" * (METADATA_BYTES_MAX - 6)},
    )
    record = encode_record(payload, SEED, 0)
    assert len(record) <= RECORD_BYTES_MAX
    assert read_records(record, SEED, 0) == ([payload], len(record))
