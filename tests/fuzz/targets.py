"""What is fuzzed: for each decoder a function that takes any bytes and complains of what must not be.

A decoder may refuse in its own way. It may raise nothing else, and take nothing that it should not: no frame
that reads differently than it was written, no field beyond its bounds, and above all no record that its
producer did not write. What is right is read from the bytes here, by nothing that is tested.

Checksums would keep a fuzzer at the door, so most targets sign what they are given, as a stranger could.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from zlib import crc32

import msgpack

from settle_mp.collector import schema
from settle_mp.collector.admission import House, Refusal, admit
from settle_mp.collector.decoder import BadRunError, Decoder
from settle_mp.core.event import InvalidEventError, exact, pack_event, unpack_event
from settle_mp.core.fold import Entry, fold_payload, row_text
from settle_mp.core.record import NO_LEDGER, count_events, mark_s, read_records, whole_records_bytes
from settle_mp.core.rules import MetadataRule
from settle_mp.core.salvage import salvage
from settle_mp.core.wire import WireError, decode_frame, decode_message, encode_frame, encode_message
from settle_mp.journals import parse_header

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRODUCER: Final = bytes(range(16))
#: The layout, written down a second time.
HEAD: Final = struct.Struct("<HII")
FRAME_HEAD: Final = struct.Struct("<B16sQQd")
HEADER_BYTES, SLOTS_AT, SLOT_BYTES, SLOTS_COUNT = 4096, 2048, 128, 6
SLOT: Final = struct.Struct("<Q16sQQQ64s")

_RULES: Final = {"AI_QUERY": MetadataRule(sum=frozenset({"tokens"}), drop=frozenset({"id"}))}


def seed_of(producer: bytes, base: int = 0) -> int:
    """What the checksums of a segment's records begin with."""
    return crc32(base.to_bytes(8, "little"), crc32(producer))


SEED: Final = seed_of(PRODUCER)


def record(payload: bytes, offset: int, seed: int = SEED) -> bytes:
    """A record as its producer writes it."""
    return HEAD.pack(len(payload), crc32(payload, seed), offset) + payload


# --- Frames ---


def frame(data: bytes) -> None:
    """A frame as it comes from a socket, and the same under a checksum that fits."""
    _frame(data)
    _frame(data + crc32(data).to_bytes(4, "little"))


def _frame(data: bytes) -> None:
    try:
        decoded = decode_frame(data)
    except WireError:
        return
    version, producer, first, base, cut_s = FRAME_HEAD.unpack_from(data)
    body = data[FRAME_HEAD.size : -4]
    assert version == 1
    assert crc32(data[:-4]).to_bytes(4, "little") == data[-4:]
    assert (decoded.producer, decoded.first, decoded.base, decoded.body) == (producer, first, base, body)
    assert base <= first < first + len(body) == decoded.last < 2**63
    assert 0 <= cut_s == decoded.cut_s < 2**37
    assert encode_frame(decoded) == data
    try:
        run = Decoder(_RULES).decode(decoded)
    except BadRunError:
        return
    events = [payload for payload in _walk(body, producer, base, first) if mark_s(payload) is None]
    assert run.intake.last == decoded.last
    assert run.intake.events_count + len(run.intake.invalid) == len(events)


def _walk(body: bytes, producer: bytes, base: int, first: int) -> Iterator[bytes]:
    """The payloads of a run of records, each of them checked."""
    at = 0
    while at < len(body):
        length, checksum, seen = HEAD.unpack_from(body, at)
        payload = body[at + HEAD.size : at + HEAD.size + length]
        assert 0 < len(payload) == length
        assert crc32(payload, seed_of(producer, base)) == checksum
        assert seen <= first - base + at
        yield payload
        at += HEAD.size + length


def run(data: bytes) -> None:
    """A frame whose records are signed by their producer, and one whose records are another's."""
    payloads = list(_pieces(data))
    for producer, is_forged in ((PRODUCER, False), (bytes(16), True)):
        body, offset = b"", 64
        for payload in payloads:
            body += record(payload, offset + len(body), seed_of(producer))
        if not 0 < len(body) <= 128 * 1024:
            return
        head = FRAME_HEAD.pack(1, PRODUCER, offset, 0, 1.8e9)
        decoded = decode_frame(head + body + crc32(head + body).to_bytes(4, "little"))
        try:
            made = Decoder(_RULES).decode(decoded)
        except BadRunError:
            assert is_forged
            continue
        assert not is_forged, "records of another producer were taken"
        events = [payload for payload in payloads if mark_s(payload) is None]
        assert made.intake.events_count + len(made.intake.invalid) == len(events)
        assert (count_events(body), whole_records_bytes(body)) == (len(events), len(body))


def _pieces(data: bytes) -> Iterator[bytes]:
    """Some bytes in pieces: a length, and what it says or what is left."""
    while data:
        length, data = data[0] + 1, data[1:]
        if data:
            yield data[:length]
        data = data[length:]


# --- Control messages ---

_WITHIN: Final[dict[str, Callable[[object], bool]]] = {
    "bytes": lambda value: type(value) is bytes and len(value) in (16, HEADER_BYTES),
    "int": lambda value: type(value) is int and 0 <= value < 2**63,
    "float": lambda value: isinstance(value, (int, float)) and 0 <= value < 2**40,
    "bool": lambda value: type(value) is bool,
    "str": lambda value: type(value) is str and len(value) <= 4096,
}


def message(data: bytes) -> None:
    """A control message as it comes, and the rest of one behind the right version."""
    _message(data)
    if data:
        _message(bytes([0x90 + data[0] % 8, 1]) + data[1:])


