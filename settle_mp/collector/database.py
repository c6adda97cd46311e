"""The ledger's file: one SQLite connection, its transactions and its rows.

Rule 1: an error anywhere in a transaction undoes all of it, whoever catches it on the way.
Rule 2: when COMMIT itself fails, nobody knows what the file holds: the connection is closed for good.
Rule 3: every row that is written or taken away is counted; every row that is read is checked.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import quote

from settle_mp.collector import schema
from settle_mp.collector.ledger_error import (
    SQLITE_ERRORS,
    LedgerDamagedError,
    LedgerError,
    ledger_error,
    opening_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from settle_mp.collector.schema import Table

#: How long a statement waits for another process (a reader that checkpoints at its end), in seconds.
BUSY_TIMEOUT_S: Final = 5.0
#: The write-ahead log is cut back to this after a checkpoint; its blocks are used again, also on a full disk.
WAL_BYTES: Final = 16 * 1024 * 1024
#: Pages in the log after which it is written into the file, somewhat below the above. With SQLite's own 1,000
#: a busy ledger syncs twice as often for frames that the next seal takes away again.
_CHECKPOINT_PAGES: Final = 3000

_PRAGMAS: Final = (
    # Only FULL keeps what was committed through a loss of power (sqlite.org/pragma.html#pragma_synchronous).
    "synchronous=FULL",
    "fullfsync=ON",
    f"journal_size_limit={WAL_BYTES}",
    f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
    # Where it is on (Debian's SQLite), each page that a seal takes away is written to the log as zeros.
    "secure_delete=OFF",
    # A map of a file that gets shorter is SIGBUS.
    "mmap_size=0",
    "cell_size_check=ON",
    "trusted_schema=OFF",
)


class Database:
    """One connection to a ledger's file.

    Args:
        path: The file, which must be there.
        is_read_only: Whether to read one snapshot, for as long as it is open, and write nothing.

    Attributes:
        at_boundary: Called before BEGIN and after COMMIT.
        on_full: Called when the disk was full for something other than intake.
    """

    def __init__(self, path: Path, *, is_read_only: bool = False) -> None:
        self.at_boundary: Callable[[], None] = _nothing
        self.on_full: Callable[[], None] = _nothing
        self._path = path
        self._is_read_only = is_read_only
        self._depth = 0
        self._is_broken = False
        self._is_intake = False
        self._connection: sqlite3.Connection | None = None
        self._file_id = (0, 0)
        self.open()

    def open(self) -> None:
        """Open the file again, after `close`."""
        mode = "ro" if self._is_read_only else "rw"
        try:
            self._connection = sqlite3.connect(
                f"file:{quote(str(self._path))}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=BUSY_TIMEOUT_S,
                cached_statements=256,
            )
            self._file_id = self._stat()
            for pragma in _PRAGMAS:
                self._connection.execute(f"PRAGMA {pragma}")
            # For the first time in a new file, or after somebody's tool has set it back.
            self._connection.execute("BEGIN" if self._is_read_only else "PRAGMA journal_mode=WAL")
            tables = self._connection.execute("SELECT sql FROM sqlite_master ORDER BY rowid").fetchall()
        except (*SQLITE_ERRORS, OSError) as error:
            self.close()
            raise opening_error(error) from error
        if [sql for (sql,) in tables] != [table.create_sql for table in schema.TABLES]:
            version = self._foreign_version()
            self.close()
            if version:
                msg = f"it is of version {version}, this settle-mp works with {schema.SCHEMA_VERSION}"
                raise LedgerError(msg)
            raise LedgerDamagedError("its tables are not those of a ledger")

    def close(self) -> None:
        """Close the connection. What was not committed is undone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except SQLITE_ERRORS:
                return  # the descriptor is closed all the same, and the next start checks the file

    def used_bytes(self) -> int:
        """Bytes that its rows take, and what the log takes beyond its usual size.

        Raises:
            LedgerError: The file is not where it was: what were written now would be gone with our end.
        """
        try:
            if self._stat() != self._file_id:
                raise LedgerError("another file took the place of the ledger's", is_outcome_unknown=True)
            wal_bytes = self._path.with_name(self._path.name + "-wal").stat().st_size
        except OSError as error:
            msg = f"the ledger's files are gone: {error}"
            raise LedgerError(msg, is_outcome_unknown=True) from error
        page_bytes = self.value("PRAGMA page_size")
        pages = self.value("PRAGMA page_count") - self.value("PRAGMA freelist_count")
        return int(pages * page_bytes + max(0, wal_bytes - WAL_BYTES))

    def cut_log(self) -> None:
        """Write the log into the file and cut it back, if no reader keeps it from that."""
        if self._depth:
            return
        self.rows("PRAGMA busy_timeout=0")  # a reader may take its time, and we have other things to do
        try:
            self.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self.rows(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}")

    def _stat(self) -> tuple[int, int]:
        found = self._path.stat()
        return found.st_dev, found.st_ino

    def _foreign_version(self) -> str | None:
        """The version of a ledger that is not of ours, where that can be believed."""
        try:
            row = self.select(schema.META, "WHERE name = 'schema'")
        except LedgerError:
            return None
        return row[0][1] if row and row[0][1] != str(schema.SCHEMA_VERSION) else None

    # --- Transactions ---

    @contextmanager
    def transaction(self, *, is_intake: bool = False) -> Iterator[None]:
        """One transaction; inner ones join the outer one.

        Args:
            is_intake: Whether it takes up space, and must not use the reserve that others may.
        """
        is_outermost = self._depth == 0
        if is_outermost:
            self._begin()
        self._is_intake = self._is_intake or is_intake
        self._depth += 1
        try:
            yield
        except BaseException:
            self._is_broken = True
            raise
        finally:
            self._depth -= 1
            if is_outermost and self._is_broken:
                self._roll_back()
        if is_outermost and self._is_broken:
            raise LedgerError("a step of this transaction failed, so that all of it was undone")
        if is_outermost:
            self._commit()

    def _begin(self) -> None:
        self._is_broken = self._is_intake = False
        self.at_boundary()
        try:
            self._execute("BEGIN IMMEDIATE")
        except LedgerError:
            self._roll_back()
            raise

    def _commit(self) -> None:
        try:
            self._open_connection().execute("COMMIT")
            self.at_boundary()
        except (*SQLITE_ERRORS, LedgerError) as error:
            # A failed sync leaves the commit in the log or not; rolled back here, it may still be read back
            # at the next start. Only what the file says after opening it anew is true.
            self.close()
            ours = ledger_error(error)
            ours.is_outcome_unknown = True
            raise self._noted(ours) from error

    def _roll_back(self) -> None:
        connection = self._connection
        try:
            # SQLite undoes some transactions by itself, when the disk is full for one.
            if connection is not None and connection.in_transaction:
                connection.execute("ROLLBACK")
        except SQLITE_ERRORS:
            self.close()

    # --- Statements ---

    def run(self, sql: str, values: Iterable[Any] = ()) -> int:
        """Change something within a transaction. Returns how many rows it touched."""
        self._refuse_outside_transaction()
        return self._execute(sql, values).rowcount

    def rows(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        try:
            return self._open_connection().execute(sql, tuple(values)).fetchall()
        except SQLITE_ERRORS as error:
            self._fail(error)

    def value(self, sql: str, values: Iterable[Any] = ()) -> Any:
        """The one value of a query; None when it has no row."""
        rows = self.rows(sql, values)
        return rows[0][0] if rows else None

    def insert(self, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add new rows."""
        written = [table.with_checksum(row) for row in rows]
        self._write_many(table.insert_sql, written)
        self._count(table, len(written))

    def insert_numbered(self, table: Table, first: int, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add new rows of a numbered table under numbers from `first` on."""
        written = [(number, *table.with_checksum(row)) for number, row in enumerate(rows, first)]
        self._write_many(table.insert_numbered_sql, written)
        self._count(table, len(written))

    def replace(self, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
        """Write rows again that are there."""
        self._write_many(table.replace_sql, [table.with_checksum(row) for row in rows])

    def delete(self, table: Table, where: str = "1", values: Iterable[Any] = ()) -> int:
        """Take rows away. Returns how many there were."""
        gone_count = self.run(f"DELETE FROM {table.name} WHERE {where}", values)  # noqa: S608  our own text
        self._count(table, -gone_count)
        return gone_count

    def select(self, table: Table, rest: str = "", values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows without their checksums; a numbered row begins with its number.

        Raises:
            LedgerDamagedError: A row is not the one that was written.
        """
        rows = self.rows(f"{table.select_sql} {rest}", values)
        for row in rows:
            if not table.is_sound(row):
                msg = f"a row of {table.name} fails its check"
                raise LedgerDamagedError(msg)
        return [row[:-1] for row in rows]

    def is_sound(self, table: Table) -> bool:
        """Whether each row of a table is the one that was written."""
        try:
            return all(map(table.is_sound, self._open_connection().execute(table.select_sql)))
        except SQLITE_ERRORS as error:
            self._fail(error)

    def meta(self, name: str) -> str:
        """One value of `meta`."""
        rows = self.select(schema.META, "WHERE name = ?", (name,))
        if not rows:
            msg = f"{name} is missing in meta"
            raise LedgerDamagedError(msg)
        return str(rows[0][1])

    def set_meta(self, name: str, value: str) -> None:
        """Change one value of `meta`."""
        self.meta(name)
        self.replace(schema.META, [(name, value)])

    def next_number(self, name: str) -> int:
        """Count up a number in `meta`, and return it."""
        number = int(self.meta(name)) + 1
        self.replace(schema.META, [(name, str(number))])
        return number

    def _count(self, table: Table, by: int) -> None:
        if not by:
            return
        rows = self.select(schema.ROW_COUNTS, "WHERE table_name = ?", (table.name,))
        if not rows:
            msg = f"the row count of {table.name} is missing"
            raise LedgerDamagedError(msg)
        self.replace(schema.ROW_COUNTS, [(table.name, rows[0][1] + by)])

    def _write_many(self, sql: str, rows: list[tuple[Any, ...]]) -> None:
        self._refuse_outside_transaction()
        try:
            self._open_connection().executemany(sql, rows)
        except SQLITE_ERRORS as error:
            self._fail(error)

    def _execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._open_connection().execute(sql, tuple(values))
        except SQLITE_ERRORS as error:
            self._fail(error)

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise LedgerError("the ledger is closed", is_outcome_unknown=not self._is_read_only)
        return self._connection

    def _refuse_outside_transaction(self) -> None:
        # SQLite may have undone the transaction already: what ran now would be committed by itself.
        if not self._depth or self._is_broken:
            raise LedgerError("an earlier step of this transaction failed, so that it can't go on")

    def _fail(self, error: Exception) -> NoReturn:
        self._is_broken = True
        raise self._noted(ledger_error(error)) from error

    def _noted(self, error: LedgerError) -> LedgerError:
        if error.is_full and not self._is_intake:
            self.on_full()
        return error


def _nothing() -> None:
    """No hook."""
