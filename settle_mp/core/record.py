"""The journal's records and header <-> bytes.

A record is `length u16 | checksum u32 | offset u32` and a payload: a packed event, or a time mark.
The checksum is seeded with the producer's secret id and the segment's base, so that no text a user
sends can pass for a record. The offset is where in the segment the writer saw the end *before* it
wrote: with threads a record may land a little later than it saw, never earlier.

Rule 1: a record is good when its checksum holds and its offset is not beyond where it stands.
Rule 2: a length of zero is the end; segments are allocated as zeros and never used again.
Rule 3: bad bytes with nothing good after them, and zeros behind, are a torn last record.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import msgpack

from settle_mp.core.event import PAYLOAD_BYTES_MAX

HEAD: Final = struct.Struct("<HII")
HEAD_BYTES: Final = HEAD.size
RECORD_BYTES_MAX: Final = HEAD_BYTES + PAYLOAD_BYTES_MAX

#: First byte of a time mark: msgpack's float64. An event begins with 0x94, a list of four.
_MARK_BYTE: Final = 0xCB
_MARK_BYTES: Final = 9

#: Bytes of a producer's id, which is random and doubles as its secret.
PRODUCER_ID_BYTES: Final = 16


def segment_seed(producer: bytes, base: int) -> int:
    """The checksum seed of the segment that begins at position `base` of a producer's journal."""
    return crc32(base.to_bytes(8, "little"), crc32(producer))


def encode_record(payload: bytes, seed: int, offset: int) -> bytes:
    """One record, as it is appended at `offset` of a segment."""
    return HEAD.pack(len(payload), crc32(payload, seed), offset) + payload


def encode_mark(at_s: float) -> bytes:
    """The payload of a time mark: what follows was tracked at `at_s` (Unix seconds) or later."""
    payload: bytes = msgpack.packb(float(at_s))
    return payload


def mark_s(payload: bytes) -> float | None:
    """The time of a mark, or None for any other payload."""
    if payload[0] != _MARK_BYTE or len(payload) != _MARK_BYTES:
        return None
    at_s: float = msgpack.unpackb(payload)
    return at_s


def read_records(body: bytes, seed: int, offset: int) -> tuple[list[bytes], int]:
    """The payloads of the good records at the start of `body`, and how many bytes they take.

    Args:
        body: Bytes of one segment, from a record's start on.
        seed: The segment's checksum seed.
        offset: Where in the segment `body` begins.
    """
    payloads: list[bytes] = []
    keep = payloads.append
    head, end, at = HEAD.unpack_from, len(body) - HEAD_BYTES, 0
    while at <= end:
        length, checksum, seen = head(body, at)
        start = at + HEAD_BYTES
        payload = body[start : start + length]
        if length == 0 or len(payload) != length or crc32(payload, seed) != checksum or seen > offset + at:
            break
        keep(payload)
        at = start + length
    return payloads, at


def count_events(body: bytes) -> int:
    """How many events (not marks) whole records at the start of `body` hold, by their lengths alone."""
    events_count = at = 0
    end = len(body) - HEAD_BYTES
    while at <= end:
        length = body[at] | body[at + 1] << 8
        if length == 0:
            break
        if length != _MARK_BYTES or body[at + HEAD_BYTES] != _MARK_BYTE:
            events_count += 1
        at += HEAD_BYTES + length
    return events_count


