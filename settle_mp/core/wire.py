"""Frames and control messages <-> bytes: all that worker and collector say to each other.

A frame carries a run of whole records of one segment, as they stand in the journal. Control messages
are msgpack lists `[version, kind, field, …]`.

Rule 1: whatever the bytes, decoding returns a value or raises `WireError`, and nothing else.
Rule 2: a change of the layout changes `VERSION`; the other side says which version it speaks.
"""

from __future__ import annotations

import re
import struct
from dataclasses import astuple, dataclass, fields
from typing import Any, Final, get_args
from zlib import crc32

import msgpack

from settle_mp.core.record import HEADER_BYTES, POSITION_MAX, PRODUCER_ID_BYTES, TIME_S_MAX

#: Version of frames and control messages.
VERSION: Final = 1
#: Bytes of journal that a frame carries at most. Larger frames save nothing, and a bound on the
#: message's size (1 MiB) keeps a stranger from filling the collector's memory.
FRAME_BODY_BYTES_MAX: Final = 128 * 1024
#: Bytes of a control message at most.
CONTROL_BYTES_MAX: Final = 64 * 1024

_FRAME_HEAD: Final = struct.Struct("<B16sQQd")
_CHECKSUM_BYTES: Final = 4
_TIMEOUT_S_MAX: Final = 2.0**40
_PREFIX_COUNT: Final = 2
#: Characters of a text in a control message; senders clip a longer one rather than say nothing.
_TEXT_CHARS_MAX: Final = 4096
#: A quantity as `fold.number_text` writes it, short enough for every sum of drops.
_QUANTITY: Final = re.compile(r"[0-9]{1,64}(\.[0-9]{1,64})?\Z")


class WireError(ValueError):
    """Bytes from a socket that are not what settle-mp speaks. The reason is its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A run of records: `body` are the journal's bytes from position `first` on.

    `base` is the position at which their segment begins, `cut_s` when the courier cut them (Unix seconds).
    """

    producer: bytes
    first: int
    base: int
    cut_s: float
    body: bytes

    @property
    def last(self) -> int:
        """The position behind the frame's last byte."""
        return self.first + len(self.body)


def encode_frame(frame: Frame) -> bytes:
    """A frame's bytes, with a checksum over all of it."""
    data = _FRAME_HEAD.pack(VERSION, frame.producer, frame.first, frame.base, frame.cut_s) + frame.body
    return data + crc32(data).to_bytes(_CHECKSUM_BYTES, "little")


def decode_frame(data: bytes) -> Frame:
    """The frame in a message; its records are not looked at here."""
    if len(data) < _FRAME_HEAD.size + _CHECKSUM_BYTES:
        msg = f"a frame of {len(data)} bytes is too short"
        raise WireError(msg)
    if data[0] != VERSION:
        msg = f"frame version {data[0]}, this side speaks {VERSION}"
        raise WireError(msg)
    if crc32(data[:-_CHECKSUM_BYTES]).to_bytes(_CHECKSUM_BYTES, "little") != data[-_CHECKSUM_BYTES:]:
        msg = "a frame's checksum is wrong"
        raise WireError(msg)
    _, producer, first, base, cut_s = _FRAME_HEAD.unpack_from(data)
    body = data[_FRAME_HEAD.size : -_CHECKSUM_BYTES]
    if not body or len(body) > FRAME_BODY_BYTES_MAX or base > first or first + len(body) > POSITION_MAX:
        msg = f"a frame of {len(body)} body bytes at {first} (segment {base}) is out of bounds"
        raise WireError(msg)
    if not 0 <= cut_s < TIME_S_MAX:  # also false for NaN
        msg = "a frame's cut time is out of bounds"
        raise WireError(msg)
    return Frame(producer=producer, first=first, base=base, cut_s=cut_s, body=body)


# --- Control messages ---


@dataclass(frozen=True, slots=True)
class Hello:
    """Worker: I am here, my journal ends at `position`; this is my header (identity and slots)."""

    producer: bytes
    position: int
    header: bytes
    is_volatile: bool


@dataclass(frozen=True, slots=True)
class Flush:
    """Worker: tell me when everything up to `position` is settled; repeated until answered."""

    producer: bytes
    ticket: int
    position: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Position:
    """Worker: my answer to `AskPosition`; everything tracked so far stands before `position`."""

    producer: bytes
    request: int
    position: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Worker: I end here; this is what I have dropped in all.

    `is_over`: nothing will come of this producer again; who removes its folder waits for `Farewell` first.
    """

    producer: bytes
    position: int
    dropped_count: int
    dropped_quantity: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class Lost:
    """Heir of a dead producer: its journal can't be read from `start` to `end`; go on behind that."""

    producer: bytes
    start: int
    end: int
    reason: str


@dataclass(frozen=True, slots=True)
class HostFlush:
    """Command: ship everything of every worker on this host; answered by `Flushed`."""

    ticket: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Decide:
    """Command: a person's word (see `core.decision`) on all from number `first` to `last`.

    Answered by `Decided`; the same ticket again gets the same answer.
    """

    ticket: int
    action: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Command: take over a journal that waits for a person's word; answered by `Decided`."""

    ticket: int
    journal: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """Command: are you there? Answered by `Pong`."""


