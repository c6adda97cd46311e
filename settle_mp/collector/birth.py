"""A new ledger is born whole: built and synced under another name, then renamed.

A death in the middle leaves a name that nobody opens, and no database that would look like a damaged one.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from settle_mp.collector import schema
from settle_mp.collector.ledger_error import ledger_error
from settle_mp.collector.sidefile import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

_BUILDING: Final = "ledger.new"
#: What SQLite may put beside a database.
COMPANIONS: Final = ("-wal", "-shm", "-journal")


def make_ledger(path: Path, ledger_id: bytes, now_s: float) -> None:
    """Make a ledger's file where there is none.

    Raises:
        LedgerError: It can't be made.
    """
    building = path.with_name(_BUILDING)
    try:
        _remove(building)
        # SQLite gives its companions the rights of the file that it finds.
        os.close(os.open(building, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(building, isolation_level=None)
        try:
            _fill(connection, ledger_id, now_s)
            # Now, and not by whoever opens it first: a death in the middle of that would leave a journal that
            # has to be rolled back, and a reader such as `status` may not. Closing takes the log away again.
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
        building.rename(path)
        sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        with contextlib.suppress(OSError):
            _remove(building)
        raise ledger_error(error) from error


def _fill(connection: sqlite3.Connection, ledger_id: bytes, now_s: float) -> None:
    # Without a write-ahead log, since only the file itself is renamed.
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA fullfsync=ON")
    connection.execute("BEGIN IMMEDIATE")
    for table in schema.TABLES:
        connection.execute(table.create_sql)
    for table, rows in schema.first_rows(ledger_id, now_s):
        connection.executemany(table.insert_sql, [table.with_checksum(row) for row in rows])
    connection.execute("COMMIT")


def _remove(path: Path) -> None:
    for suffix in ("", *COMPANIONS):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
