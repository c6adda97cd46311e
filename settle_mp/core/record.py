"""The journal's records and header <-> bytes.

A record is `length u16 | checksum u32 | offset u32` and a payload: a packed event, or a time mark.
The checksum is seeded with the producer's secret id and the segment's base, so that no text a user
sends can pass for a record. The offset is where in the segment the writer saw the end *before* it
wrote: with threads a record may land a little later than it saw, never earlier.

Rule 1: a record is good when its checksum holds and its offset is not beyond where it stands.
Rule 2: a length of zero is the end; segments are allocated as zeros and never used again.
Rule 3: whatever the bytes, reading returns what is good in them and never raises.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final
from zlib import crc32

import msgpack

from settle_mp.core.event import PAYLOAD_BYTES_MAX

HEAD: Final = struct.Struct("<HII")
HEAD_BYTES: Final = HEAD.size
RECORD_BYTES_MAX: Final = HEAD_BYTES + PAYLOAD_BYTES_MAX

#: First bytes of what a record can hold: an event is a msgpack list of four, a time mark a float64.
EVENT_BYTE: Final = 0x94
MARK_BYTE: Final = 0xCB
_MARK_BYTES: Final = 9
#: Times at or above this (the year 6325) are nobody's clock, and calendars end not far beyond it.
TIME_S_MAX: Final = 2.0**37
#: Positions stay below this, so that a ledger's signed integers can hold them.
POSITION_MAX: Final = 2**63 - 1

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
    """The time of a mark (0.0 for one that no clock can show), or None for any other payload."""
    if payload[0] != MARK_BYTE or len(payload) != _MARK_BYTES:
        return None
    at_s: float = msgpack.unpackb(payload)
    return at_s if 0 <= at_s < TIME_S_MAX else 0.0  # 0.0 for NaN too


def read_records(body: bytes, seed: int, offset: int) -> tuple[list[bytes], int]:
    """The payloads of the good records at the start of `body`, and how many bytes they take.

    Args:
        body: Bytes of one segment, from a record's start on.
        seed: The segment's checksum seed.
        offset: Where in the segment `body` begins.
    """
    payloads: list[bytes] = []
    return payloads, read_on(body, 0, seed, offset, payloads)


def read_on(body: bytes, at: int, seed: int, shift: int, payloads: list[bytes]) -> int:
    """Append the good records from `at` on to `payloads`; return where in `body` they end.

    `body[0]` stands, or once stood, at `shift` in the segment.
    """
    keep, head, checked, head_bytes = payloads.append, HEAD.unpack_from, crc32, HEAD_BYTES
    end = len(body)
    try:
        while True:
            length, checksum, seen = head(body, at)
            start = at + head_bytes
            stop = start + length
            payload = body[start:stop]
            if checked(payload, seed) != checksum or seen > shift + at or stop > end or not length:
                break
            keep(payload)
            at = stop
    except struct.error:
        # Fewer bytes than a head: the end of nearly every run, and cheaper than asking before each record.
        pass
    return at


def count_events(body: bytes) -> int:
    """How many events (not marks) whole records at the start of `body` hold, by their lengths alone."""
    events_count = at = 0
    end = len(body)
    while at + HEAD_BYTES <= end:
        length = body[at] | body[at + 1] << 8
        if length == 0 or at + HEAD_BYTES + length > end:
            break
        if length != _MARK_BYTES or body[at + HEAD_BYTES] != MARK_BYTE:
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


# --- The header: one small file a producer, beside its lock ---

HEADER_BYTES: Final = 4096
_MAGIC: Final = b"SMPJ"
_STATIC_BYTES: Final = 2048
_STATIC_HEAD: Final = struct.Struct("<4sHI")
_SLOT: Final = struct.Struct("<Q16sQQQ64s")
_SLOT_BYTES: Final = 128
_CHECKSUM_BYTES: Final = 4
_FACTS_MAX: Final = 12
#: What a producer's key can be: of a test or a live key, or of none that it could read.
_KEY_MODES: Final = ("test", "live", "")
#: A quantity as decimal digits. The widest sum of a producer's drops takes 13 digits for one event's
#: quantity, 19 for their count, a point and 27 places: 60 of the slot's 64 characters.
_PLAIN_NUMBER: Final = re.compile(rb"[0-9]+(\.[0-9]+)?\Z")
#: Who writes which pair of slots. One writer each, so that none ever writes over another's word: the
#: courier what is committed, `track()` what it dropped, the collector what it has committed itself.
_SLOTS_AT: Final = {
    "courier": _STATIC_BYTES,
    "drops": _STATIC_BYTES + 2 * _SLOT_BYTES,
    "collector": _STATIC_BYTES + 4 * _SLOT_BYTES,
}
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
    """The unchanging first part of a header, padded; what is too long to fit is clipped."""
    facts = list(identity.facts.items())[:_FACTS_MAX]
    blob: bytes = msgpack.packb(
        [
            identity.producer,
            _clipped(identity.key_mode, 16),
            _clipped(identity.name, 200),
            _clipped(identity.host, 200),
            identity.born_s,
            {_clipped(key, 40): _clipped(value, 80) for key, value in facts},
        ]
    )
    return (_STATIC_HEAD.pack(_MAGIC, len(blob), crc32(blob)) + blob).ljust(_STATIC_BYTES, b"\0")


def _clipped(text: str, bytes_max: int) -> str:
    # In bytes: names of hosts and programs need not be ASCII, nor even Unicode (surrogateescape).
    return text.encode(errors="replace")[:bytes_max].decode(errors="ignore")


def decode_identity(header: bytes) -> Identity | None:
    """The identity in a header's bytes, or None when it can't be read."""
    try:
        magic, length, checksum = _STATIC_HEAD.unpack_from(header)
        blob = header[_STATIC_HEAD.size : _STATIC_HEAD.size + length]
        if magic != _MAGIC or crc32(blob) != checksum:
            return None
        producer, key_mode, name, host, born_s, facts = msgpack.unpackb(blob)
        identity = Identity(
            producer=producer, key_mode=key_mode, name=name, host=host, born_s=born_s, facts=facts
        )
        return identity if _is_sound(identity) else None
    except Exception:  # noqa: BLE001  msgpack and struct raise many classes for bad bytes
        return None


def _is_sound(identity: Identity) -> bool:
    """Whether each field is what its type says: over a socket, a header is a stranger's word."""
    texts = (identity.key_mode, identity.name, identity.host, *identity.facts, *identity.facts.values())
    return (
        type(identity.producer) is bytes
        and len(identity.producer) == PRODUCER_ID_BYTES
        and all(type(text) is str for text in texts)
        # A ledger that is bound to no mode yet takes that of its first event, for good.
        and identity.key_mode in _KEY_MODES
        and type(identity.born_s) in (int, float)
        and 0 <= identity.born_s < TIME_S_MAX
    )