@dataclass(frozen=True, slots=True)
class Welcome:
    """Collector: send from `position`, committed in `ledger`. `is_seen`: I can read your journal myself."""

    ledger: bytes
    position: int
    is_seen: bool


@dataclass(frozen=True, slots=True)
class Ack:
    """Collector: everything before `position` is committed in ledger `ledger`."""

    ledger: bytes
    position: int


@dataclass(frozen=True, slots=True)
class GoBack:
    """Collector: a frame left a gap; send again from `position`."""

    position: int


@dataclass(frozen=True, slots=True)
class Refused:
    """Collector: nothing of yours is taken, for this reason. Keep it and ask again later."""

    reason: str


@dataclass(frozen=True, slots=True)
class Farewell:
    """Collector: it is noted that you are over; nothing of yours is needed any more."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """Collector: the answer to `Flush` and `HostFlush`. An empty reason means: all confirmed.

    Of the unconfirmed events, `failed_count` are dead-lettered or held: later flushes leave them out.
    """

    ticket: int
    confirmed_count: int
    unconfirmed_count: int
    failed_count: int
    reason: str


@dataclass(frozen=True, slots=True)
class Decided:
    """Collector: the answer to `Decide` and `Adopt`: how much was done, and why the rest was not.

    `rest` is the number to go on from with another ticket; 0 when that was all.
    """

    ticket: int
    done_count: int
    events_count: int
    quantity: str
    rest: int
    reason: str


@dataclass(frozen=True, slots=True)
class AskPosition:
    """Collector: a host-wide flush began; say how far your journal goes."""

    request: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Collector: I am here; `report` is JSON on what only the running collector knows, for `status`."""

    ledger: bytes
    report: str


#: What commands ask.
Command = Ping | HostFlush | Decide | Adopt
Message = (
    Hello
    | Flush
    | Position
    | Goodbye
    | Lost
    | HostFlush
    | Decide
    | Adopt
    | Ping
    | Welcome
    | Ack
    | GoBack
    | Refused
    | Farewell
    | Flushed
    | Decided
    | AskPosition
    | Pong
)
_KINDS: Final[dict[str, type[Any]]] = {kind.__name__: kind for kind in get_args(Message)}


def encode_message(message: Message) -> bytes:
    """A control message's bytes. Too long a text is clipped, so that the other side takes it."""
    values = [_sayable(value) for value in astuple(message)]
    data: bytes = msgpack.packb([VERSION, type(message).__name__, *values])
    return data


def _sayable(value: object) -> object:
    if not isinstance(value, str):
        return value
    # A reason may quote an error of the system's, which can hold lone surrogates (surrogateescape).
    return value[:_TEXT_CHARS_MAX].encode(errors="replace").decode()


def decode_message(data: bytes) -> Message:
    """The control message in some bytes, its fields' types and bounds checked."""
    if len(data) > CONTROL_BYTES_MAX:
        msg = f"a control message of {len(data)} bytes is too long"
        raise WireError(msg)
    try:
        items = msgpack.unpackb(data)
    except Exception as error:  # noqa: BLE001  msgpack raises a dozen unrelated classes for bad bytes
        msg = f"not msgpack: {type(error).__name__}"
        raise WireError(msg) from None
    if type(items) is not list or len(items) < _PREFIX_COUNT or type(items[0]) is not int:
        msg = "not a control message"
        raise WireError(msg)
    if items[0] != VERSION:
        msg = f"control version {items[0]}, this side speaks {VERSION}"
        raise WireError(msg)
    kind = _KINDS.get(items[1]) if type(items[1]) is str else None
    if kind is None:
        msg = "a control message of unknown kind"
        raise WireError(msg)
    return _checked(kind, items[2:])


def _checked(kind: type[Any], values: list[Any]) -> Message:
    wanted = fields(kind)
    if len(wanted) != len(values):
        msg = f"{kind.__name__} has {len(wanted)} fields, not {len(values)}"
        raise WireError(msg)
    for field, value in zip(wanted, values, strict=True):
        if not _is_within(field.name, str(field.type), value):
            msg = f"{kind.__name__}.{field.name} is out of bounds"
            raise WireError(msg)
    message: Message = kind(*values)
    return message


def _is_within(name: str, type_name: str, value: Any) -> bool:
    if type_name == "bytes":
        length = HEADER_BYTES if name == "header" else PRODUCER_ID_BYTES
        return type(value) is bytes and len(value) == length
    if type_name == "int":
        return type(value) is int and 0 <= value <= POSITION_MAX
    if type_name == "float":
        return type(value) in (int, float) and 0 <= value < _TIMEOUT_S_MAX
    if type_name == "bool":
        return type(value) is bool
    if type(value) is not str or len(value) > _TEXT_CHARS_MAX:
        return False
    return not name.endswith("quantity") or _QUANTITY.match(value) is not None