def _message(data: bytes) -> None:
    try:
        decoded = decode_message(data)
    except WireError as error:
        assert 0 < len(str(error)) < 200  # noqa: PT017  most inputs raise, and none has to
        return
    assert len(data) <= 64 * 1024
    for field in fields(decoded):
        assert _WITHIN[str(field.type)](getattr(decoded, field.name)), field.name
    quantity = getattr(decoded, "dropped_quantity", "0")
    assert 0 <= Decimal(quantity) < 10**64
    assert decode_message(encode_message(decoded)) == decoded
    assert type(decoded).__name__ == msgpack.unpackb(data)[1]
    assert len(msgpack.unpackb(data)) == 2 + len(astuple(decoded))


# --- Headers ---


def header(data: bytes) -> None:
    """A header as it comes, and the same with each part of it signed."""
    image = data[:HEADER_BYTES].ljust(HEADER_BYTES, b"\0")
    _header(data)
    _header(image)
    _header(_signed_header(data))


def _signed_header(data: bytes) -> bytes:
    """An identity and slots made of the data, each under a checksum that fits."""
    length, rest = (data[0] | data[1] << 8, data[2:]) if len(data) > 1 else (0, data)
    blob, rest = rest[: min(length, 2000)], rest[min(length, 2000) :]
    image = (b"SMPJ" + struct.pack("<HI", len(blob), crc32(blob)) + blob).ljust(SLOTS_AT, b"\0")
    for _ in range(SLOTS_COUNT):
        body, rest = rest[: SLOT.size].ljust(SLOT.size, b"\0"), rest[SLOT.size :]
        image += (body + crc32(body).to_bytes(4, "little")).ljust(SLOT_BYTES, b"\0")
    return image.ljust(HEADER_BYTES, b"\0")


def _header(image: bytes) -> None:
    parsed = parse_header(image)
    identity = parsed.identity
    if identity is not None:
        assert image[:4] == b"SMPJ"
        assert identity.key_mode in {"", "test", "live"}
        assert all(type(each) is str for each in (identity.name, identity.host))
        assert 0 <= identity.born_s < 2**37
    for index, slot in enumerate((parsed.courier, parsed.drops, parsed.collector)):
        numbers = (slot.sequence, slot.position, slot.events_count, slot.dropped_count)
        assert all(0 <= number < 2**63 for number in numbers)
        assert 0 <= Decimal(slot.dropped_quantity) < 10**64
        assert slot.sequence == 0 or any(_holds(image, 2 * index + turn) for turn in (0, 1))
    house = House(ledger=bytes(16), put_aside=frozenset(), key_mode="")
    admitted = admit(PRODUCER, parsed, house, is_volatile=True)
    if isinstance(admitted, Refusal):
        assert parsed.bond.ledger != NO_LEDGER
        return
    # What the ledger keeps of it can be written, and read back.
    row = tuple(schema.plain_text(text) for text in (admitted.name, admitted.host, admitted.key_mode))
    assert schema.META.is_sound(schema.META.with_checksum(row))


def _holds(image: bytes, number: int) -> bool:
    body = image[SLOTS_AT + SLOT_BYTES * number :][: SLOT.size]
    return image[SLOTS_AT + SLOT_BYTES * number + SLOT.size :][:4] == crc32(body).to_bytes(4, "little")


# --- Segments ---


def records(data: bytes) -> None:
    """A segment's bytes as they stand, read from its start and as after a damage."""
    payloads, used = read_records(data, SEED, 0)
    assert payloads == list(_walk(data[:used], PRODUCER, 0, 0))
    assert used <= whole_records_bytes(data) <= len(data)
    for is_last in (True, False):
        saved = salvage(data, SEED, 0, is_last=is_last)
        assert saved.payloads[: len(payloads)] == tuple(payloads)
        assert all(0 <= span.start <= span.end <= len(data) for span in saved.spans)


def segment(data: bytes) -> None:
    """A segment of honest records with anything between them: they are saved, in order, and nothing else."""
    body, honest = b"", []
    for piece in _pieces(data):
        kind, content = piece[0] % 6, piece[1:]
        payload = bytes([0x94 if piece[0] & 128 else 0xCB]) + content
        if kind < 2:  # more than anything else, as in life
            honest.append(payload)
            body += record(payload, len(body))
        elif kind == 2:
            body += content
        elif kind == 3:
            body += bytes(len(content))
        elif kind == 4:  # another producer's, or another segment's
            body += record(payload, len(body), seed_of(PRODUCER if piece[0] & 64 else bytes(16), 7))
        else:  # with a flipped bit, or cut off and not made whole by what follows
            whole = bytearray(record(payload, len(body)))
            cut = len(whole) - 1 if piece[0] & 64 else HEAD.size + len(content) // 2
            whole[cut] ^= 1
            body += whole[: cut + 1]
    for is_last in (True, False):
        saved = salvage(body, SEED, 0, is_last=is_last)
        assert list(saved.payloads) == honest
        spans = [(span.start, span.end) for span in saved.spans]
        assert spans == sorted(spans)
        assert saved.is_torn <= is_last


# --- Events ---


def event(data: bytes) -> None:
    """A record's payload: an event within the limits that packs to the same event again, or none."""
    try:
        decoded = unpack_event(data)
    except InvalidEventError as error:
        assert 0 < len(str(error)) < 400  # noqa: PT017  the same
        return
    again = unpack_event(pack_event(*decoded))
    assert again == decoded
    assert exact(decoded.quantity) == again.quantity
    assert 0 < decoded.quantity <= 10**12
    try:
        folded = fold_payload(data, _RULES)
    except InvalidEventError:
        assert decoded.event_type in _RULES
        return
    entry = Entry()
    entry.add(folded, 3)
    assert entry.quantity == 3 * Decimal(decoded.quantity)
    row_text(folded.key, entry, None).encode()


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (frame, run, message, header, records, segment, event)
}