def whole_records_bytes(body: bytes) -> int:
    """How many bytes at the start of `body` are whole records, by their lengths alone."""
    at, end = 0, len(body)
    while at + HEAD_BYTES <= end:
        length = body[at] | body[at + 1] << 8
        if length == 0 or at + HEAD_BYTES + length > end:
            break
        at += HEAD_BYTES + length
    return at


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes of a segment in which no record can be read; offsets within the segment."""

    start: int
    end: int
    missing_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvage:
    """All that can be read of a segment that its producer will not write again."""

    payloads: tuple[bytes, ...]
    spans: tuple[Span, ...]
    is_torn: bool


def salvage(body: bytes, seed: int, offset: int, *, is_last: bool) -> Salvage:
    """Read a dead producer's segment to its end, stepping over what is damaged.

    Args:
        body: The segment's bytes from a record's start on; for a segment that is not the last one, up
            to where the next begins.
        seed: The segment's checksum seed.
        offset: Where in the segment `body` begins.
        is_last: Whether this is the producer's last segment, in which a torn record may end it.
    """
    payloads, at = read_records(body, seed, offset)
    spans: list[Span] = []
    while at < len(body):
        found = _next_good(body, at, seed)
        if found is None:
            break
        _, _, seen = HEAD.unpack_from(body, found)
        spans.append(Span(start=offset + at, end=offset + found, missing_bytes=max(0, seen - offset - found)))
        more, at = _read_displaced(body, found, seed)
        payloads += more
    rest = body[at:].rstrip(b"\0")
    is_torn = bool(rest) and is_last and len(rest) <= RECORD_BYTES_MAX
    if (rest and not is_torn) or (not is_last and at < len(body)):
        spans.append(Span(start=offset + at, end=offset + len(body), missing_bytes=0))
    return Salvage(payloads=tuple(payloads), spans=tuple(spans), is_torn=is_torn)


def _next_good(body: bytes, start: int, seed: int) -> int | None:
    """Where the next record whose checksum holds begins, wherever its writer meant it to stand."""
    for at in range(start, len(body) - HEAD_BYTES):
        length, checksum, _ = HEAD.unpack_from(body, at)
        if not 0 < length <= PAYLOAD_BYTES_MAX or at + HEAD_BYTES + length > len(body):
            continue
        begin = at + HEAD_BYTES
        if crc32(body[begin : begin + length], seed) == checksum:
            return at
    return None


def _read_displaced(body: bytes, at: int, seed: int) -> tuple[list[bytes], int]:
    """Records whose checksums hold from `at` on, even where their offsets say that they were moved."""
    payloads, used = read_records(body[at:], seed, 1 << 32)
    return payloads, at + used


# --- The header: one small file a producer, beside its lock ---

HEADER_BYTES: Final = 4096
_MAGIC: Final = b"SMPJ"
_STATIC_BYTES: Final = 2048
_STATIC_HEAD: Final = struct.Struct("<4sHI")
_SLOT: Final = struct.Struct("<Q16sQQQ64s")
_SLOT_BYTES: Final = 128
_SLOTS_AT: Final = {"worker": _STATIC_BYTES, "collector": _STATIC_BYTES + 2 * _SLOT_BYTES}
#: The ledger id of a journal that no ledger has taken anything from.
NO_LEDGER: Final = bytes(16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a producer says of itself, once, when its journal is born. Never a secret of the user's."""

    producer: bytes
    key_mode: str
    name: str
    host: str
    born_s: float
    facts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One writer's last word in a header: how far `ledger` has committed, and what was dropped.

    `events_count` is how many events stand before `position`, counted by the slot's writer.
    """

    sequence: int = 0
    ledger: bytes = NO_LEDGER
    position: int = 0
    events_count: int = 0
    dropped_count: int = 0
    dropped_quantity: str = "0"


def encode_identity(identity: Identity) -> bytes:
    """The unchanging first part of a header, padded."""
    blob: bytes = msgpack.packb(
        [
            identity.producer,
            identity.key_mode,
            identity.name[:200],
            identity.host[:200],
            identity.born_s,
            {key[:40]: value[:80] for key, value in list(identity.facts.items())[:12]},
        ]
    )
    return (_STATIC_HEAD.pack(_MAGIC, len(blob), crc32(blob)) + blob).ljust(_STATIC_BYTES, b"\0")


def decode_identity(header: bytes) -> Identity | None:
    """The identity in a header's bytes, or None when it can't be read."""
    try:
        magic, length, checksum = _STATIC_HEAD.unpack_from(header)
        blob = header[_STATIC_HEAD.size : _STATIC_HEAD.size + length]
        if magic != _MAGIC or crc32(blob) != checksum:
            return None
        producer, key_mode, name, host, born_s, facts = msgpack.unpackb(blob)
        return Identity(
            producer=producer, key_mode=key_mode, name=name, host=host, born_s=born_s, facts=facts
        )
    except Exception:  # noqa: BLE001  msgpack and struct raise many classes for bad bytes
        return None


def encode_slot(writer: str, slot: Slot) -> tuple[int, bytes]:
    """Where in the header a slot goes, and its bytes. Two slots take turns, so that one is always whole."""
    body = _SLOT.pack(
        slot.sequence,
        slot.ledger,
        slot.position,
        slot.events_count,
        slot.dropped_count,
        slot.dropped_quantity.encode("ascii")[:64],
    )
    return _SLOTS_AT[writer] + _SLOT_BYTES * (slot.sequence % 2), body + crc32(body).to_bytes(4, "little")


def decode_slot(writer: str, header: bytes) -> Slot:
    """The newer valid slot of a writer, or an empty one when it never wrote."""
    newest = Slot()
    for turn in (0, 1):
        at = _SLOTS_AT[writer] + _SLOT_BYTES * turn
        body = header[at : at + _SLOT.size]
        checksum = header[at + _SLOT.size : at + _SLOT.size + 4]
        if len(checksum) != 4 or crc32(body).to_bytes(4, "little") != checksum:
            continue
        sequence, ledger, position, events_count, dropped_count, quantity = _SLOT.unpack(body)
        if sequence > newest.sequence:
            newest = Slot(
                sequence=sequence,
                ledger=ledger,
                position=position,
                events_count=events_count,
                dropped_count=dropped_count,
                dropped_quantity=quantity.rstrip(b"\0").decode("ascii"),
            )
    return newest
