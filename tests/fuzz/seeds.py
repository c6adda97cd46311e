"""Where fuzzing begins: for each target some inputs that are all right, and a few that are nearly so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack

from settle_mp.core.event import pack_event
from settle_mp.core.record import Identity, Slot, encode_identity, encode_mark, encode_slot
from settle_mp.core.wire import Frame, encode_frame, encode_message
from tests.core.test_wire import MESSAGES
from tests.fuzz.targets import HEADER_BYTES, PRODUCER, record

if TYPE_CHECKING:
    from collections.abc import Iterable

EVENTS = [
    pack_event("ada", "AI_QUERY", 1, None),
    pack_event("bob", "AI_QUERY", 2.5, {"model": "gpt-4", "tokens": 7, "id": "x"}),
    pack_event("\u00e9\U0001f600", "STORAGE", 10**12, {"deep": [1, {"a": [None, True, -1.5]}]}),
    msgpack.packb(["ada", "AI_QUERY", 0, None]),
    msgpack.packb(["ada", "AI_QUERY", 1, {"tokens": "many"}]),
    msgpack.packb(["ada", "AI_QUERY", msgpack.ExtType(1, b"0.1"), None]),
]


def seeds() -> dict[str, list[bytes]]:
    """The inputs by target."""
    body = b""
    for payload in (encode_mark(1.8e9), *EVENTS):
        body += record(payload, len(body))
    frame = encode_frame(Frame(producer=PRODUCER, first=0, base=0, cut_s=1.8e9, body=body))
    torn = body + record(EVENTS[0], len(body))[:-3]
    kinds = [bytes([kind]) + EVENTS[kind % 2][1:] for kind in (0, 128, 2, 3, 4, 68, 5, 69, 1)]
    return {
        "frame": [frame, frame[:-4], frame[:40], b""],
        "run": [_pieces([encode_mark(1.8e9), *EVENTS]), _pieces([b"x"])],
        "message": [data for each in MESSAGES for data in (encode_message(each), encode_message(each)[1:])],
        "header": [_header(), _blob() + bytes(2 * 112), b""],
        "records": [body, body + bytes(20), torn + bytes(20), body[:30] + bytes(40) + body[30:]],
        "segment": [_pieces(kinds), _pieces(kinds[:2]), _pieces(kinds[2:])],
        "event": EVENTS,
    }


def _pieces(payloads: Iterable[bytes]) -> bytes:
    return b"".join(bytes([len(payload) - 1]) + payload for payload in payloads)


def _identity() -> bytes:
    return encode_identity(
        Identity(
            producer=PRODUCER, key_mode="test", name="gunicorn", host="web-1", born_s=1.8e9, facts={"a": "b"}
        )
    )


def _header() -> bytes:
    image = bytearray(_identity().ljust(HEADER_BYTES, b"\0"))
    for writer in ("courier", "drops", "collector"):
        for sequence in (1, 2):
            slot = Slot(
                sequence=sequence, ledger=PRODUCER, position=9, dropped_count=2, dropped_quantity="2.5"
            )
            at, data = encode_slot(writer, slot)
            image[at : at + len(data)] = data
    return bytes(image)


def _blob() -> bytes:
    """An identity as the target signs it: a length and the fields."""
    length = int.from_bytes(_identity()[4:6], "little")
    return length.to_bytes(2, "little") + _identity()[10 : 10 + length]
