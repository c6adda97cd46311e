"""Journals without the client around them, made as a producer makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.core.event import pack_event
from settle_mp.core.record import HEAD_BYTES, Identity
from settle_mp.worker.journal import CLOSED, Journal
from settle_mp.worker.room import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.worker.segment import Appender

MEBIBYTE = 1024 * 1024
LEDGER = b"L" * 16
IDENTITY = Identity(producer=b"", key_mode="test", name="test", host="here", born_s=1.0, facts={})
#: All events of `event` take as many bytes.
EVENT_BYTES = HEAD_BYTES + len(pack_event("x".ljust(60, "."), "AI_QUERY", 1, None))


def event(user: str) -> bytes:
    """Pack an event of a user; all are of one length."""
    return pack_event(user.ljust(60, "."), "AI_QUERY", 1, None)


def names(users: list[str]) -> list[str]:
    """Take off what `event` filled names up with."""
    return [user.rstrip(".") for user in users]


def build(
    journals: Path, *, bytes_max: int = 64 * MEBIBYTE, host_bytes_max: int = 4096 * MEBIBYTE
) -> Journal:
    """Make a journal that is ready to be appended to."""
    journals.mkdir(exist_ok=True)
    slot: list[Appender] = [CLOSED]
    limits = Limits(bytes_max=bytes_max, host_bytes_max=host_bytes_max, mode=0o600)
    journal = Journal.build(slot, journals, identity=IDENTITY, limits=limits)
    slot[0] = journal.appender
    return journal


def in_memory() -> Journal:
    """Make a journal without a folder."""
    slot: list[Appender] = [CLOSED]
    journal = Journal.in_memory(slot, identity=IDENTITY)
    slot[0] = journal.appender
    return journal


def room(journal: Journal) -> int:
    """Bytes left in the segment that is appended to."""
    newest = journal._chain.newest
    return newest.size - newest.end


def fill(journal: Journal, user: str = "filler") -> int:
    """Append until the next event needs another segment; returns how many it took."""
    count = 0
    while room(journal) >= EVENT_BYTES:
        journal.append(event(user))
        count += 1
    return count


def folder_of(journal: Journal) -> Path:
    """Find a journal's folder."""
    folder = journal._folder
    assert folder is not None
    return folder
