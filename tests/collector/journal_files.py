"""Journals as their producers leave them on disk, written by hand: every byte is the test's to choose."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from settle_mp import statedir
from settle_mp.core.event import pack_event
from settle_mp.core.record import (
    HEADER_BYTES,
    Identity,
    Slot,
    encode_identity,
    encode_mark,
    encode_record,
    encode_slot,
    segment_seed,
)
from settle_mp.core.window import HOUR_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HOUR = 500_000
#: A time within the hour that all marks here name, unless a test says otherwise.
TIME_S = HOUR * HOUR_S + 60.0
SEGMENT_BYTES = 4096
#: A journaled list of four whose quantity is none: no worker of ours writes it.
NOT_AN_EVENT = b"\x94\xa1u\xa1E\xa1x\xc0"


def mark(at_s: float = TIME_S) -> bytes:
    """The payload of a time mark."""
    return encode_mark(at_s)


def event(number: int, size: int = 0) -> bytes:
    """The payload of one unit of a user that no other number has."""
    return pack_event(f"user_{number}", "AI_QUERY", 1, {"pad": "x" * size} if size else None)


def events(start: int, stop: int) -> list[bytes]:
    """The payloads of a range of events, behind a time mark."""
    return [mark(), *(event(number, 7 * number % 50) for number in range(start, stop))]


class JournalFiles:
    """The folder of one producer: header, lock (free, so it is dead) and segments.

    Attributes:
        folder: Where it is.
        end: The position behind the last record.
    """

    def __init__(self, journals: Path, producer: bytes = bytes(range(16))) -> None:
        self.producer = producer
        self.folder = journals / producer.hex()
        self.folder.mkdir(parents=True)
        (self.folder / statedir.LOCK_NAME).touch()
        self.end = 0

    def write_header(self, courier: Slot = Slot(), drops: Slot = Slot(), key_mode: str = "") -> None:  # noqa: B008
        """Say who it is, up to where which ledger has committed, and what was dropped."""
        identity = Identity(
            producer=self.producer,
            key_mode=key_mode,
            name="a test's",
            host=socket.gethostname(),
            born_s=TIME_S,
            facts={},
        )
        image = bytearray(encode_identity(identity).ljust(HEADER_BYTES, b"\0"))
        for writer, slot in (("courier", courier), ("drops", drops)):
            if slot.sequence:
                at, data = encode_slot(writer, slot)
                image[at : at + len(data)] = data
        (self.folder / statedir.HEADER_NAME).write_bytes(image)

    def add(self, payloads: Sequence[bytes], *, size: int = SEGMENT_BYTES, nonce: str = "aa") -> Path:
        """Add a segment behind what is there."""
        path = self.put(self.end, payloads, size=size, nonce=nonce)
        self.end += sum(len(encode_record(payload, 0, 0)) for payload in payloads)
        return path

    def put(
        self, base: int, payloads: Sequence[bytes], *, size: int = SEGMENT_BYTES, nonce: str = "aa"
    ) -> Path:
        """Write a segment anywhere: records from its start on, zeros behind."""
        body, seed = b"", segment_seed(self.producer, base)
        for payload in payloads:
            body += encode_record(payload, seed, len(body))
        assert len(body) <= size
        path = self.folder / statedir.segment_name(base, size, nonce)
        path.write_bytes(body.ljust(size, b"\0"))
        return path


def flip(path: Path, at: int, bits: int = 0x10) -> None:
    """Change some bits of one byte of a file."""
    body = bytearray(path.read_bytes())
    body[at] ^= bits
    path.write_bytes(body)


def cut_off(path: Path, size: int) -> None:
    """Truncate a file."""
    os.truncate(path, size)
