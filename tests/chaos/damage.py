"""Files of a state folder, read and spoiled without settle-mp, and what that destroys."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import struct
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

SECTOR: Final = 512
#: A record's head: length, checksum, offset.
_HEAD: Final = struct.Struct("<HII")
_OFFSET_AT: Final = 6
_MARK_BYTES: Final = 9
#: A header's slots with a committed position: two of the courier's, two of the collector's.
_SLOTS_AT: Final = (2048, 2176, 2560, 2688)
_SLOT: Final = struct.Struct("<Q16sQQQ64s")


class Record(NamedTuple):
    """Where a record stands in its segment's file, and whether it is an event."""

    start: int
    end: int
    is_event: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment's file, and the position of its first byte."""

    path: Path
    base: int

    def records(self) -> list[Record]:
        """Its records, by their lengths."""
        body, at, found = self.path.read_bytes(), 0, []
        while length := int.from_bytes(body[at : at + 2], "little"):
            end = at + _HEAD.size + length
            found.append(Record(at, end, length != _MARK_BYTES or body[at + _HEAD.size] != 0xCB))
            at = end
        return found


def dead_journals(state_dir: Path) -> Iterator[Path]:
    """The folders of journals whose producers are dead."""
    for folder in sorted((state_dir / "journals").glob("[!.]*")):
        with contextlib.suppress(FileNotFoundError):
            if not _is_locked(folder / "lock"):
                yield folder


def _is_locked(path: Path) -> bool:
    with path.open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def segments(folder: Path) -> list[Segment]:
    """A journal's segments in order."""
    paths = sorted(folder.glob("*.seg"))
    return [Segment(path, int(path.name.split("-")[0], 16)) for path in paths]


