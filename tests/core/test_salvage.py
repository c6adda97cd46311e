"""What is read of a dead producer's segment: all that is good, and every loss is told."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.event import PAYLOAD_BYTES_MAX
from settle_mp.core.record import (
    EVENT_BYTE,
    HEAD,
    HEAD_BYTES,
    RECORD_BYTES_MAX,
    encode_mark,
    encode_record,
    segment_seed,
)
from settle_mp.core.salvage import Salvage, Span, salvage
from tests.core.segments import PRODUCER, SEED, event, events, records, segment

if TYPE_CHECKING:
    from collections.abc import Sequence

OFFSET = 640


def starts_of(made: Sequence[bytes]) -> list[int]:
    """Where each record begins, and behind them where the last one ends."""
    return [sum(map(len, made[:count])) for count in range(len(made) + 1)]


def clean(payloads: Sequence[bytes], *, is_torn: bool = False) -> Salvage:
    """All of these, and no damage."""
    return Salvage(payloads=tuple(payloads), spans=(), is_torn=is_torn)


def random_bytes(count: int) -> bytes:
    """The same bytes in each run."""
    return random.Random(1).randbytes(count)  # noqa: S311  noise, not a secret


# --- What is whole ---


@pytest.mark.parametrize("is_last", [True, False])
def test_a_whole_segment_has_no_damage(is_last: bool) -> None:  # noqa: FBT001
    """Everything is read, whether the producer ended here or went on elsewhere."""
    payloads = [encode_mark(1.0), *events(20)]
    assert salvage(segment(payloads), SEED, 0, is_last=is_last) == clean(payloads)


def test_the_zeros_behind_the_last_record_are_no_damage() -> None:
    """A dead producer's last segment is rarely full."""
    assert salvage(segment(events(3), zeros=5000), SEED, 0, is_last=True) == clean(events(3))
    assert salvage(bytes(5000), SEED, 0, is_last=True) == clean([])
    assert salvage(b"", SEED, 0, is_last=False) == clean([])


def test_a_segment_is_read_from_a_position_within() -> None:
    """What was taken as frames is not read again, and offsets are told within the segment."""
    made = records(events(4), OFFSET)
    body = b"".join(made)
    assert salvage(body, SEED, OFFSET, is_last=False) == clean(events(4))
    damaged = made[0] + b"\xff" * len(made[1]) + made[2] + made[3]
    start = OFFSET + len(made[0])
    assert salvage(damaged, SEED, OFFSET, is_last=True).spans == (
        Span(start=start, end=start + len(made[1]), missing_bytes=0),
    )


@given(st.lists(st.integers(0, 400), min_size=1, max_size=10))
def test_interleaved_threads_do_no_damage(lags: list[int]) -> None:
    """A record that its writer meant to stand earlier than it does is as good as any."""
    body = b""
    for number, lag in enumerate(lags):
        body += encode_record(event(number), SEED, max(0, len(body) - lag))
    for is_last in (True, False):
        assert salvage(body, SEED, 0, is_last=is_last) == clean([event(n) for n in range(len(lags))])


# --- What is torn ---


def test_a_last_segment_cut_anywhere_is_torn() -> None:
    """Killed at any byte, with zeros or nothing behind: whole records are kept and nothing is damaged."""
    payloads = events(5)
    made = records(payloads)
    body, starts = b"".join(made), starts_of(made)
    for size in range(len(body) + 1):
        whole = sum(start <= size for start in starts) - 1
        rest = body[starts[whole] : size]
        wanted = clean(payloads[:whole], is_torn=bool(rest.strip(b"\0")))
        assert salvage(body[:size], SEED, 0, is_last=True) == wanted
        if starts[whole] < size and not body[size : starts[whole + 1]].strip(b"\0"):
            # What is cut away is zeros: with zeros behind it the record is whole.
            wanted = clean(payloads[: whole + 1])
        assert salvage(body[:size] + bytes(12_000), SEED, 0, is_last=True) == wanted