def encode_slot(writer: str, slot: Slot) -> tuple[int, bytes]:
    """Where in the header a slot goes, and its bytes. Two slots take turns, so that one is always whole."""
    body = _SLOT.pack(
        slot.sequence,
        slot.ledger,
        slot.position,
        slot.events_count,
        slot.dropped_count,
        slot.dropped_quantity.encode("ascii"),
    )
    return _SLOTS_AT[writer] + _SLOT_BYTES * (slot.sequence % 2), body + _checksum(body)


def decode_slot(writer: str, header: bytes) -> Slot:
    """The newer valid slot of a writer, or an empty one when it never wrote."""
    newest = Slot()
    for turn in (0, 1):
        at = _SLOTS_AT[writer] + _SLOT_BYTES * turn
        body = header[at : at + _SLOT.size]
        if len(body) != _SLOT.size or header[at + _SLOT.size :][:_CHECKSUM_BYTES] != _checksum(body):
            continue
        slot = _slot(body)
        if slot is not None and slot.sequence > newest.sequence:
            newest = slot
    return newest


def _slot(body: bytes) -> Slot | None:
    sequence, ledger, position, events_count, dropped_count, quantity = _SLOT.unpack(body)
    digits = quantity.rstrip(b"\0")
    if max(sequence, position, events_count, dropped_count) > POSITION_MAX or not _PLAIN_NUMBER.match(digits):
        return None
    return Slot(
        sequence=sequence,
        ledger=ledger,
        position=position,
        events_count=events_count,
        dropped_count=dropped_count,
        dropped_quantity=digits.decode("ascii"),
    )


def _checksum(body: bytes) -> bytes:
    return crc32(body).to_bytes(_CHECKSUM_BYTES, "little")