def truncate(segment: Segment, committed: int, dice: random.Random) -> int:
    """Cut a segment off at a sector within its records. Returns how many uncommitted events that destroys."""
    records = segment.records()
    cut = SECTOR * dice.randrange(records[-1].end // SECTOR + 1)
    os.truncate(segment.path, cut)
    return _destroyed(segment, committed, [each for each in records if each.end > cut])


def flip(segment: Segment, committed: int, dice: random.Random) -> int:
    """Flip a bit of a record. Returns how many uncommitted events that destroys."""
    record = dice.choice(segment.records())
    at = dice.randrange(record.start, record.end)
    _flip(segment.path, at, 1 << dice.randrange(8))
    # No checksum covers where its writer saw the segment's end; the event can be read all the same.
    is_harmless = at - record.start in range(_OFFSET_AT, _HEAD.size)
    return _destroyed(segment, committed, [] if is_harmless else [record])


def _flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (was,) = file.read(1)
        file.seek(at)
        file.write(bytes([was ^ bit]))


def _destroyed(segment: Segment, committed: int, records: list[Record]) -> int:
    return sum(each.is_event and segment.base + each.start >= committed for each in records)


# --- The ledger ---


@dataclass(frozen=True, slots=True)
class Held:
    """What a ledger holds that is not confirmed, in events.

    Attributes:
        events: All of it, but for what is still journaled: no header says yet that it was taken.
        perhaps_sent: Of these, what may have been sent already.
        positions: Up to where each producer is committed.
    """

    events: int
    perhaps_sent: int
    positions: dict[str, int]


class Progress(NamedTuple):
    """How far a ledger has come that a collector works on, and how much of either kind it holds."""

    seal_number: int
    settled_count: int
    frames_count: int
    batches_count: int


def progress(state_dir: Path) -> Progress:
    """Read it; zeros where it can't be read now."""
    uri = f"file:{state_dir}/ledger/ledger.db?mode=ro"
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as database:
        meta = dict(database.execute("SELECT name, value FROM meta"))
        counts = [
            database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608  our own text
            for table in ("frames", "batches")
        ]
        return Progress(int(meta["seal_number"]), int(meta["settled_count"]), *counts)
    return Progress(0, 0, 0, 0)


def held(state_dir: Path) -> Held:
    """Read a ledger that nobody has open, from a copy: opening it would change it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "ledger"
        shutil.copytree(state_dir / "ledger", copy)
        with closing(sqlite3.connect(copy / "ledger.db")) as database:

            def total(rows: str) -> int:
                sql = f"SELECT COALESCE(SUM(events), 0) FROM {rows}"  # noqa: S608  our own text
                return int(database.execute(sql).fetchone()[0])

            stored = sum(total(table) for table in ("frames", "sums", "batches"))
            rows = database.execute("SELECT id, position FROM producers")
            positions = {each.hex(): at for each, at in rows}
            return Held(
                events=stored - _unpublished(state_dir, positions),
                perhaps_sent=total("batches WHERE state = 'attempting' OR first_in_doubt_s IS NOT NULL"),
                positions=positions,
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as a ledger has it: its events, whether it may have been sent, and all that its rows say."""

    events: int
    is_perhaps_sent: bool
    rows: tuple[object, ...]


def batches(state_dir: Path) -> dict[int, Batch]:
    """Read the batches of a ledger that nobody has open, from a copy; none where that can't be read."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(sqlite3.Error):
        copy = Path(folder) / "ledger"
        shutil.copytree(state_dir / "ledger", copy)
        with closing(sqlite3.connect(copy / "ledger.db")) as database:
            database.text_factory = bytes  # a bit that flips may leave what is no text
            sql = """
                SELECT id, events, state = 'attempting' OR first_in_doubt_s IS NOT NULL, batches.*, bodies.*
                FROM batches LEFT JOIN bodies ON bodies.batch = batches.id
            """
            for batch, events, is_perhaps_sent, *rows in database.execute(sql):
                found[batch] = Batch(events, bool(is_perhaps_sent), tuple(rows))
    return found


def held_batches(state_dir: Path) -> set[int]:
    """Which batches a ledger holds back that a collector works on; none where it can't be read now."""
    uri = f"file:{state_dir}/ledger/ledger.db?mode=ro"
    with contextlib.suppress(sqlite3.Error), closing(sqlite3.connect(uri, uri=True)) as database:
        return {batch for (batch,) in database.execute("SELECT id FROM batches WHERE state = 'held'")}
    return set()


def _unpublished(state_dir: Path, positions: Mapping[str, int]) -> int:
    """The events that are committed, and that no header tells of: a kill came in between."""
    count = 0
    for name, committed in positions.items():
        folder = state_dir / "journals" / name
        if folder.is_dir():
            told = _told(folder)
            for segment in segments(folder):
                count += sum(
                    each.is_event and told <= segment.base + each.start < committed
                    for each in segment.records()
                )
    return count


def _told(folder: Path) -> int:
    """The committed position in a journal's header, whoever wrote it."""
    header, told = (folder / "header").read_bytes(), 0
    for at in _SLOTS_AT:
        slot = header[at : at + _SLOT.size]
        if header[at + _SLOT.size :][:4] == crc32(slot).to_bytes(4, "little"):
            told = max(told, _SLOT.unpack(slot)[2])
    return told


def ledger_files(state_dir: Path) -> list[Path]:
    """The database and what SQLite keeps beside it."""
    return sorted((state_dir / "ledger").glob("ledger.db*"))


def flip_body(state_dir: Path, dice: random.Random) -> None:
    """Flip a bit of the body of one of a ledger's batches. SQLite finds nothing wrong with that."""
    with closing(sqlite3.connect(state_dir / "ledger/ledger.db")) as database:
        batch, body = dice.choice(database.execute("SELECT batch, body FROM bodies").fetchall())
        at = dice.randrange(len(body))
        flipped = body[:at] + bytes([body[at] ^ 1 << dice.randrange(8)]) + body[at + 1 :]
        database.execute("UPDATE bodies SET body = ? WHERE batch = ?", (flipped, batch))
        database.commit()


def spoil_ledger(state_dir: Path, name: str, dice: random.Random) -> None:
    """Cut a file of the ledger off at a sector, or flip a bit of it."""
    path = state_dir / "ledger" / name
    size = path.stat().st_size if path.exists() else 0
    if size == 0:
        return
    if dice.random() < 0.5:
        os.truncate(path, SECTOR * dice.randrange(size // SECTOR + 1))
    else:
        _flip(path, dice.randrange(size), 1 << dice.randrange(8))