@pytest.mark.parametrize("size", [0, 30, 100, 300, 2000, 8000])
@given(width=st.sampled_from([16, 32, 64]), data=st.data())
def test_a_record_torn_by_any_copy_is_torn(size: int, width: int, data: st.DataObject) -> None:
    """Whichever of a copy's vector stores were done when it was killed, in whatever order.

    glibc stores head and tail first and then the middle, up or down; what was not stored is zeros.
    """
    before = events(3)
    record = encode_record(event(3, size), SEED, len(segment(before)))
    count = -(-len(record) // width)
    chosen = data.draw(
        st.sets(st.integers(0, min(count, 12) - 1)) | st.sets(st.integers(max(0, count - 3), count - 1))
    )
    image = bytearray(len(record))
    for number in chosen:
        # The last store is aligned to the record's end, not to its start.
        at = max(0, min(number * width, len(record) - width))
        image[at : at + width] = record[at : at + width]
    image = image[: len(record)]
    payloads = [*before, event(3, size)] if image == record else before
    for zeros in (0, 20_000):
        found = salvage(segment(before) + bytes(image) + bytes(zeros), SEED, 0, is_last=True)
        assert found == clean(payloads, is_torn=image != record and any(image))


@pytest.mark.parametrize(
    "stored", [slice(0, 16), slice(-16, None), slice(-1, None), slice(40, 60), slice(0, 1)]
)
def test_any_part_of_a_torn_record_is_torn(stored: slice) -> None:
    """Nothing but the head, nothing but the tail, nothing but the middle."""
    before = events(3)
    record = encode_record(event(3, 200), SEED, len(segment(before)))
    image = bytearray(len(record))
    image[stored] = record[stored]
    found = salvage(segment(before) + bytes(image) + bytes(999), SEED, 0, is_last=True)
    assert found == clean(before, is_torn=True)


def test_the_longest_record_can_be_torn() -> None:
    """Its last byte alone is still within one record."""
    body = segment(events(1)) + bytes(RECORD_BYTES_MAX - 1) + b"\x01"
    assert salvage(body, SEED, 0, is_last=True) == clean(events(1), is_torn=True)
    one_more = segment(events(1)) + bytes(RECORD_BYTES_MAX) + b"\x01"
    assert salvage(one_more, SEED, 0, is_last=True).spans


def test_the_longest_record_can_be_torn_behind_its_head() -> None:
    """Its length is one that a record can have."""
    record = encode_record(bytes([EVENT_BYTE]) * PAYLOAD_BYTES_MAX, SEED, 0)
    assert salvage(record[:5000], SEED, 0, is_last=True) == clean([], is_torn=True)


def test_only_a_last_record_is_torn() -> None:
    """The same bytes in a segment that its producer left for the next one are damage."""
    made = records(events(3))
    body = b"".join(made[:2]) + made[2][:-1] + b"\0"
    assert salvage(body, SEED, 0, is_last=True) == clean(events(2), is_torn=True)
    start = starts_of(made)[2]
    assert salvage(body, SEED, 0, is_last=False) == Salvage(
        payloads=tuple(events(2)),
        spans=(Span(start=start, end=len(body), missing_bytes=0),),
        is_torn=False,
    )


def test_zeros_where_records_should_be_are_damage() -> None:
    """A segment that is not the last one is full up to where the next begins."""
    body = segment(events(3), zeros=1)
    assert salvage(body, SEED, 0, is_last=False).spans == (
        Span(start=len(body) - 1, end=len(body), missing_bytes=0),
    )


@pytest.mark.parametrize("lost_count", [2, 3, 50])
def test_more_than_one_bad_record_at_the_end_is_damage(lost_count: int) -> None:
    """A torn record has a length; what is bad behind its end was another one, which is lost."""
    made = records(events(60))
    kept = len(made) - lost_count
    bad = bytes(byte ^ 1 if at % 20 == 15 else byte for at, byte in enumerate(b"".join(made[kept:])))
    body = b"".join(made[:kept]) + bad
    found = salvage(body + bytes(9999), SEED, 0, is_last=True)
    assert found.payloads == tuple(events(60)[:kept])
    assert found.spans == (Span(start=starts_of(made)[kept], end=len(body), missing_bytes=0),)
    assert not found.is_torn


@pytest.mark.parametrize("length", [PAYLOAD_BYTES_MAX + 1, 0xFFFF])
def test_a_length_that_no_record_has_is_damage(length: int) -> None:
    """No record was ever begun with it, so it cannot be one's torn head; a lone byte or two may be."""
    head = HEAD.pack(length, 1, 1)
    assert salvage(head + b"\x94", SEED, 0, is_last=True).spans == (Span(start=0, end=11, missing_bytes=0),)
    assert salvage(head[:2], SEED, 0, is_last=True) == clean([], is_torn=True)


# --- What is damaged ---


@pytest.mark.parametrize("is_last", [True, False])
def test_every_flipped_bit_is_noticed(is_last: bool) -> None:  # noqa: FBT001
    """At most the record that it is in is lost; a lower offset alone is harmless."""
    payloads = events(4)
    made = records(payloads)
    body, starts = b"".join(made), starts_of(made)
    zeros = bytes(60 if is_last else 0)
    for bit in range(8 * len(body + zeros)):
        changed = bytearray(body + zeros)
        changed[bit // 8] ^= 1 << bit % 8
        found = salvage(bytes(changed), SEED, 0, is_last=is_last)
        number = max(index for index, start in enumerate(starts) if start <= bit // 8)
        if number == 4:
            assert found == clean(payloads, is_torn=True)
            continue
        is_offset = 6 <= bit // 8 - starts[number] < HEAD_BYTES
        if is_offset and changed[bit // 8] < body[bit // 8]:
            assert found == clean(payloads)
            continue
        assert found.spans or (found.is_torn and number == 3)
        left = payloads if is_offset else payloads[:number] + payloads[number + 1 :]
        assert found.payloads == tuple(left)
        if number < 3:
            end = starts[number] if is_offset else starts[number + 1]
            assert found.spans == (Span(start=starts[number], end=end, missing_bytes=0),)


@given(st.sets(st.integers(0, 18)))
def test_cut_out_records_are_noticed(cut: set[int]) -> None:
    """Each gap is told where it is, with exactly the bytes that are missing; all others are kept."""
    payloads = events(20)
    made = records(payloads)
    body = b"".join(record for number, record in enumerate(made) if number not in cut)
    found = salvage(body, SEED, 0, is_last=True)
    assert found.payloads == tuple(payload for number, payload in enumerate(payloads) if number not in cut)
    gaps = [number for number in sorted(cut) if number + 1 not in cut]
    assert len(found.spans) == len(gaps)
    assert sum(span.missing_bytes for span in found.spans) == sum(len(made[number]) for number in cut)
    assert all(span.start == span.end and span.missing_bytes for span in found.spans)
    assert not found.is_torn


@given(st.integers(0, 700), st.integers(1, 300))
def test_cut_out_bytes_are_noticed(start: int, count: int) -> None:
    """At any place and of any length, unless it is the end: every byte that was written is accounted for."""
    payloads = events(40)
    made = records(payloads)
    body, starts = b"".join(made), starts_of(made)
    found = salvage(body[:start] + body[start + count :], SEED, 0, is_last=True)
    hit = [index for index in range(40) if starts[index] < start + count and start < starts[index + 1]]
    kept = payloads[: hit[0]] + payloads[hit[-1] + 1 :]
    # Where the bytes on both sides of the cut are alike, a record that was hit is whole again.
    assert set(kept) <= set(found.payloads) <= set(payloads)
    read = sum(HEAD_BYTES + len(payload) for payload in found.payloads)
    assert read + sum(span.end - span.start + span.missing_bytes for span in found.spans) == len(body)
    assert found.spans


def test_a_damaged_offset_claims_no_missing_bytes() -> None:
    """The record behind it stands where it should, so nothing was cut out; later cuts are still noticed."""
    made = records(events(6))
    wrong = HEAD.pack(*HEAD.unpack_from(made[1])[:2], 1 << 30) + made[1][HEAD_BYTES:]
    body = made[0] + wrong + made[2] + made[3] + made[5]
    found = salvage(body, SEED, 0, is_last=True)
    assert found.payloads == tuple(payload for number, payload in enumerate(events(6)) if number != 4)
    starts = starts_of(made)
    assert found.spans == (
        Span(start=starts[1], end=starts[1], missing_bytes=0),
        Span(start=starts[4], end=starts[4], missing_bytes=len(made[4])),
    )


def test_the_largest_record_is_found_behind_damage() -> None:
    """The search knows how long records can be."""
    largest = bytes([EVENT_BYTE]) * PAYLOAD_BYTES_MAX
    body = b"\xff" * 40 + records([largest], 40)[0]
    found = salvage(body, SEED, 0, is_last=False)
    assert found.payloads == (largest,)
    assert found.spans == (Span(start=0, end=40, missing_bytes=0),)


def test_a_lost_page_is_noticed() -> None:
    """4 KiB of zeros in the middle are no end: records follow."""
    made = records(events(400))
    body, starts = b"".join(made), starts_of(made)
    found = salvage(body[:4096] + bytes(4096) + body[8192:], SEED, 0, is_last=True)
    first = max(number for number in range(400) if starts[number] <= 4096)
    last = min(number for number in range(400) if starts[number] >= 8192)
    assert found.payloads == tuple(events(400)[:first] + events(400)[last:])
    assert found.spans == (Span(start=starts[first], end=starts[last], missing_bytes=0),)


@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_can_be_salvaged(data: bytes, is_last: bool) -> None:  # noqa: FBT001
    """Nothing raises, and what cannot be read is told."""
    found = salvage(data, SEED, OFFSET, is_last=is_last)
    assert found.payloads == ()
    assert bool(found.spans) or found.is_torn or not data.strip(b"\0")
    assert all(OFFSET <= span.start <= span.end <= OFFSET + len(data) for span in found.spans)


@given(st.data())
def test_damage_anywhere_costs_only_what_it_hits(data: st.DataObject) -> None:
    """Several overwritten runs: every record outside of them is kept, and no other is made up."""
    payloads = events(30)
    made = records(payloads)
    body, starts = bytearray(b"".join(made)), starts_of(made)
    hit: set[int] = set()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        noise = data.draw(st.binary(min_size=1, max_size=80))[: len(body) - at]
        hit |= {index for index in range(30) if starts[index] < at + len(noise) and at < starts[index + 1]}
        body[at : at + len(noise)] = noise
    found = salvage(bytes(body), SEED, 0, is_last=False)
    kept = [payload for index, payload in enumerate(payloads) if index not in hit]
    assert set(kept) <= set(found.payloads) <= set(payloads)
    assert len(set(found.payloads)) == len(found.payloads)
    if tuple(payloads) != found.payloads:
        assert found.spans


# --- What is none of the producer's ---


def bait(seed: int) -> bytes:
    """An event that holds the image of a record; as bytes, though metadata are text, which allows fewer."""
    payload: bytes = msgpack.packb(["u", "E", 1, {"image": encode_record(event(9), seed, 0)}])
    return payload


@pytest.mark.parametrize(
    ("seed", "is_taken"), [(0, False), (segment_seed(bytes(16), 0), False), (SEED ^ 1, False), (SEED, True)]
)
def test_an_image_of_a_record_in_metadata_is_no_record(seed: int, is_taken: bool) -> None:  # noqa: FBT001
    """Even where damage makes the reader look into metadata; only who knows the seed could forge one."""
    made = records([event(0), bait(seed), event(1)])
    body = made[0] + b"\xff" + made[1][1:] + made[2]
    found = salvage(body, SEED, 0, is_last=False)
    assert (len(found.payloads) == 3) == is_taken
    assert found.spans


def test_a_record_of_another_segment_is_no_record() -> None:
    """A page of the same producer's older segment, found where it does not belong, counts nothing twice."""
    stray = b"".join(records(events(5), seed=segment_seed(PRODUCER, 65536)))
    body = segment(events(2)) + stray
    found = salvage(body, SEED, 0, is_last=False)
    assert found.payloads == tuple(events(2))
    assert found.spans


# --- How long it takes: were the work to grow with the square of the damage, these would not end in time ---


def test_megabytes_of_noise_can_be_salvaged() -> None:
    """4 MiB of random bytes behind good records, and good records behind them."""
    noise = random_bytes(4 << 20)
    tail = b"".join(records(events(3), len(noise)))
    found = salvage(noise + tail, SEED, 0, is_last=True)
    assert found.payloads == tuple(events(3))
    assert found.spans == (Span(start=0, end=len(noise), missing_bytes=0),)


def test_noise_that_looks_like_heads_can_be_salvaged() -> None:
    """Every second byte could begin a record of 9,620 bytes: the most work that bytes can make."""
    noise = bytes([EVENT_BYTE, (PAYLOAD_BYTES_MAX >> 8) - 1]) * (64 << 10)
    assert salvage(noise, SEED, 0, is_last=True).spans == (Span(start=0, end=len(noise), missing_bytes=0),)


def test_very_many_damaged_records_can_be_salvaged() -> None:
    """Every second of 60,000 records is bad, in 4 MiB."""
    made = records([event(number) for number in range(60_000)])
    bad = [
        record[:-1] + bytes([record[-1] ^ 1]) if number % 2 else record for number, record in enumerate(made)
    ]
    body = b"".join(bad)
    found = salvage(body + bytes((4 << 20) - len(body)), SEED, 0, is_last=True)
    assert found.payloads == tuple(event(number) for number in range(0, 60_000, 2))
    assert len(found.spans) == 29_999
    assert found.is_torn
