"""The store: one SQLite file, and the rule that a change and its answer are one transaction.

Rule 1: what a request changed, and the answer kept under its key, are committed together or not at all.
Rule 2: sums are exact decimal text, added by SQLite calling back into `exact`.

One connection, used by the event loop's thread alone: each transaction is well under a millisecond, and
requests are applied one after the other without a lock.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from settle_mp.sandbox import exact
from settle_mp.sandbox.answers import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Says that a file is ours ("SMPS"), and how it is laid out.
APPLICATION_ID: Final = 0x534D5053
SCHEMA: Final = 2

_TABLES: Final = """
CREATE TABLE answers (key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, status INTEGER NOT NULL,
    body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE requests (id INTEGER PRIMARY KEY, key TEXT, received_at TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE rows (id INTEGER PRIMARY KEY, request_id INTEGER NOT NULL REFERENCES requests (id),
    position INTEGER NOT NULL, user_id TEXT NOT NULL, event_type TEXT NOT NULL, quantity TEXT NOT NULL);
CREATE INDEX rows_of_user ON rows (user_id);
CREATE TABLE types (event_type TEXT PRIMARY KEY, quantity TEXT NOT NULL, rows INTEGER NOT NULL,
    requests INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE wallets (user_id TEXT PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)) WITHOUT ROWID;
CREATE TABLE transfers (id INTEGER PRIMARY KEY, user_id TEXT NOT NULL, kind TEXT NOT NULL,
    amount INTEGER NOT NULL, balance_after INTEGER NOT NULL, description TEXT, metadata TEXT, key TEXT,
    created_at TEXT NOT NULL);
CREATE INDEX transfers_of_user ON transfers (user_id, id);
"""


class StoreError(Exception):
    """A file that can't be used as the sandbox's database; the message says why."""


class Store:
    """The sandbox's database.

    Args:
        path: The file, made when it is absent; ":memory:" for none.

    Raises:
        StoreError: When the file can't be opened or is something else's.
    """

    def __init__(self, path: str) -> None:
        try:
            # Opened by one thread, used by the one that serves; never by both at a time.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except sqlite3.Error as error:
            raise _unusable(path, error) from error
        try:
            self._prepare(path)
        except sqlite3.Error as error:
            self._db.close()
            raise _unusable(path, error) from error
        except StoreError:
            self._db.close()
            raise

    def _prepare(self, path: str) -> None:
        self._db.create_function("exact_add", 2, exact.add, deterministic=True)
        with self._transaction():
            self._claim(path)
        # Only now that the file is known to be ours: this is written into it.
        self._db.execute("PRAGMA journal_mode = WAL")
        # Survives any death of the process; only the loss of the machine's power can harm it.
        self._db.execute("PRAGMA synchronous = OFF")

    def _claim(self, path: str) -> None:
        (owner,) = self._db.execute("PRAGMA application_id").fetchone()
        (schema,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables_count,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if owner == 0 and tables_count == 0:
            self._create()
        elif owner != APPLICATION_ID:
            raise StoreError(f"{path} is a database of something else; name another file")
        elif schema != SCHEMA:
            raise StoreError(f"{path} has layout {schema} and this version reads {SCHEMA}; remove the file")

    def _create(self) -> None:
        for statement in _TABLES.split(";\n")[:-1]:
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield self._db
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def settle(
        self, key: str | None, fingerprint: bytes, change: Callable[[sqlite3.Connection], Answer]
    ) -> Answer:
        """Make a change and keep its answer under the key, in one transaction; None keeps none."""
        with self._transaction() as db:
            answer = change(db)
            if key is not None:
                db.execute(
                    "INSERT INTO answers VALUES (?, ?, ?, ?)", (key, fingerprint, answer.status, answer.body)
                )
        return answer

    def kept(self, key: str) -> tuple[bytes, Answer] | None:
        """Give the fingerprint and the answer kept under a key."""
        found = self._db.execute(
            "SELECT fingerprint, status, body FROM answers WHERE key = ?", (key,)
        ).fetchone()
        return None if found is None else (found[0], Answer(status=found[1], body=found[2]))

    def forget_keys(self) -> int:
        """Forget all keys and their answers; returns how many there were."""
        return self._db.execute("DELETE FROM answers").rowcount

    def read(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a query and give all its rows."""
        return self._db.execute(query, parameters).fetchall()

    def close(self) -> None:
        """Close the file; SQLite then folds the write-ahead log back into it."""
        self._db.close()


def _unusable(path: str, error: sqlite3.Error) -> StoreError:
    return StoreError(f"{path} can't be used as the sandbox's database: {error}")
