"""The ledger's tables, and the checksum that each row carries.

SQLite keeps none of its own, so that a flipped bit in a position or in a sum would be believed. With one in
each row, and no index beside the tables, whatever changed in the file by itself is found when it is read.

Rule: the tables are made from this text alone, and a file whose tables read differently is not opened.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import msgpack

from settle_mp.core.books import BUCKETS

#: Kept in `meta`; a ledger of another version is neither opened nor put aside.
SCHEMA_VERSION: Final = 2

_CHECKSUM: Final = "checksum"


class Table:
    """One table: its columns, and its rows with their checksums.

    Args:
        name: Its name.
        columns: What stands between the parentheses of CREATE TABLE, a column each.
        is_numbered: Whether SQLite gives each row a number, `id`, which is in no checksum.
        key: The columns of the primary key of a table that is not numbered.
    """

    def __init__(self, name: str, *columns: str, is_numbered: bool = False, key: str = "") -> None:
        self.name = name
        self.columns: tuple[str, ...] = tuple(column.split()[0] for column in columns)
        self.is_numbered = is_numbered
        lines = ["id INTEGER PRIMARY KEY"] if is_numbered else []
        lines += [*columns, f"{_CHECKSUM} INTEGER"]
        if key:
            lines.append(f"PRIMARY KEY ({key})")
        without = " WITHOUT ROWID" if key else ""
        self.create_sql: str = f"CREATE TABLE {name} ({', '.join(lines)}){without}"
        names = ", ".join((*self.columns, _CHECKSUM))
        places = ", ".join("?" * (len(self.columns) + 1))
        rest = f"INTO {name} ({names}) VALUES ({places})"
        self.insert_sql: str = f"INSERT {rest}"
        #: The same with a number of our own choice before the columns.
        self.insert_numbered_sql: str = f"INSERT INTO {name} (id, {names}) VALUES (?, {places})"  # noqa: S608
        self.replace_sql: str = f"INSERT OR REPLACE {rest}"
        self.select_sql: str = f"SELECT {'id, ' if is_numbered else ''}{names} FROM {name}"  # noqa: S608  our own text
        self._seed = crc32(name.encode())

    def with_checksum(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """A row as it is written."""
        return (*values, crc32(msgpack.packb(values), self._seed))

    def is_sound(self, row: tuple[Any, ...]) -> bool:
        """Whether a row that was read is the one that was written."""
        values = row[1:-1] if self.is_numbered else row[:-1]
        try:
            return bool(crc32(msgpack.packb(values), self._seed) == row[-1])
        except (ValueError, TypeError, OverflowError):  # what msgpack can't pack was never written
            return False


# Columns of times, and of what may be None, are declared without a type: SQLite would turn an int into a
# float on the way in, and the row would no longer be the one that its checksum was made of.

META: Final = Table("meta", "name TEXT", "value TEXT", key="name")
TOTALS: Final = Table("totals", "bucket TEXT", "events INTEGER", "quantity TEXT", key="bucket")
ROW_COUNTS: Final = Table("row_counts", "table_name TEXT", "rows_count INTEGER", key="table_name")
COUNTERS: Final = Table("counters", "name TEXT", "value INTEGER", key="name")
RESIDUES: Final = Table(
    "residues", "id INTEGER PRIMARY KEY", "name TEXT", "text TEXT", "at_s", "acknowledged_s"
)
PRODUCERS: Final = Table(
    "producers",
    "id BLOB",
    "position INTEGER",
    "sealed_position INTEGER",
    "start_position INTEGER",
    "events_before INTEGER",
    "events INTEGER",
    "quantity TEXT",
    "sealed_events_count INTEGER",
    "name TEXT",
    "host TEXT",
    "key_mode TEXT",
    "is_volatile INTEGER",
    "is_unseen INTEGER",
    "dropped_events INTEGER",
    "dropped_quantity TEXT",
    "seen_s",
    "gone_s",
    key="id",
)
DEPARTED: Final = Table(
    "departed",
    "slot INTEGER",
    "producers_count INTEGER",
    "events INTEGER",
    "quantity TEXT",
    "dropped_events INTEGER",
    "dropped_quantity TEXT",
    key="slot",
)
TROUBLES: Final = Table(
    "troubles",
    "producer BLOB",
    "start INTEGER",
    "events_count INTEGER",
    "reason TEXT",
    key="producer",
)
FRAMES: Final = Table(
    "frames",
    "producer BLOB",
    "first INTEGER",
    "last INTEGER",
    "base INTEGER",
    "hour INTEGER",
    "cut_s",
    "events INTEGER",
    "quantity TEXT",
    "skipped BLOB",
    "body BLOB",
    is_numbered=True,
)
SUMS: Final = Table(
    "sums",
    "hour INTEGER",
    "first_s",
    "last_s",
    "events INTEGER",
    "quantity TEXT",
    "entries BLOB",
    is_numbered=True,
)
SEALS: Final = Table(
    "seals",
    "number INTEGER PRIMARY KEY",
    "batches_count INTEGER",
    "failed_count INTEGER",
    "reaches BLOB",
)
BATCHES: Final = Table(
    "batches",
    "id INTEGER PRIMARY KEY",
    "seal INTEGER",
    "root INTEGER",
    "hour INTEGER",
    "key TEXT",
    "state TEXT",
    "tries INTEGER",
    "not_before_s",
    "oldest_s",
    "attempted_s",
    "first_in_doubt_s",
    "changed_s",
    "reason TEXT",
    "row_numbers BLOB",
    "rows_count INTEGER",
    "events INTEGER",
    "quantity TEXT",
    "digest BLOB",
)
# Apart from `batches`, so that a try does not read and write 10 KiB of body with each change of state.
BODIES: Final = Table("bodies", "batch INTEGER PRIMARY KEY", "lots BLOB", "body BLOB")
FAMILIES: Final = Table(
    "families",
    "root INTEGER PRIMARY KEY",
    "rows_count INTEGER",
    "accepted_count INTEGER",
    "refused_count INTEGER",
    "held_count INTEGER",
    "rounds_count INTEGER",
    "settled_mark INTEGER",
    "members_count INTEGER",
)
DEAD_LETTERS: Final = Table(
    "dead_letters",
    "origin TEXT",
    "producer BLOB",
    "hour INTEGER",
    "reason TEXT",
    "at_s",
    "events INTEGER",
    "quantity TEXT",
    "payload BLOB",
    is_numbered=True,
)
RECEIPTS: Final = Table(
    "receipts", "bucket TEXT", "hour INTEGER", "events INTEGER", "quantity TEXT", key="bucket, hour"
)

#: Tables whose rows are fixed: each must be there, by name.
FIXED: Final = (META, TOTALS, ROW_COUNTS)
#: Tables whose rows come and go, and are counted in `row_counts`.
COUNTED: Final = (
    COUNTERS,
    RESIDUES,
    PRODUCERS,
    DEPARTED,
    TROUBLES,
    FRAMES,
    SUMS,
    SEALS,
    BATCHES,
    BODIES,
    FAMILIES,
    DEAD_LETTERS,
    RECEIPTS,
)
TABLES: Final = (*FIXED, *COUNTED)

#: What was ever in doubt, a batch once a try; no bucket, since it never goes down.
IN_DOUBT_EVER: Final = "in_doubt_ever"
TOTAL_NAMES: Final = ("committed", *BUCKETS, IN_DOUBT_EVER)
#: Names in `meta`, with what a new ledger begins with; its own id and time are added.
META_NAMES: Final = {
    "schema": str(SCHEMA_VERSION),
    "id": "",
    "born_s": "",
    "key_mode": "",
    "seal_number": "0",
    "batch_number": "0",
    "settled_count": "0",
    "raw_bytes": "0",
}

#: Characters of a text from elsewhere (a reason, a name) that are kept.
TEXT_CHARS_MAX: Final = 500


def plain_text(text: str) -> str:
    """A text from elsewhere as it can be stored: bounded, and without what UTF-8 can't hold."""
    return text[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def first_rows(ledger_id: bytes, now_s: float) -> list[tuple[Table, list[tuple[Any, ...]]]]:
    """The rows of the fixed tables in a new ledger."""
    meta = META_NAMES | {"id": ledger_id.hex(), "born_s": repr(float(now_s))}
    return [
        (META, list(meta.items())),
        (TOTALS, [(name, 0, "0") for name in TOTAL_NAMES]),
        (ROW_COUNTS, [(table.name, 0) for table in COUNTED]),
    ]
