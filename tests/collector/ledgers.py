"""Real ledgers for the tests: made, filled with a row of every kind, looked at and hurt."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

from settle_mp.collector import schema
from settle_mp.collector.ledger import Intake, Ledger, LedgerError, NewProducer, StoredSum
from settle_mp.core.books import Books
from settle_mp.core.fold import Entry, Folded, Key
from settle_mp.core.ticket import Reach, Trouble
from settle_mp.core.window import HOUR_S, Draft, Windows, draft_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from settle_mp.collector.outbox import Batch
    from settle_mp.core.event import Quantity

NOW_S = 1_800_000_000.0
HOUR = int(NOW_S // HOUR_S)
MEBIBYTE = 1024 * 1024
#: Bytes of an intake's body per event; nothing here reads records.
EVENT_BYTES = 40


def open_ledger(folder: Path, *, ledger_bytes_max: int = 1024 * MEBIBYTE) -> Ledger:
    """Open or make the ledger in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return Ledger.open(folder, ledger_bytes_max=ledger_bytes_max, now_s=NOW_S)


def producer_id(number: int) -> bytes:
    """The id of a producer that a test calls by a number."""
    return number.to_bytes(16, "big")


class Till:
    """A ledger with the memory that its owner keeps beside it: open windows and positions."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.windows = Windows()
        self.load()

    def load(self) -> None:
        """Read memory from the ledger, as after an error (rule L1)."""
        self.windows.clear()
        for stored in self.ledger.stored():
            window = self.windows.at(stored.hour, NOW_S)
            if isinstance(stored, StoredSum):
                window.entries[stored.key] = stored.entry
                window.events_count += stored.entry.count
                window.reach(stored.first_s)
            else:
                _fold(window, stored.body, stored.events_count, stored.quantity)
                window.reach(stored.cut_s)

    def introduce(self, *numbers: int) -> None:
        """Introduce producers at position 0."""
        new = [NewProducer(id=producer_id(number), position=0, name=f"worker {number}") for number in numbers]
        self.ledger.introduce(new, NOW_S)

    def intake(
        self,
        number: int,
        events_count: int = 1,
        quantity: Quantity | None = None,
        *,
        hour: int = HOUR,
        user: str = "ada",
        invalid: tuple[tuple[int, bytes, str], ...] = (),
    ) -> Intake:
        """The next run of a producer; all of its events are of one user."""
        first = self.ledger.producers()[producer_id(number)].position
        body = user.encode().ljust(EVENT_BYTES * (events_count + len(invalid)), b".")
        return Intake(
            producer=producer_id(number),
            first=first,
            last=first + len(body),
            base=0,
            hour=hour,
            cut_s=hour * HOUR_S + 60.0,
            body=body,
            events_count=events_count,
            quantity=events_count if quantity is None else quantity,
            invalid=invalid,
        )

    def take(self, number: int, events_count: int = 1, quantity: Quantity | None = None, **more: Any) -> None:
        """Commit one run and fold it."""
        intake = self.intake(number, events_count, quantity, **more)
        self.ledger.commit([intake], NOW_S)
        if intake.events_count:
            window = self.windows.at(intake.hour, NOW_S)
            _fold(window, intake.body, intake.events_count, intake.quantity)
            window.reach(intake.cut_s)

    def compact(self) -> None:
        """Let sums take the place of frames."""
        self.ledger.compact(self.windows, NOW_S)

    def drafts(self, rows_max: int = 50) -> list[Draft]:
        """What a seal would write."""
        return [
            draft
            for window in self.windows
            for draft in draft_batches(window, rows_max=rows_max, is_annotated=False)
        ]

    def reaches(self) -> dict[bytes, Reach]:
        """What a seal would hold of each producer."""
        return {
            row.id: Reach(row.sealed_position, row.position, row.open_events_count)
            for row in self.ledger.producers().values()
            if row.position > row.sealed_position
        }

    def seal(self, rows_max: int = 50) -> tuple[int, ...]:
        """Seal all that is open. Returns the batches' ids."""
        sealed = self.ledger.seal(self.drafts(rows_max), self.reaches(), NOW_S)
        self.windows.clear()
        return sealed.batches

    def batch(self, *users: str) -> Batch:
        """A new batch with a row for each user, of one event each, by producer 1, who must be known."""
        for user in users:
            self.take(1, user=user)
        (batch_id,) = self.seal()
        return self.ledger.outbox.get(batch_id)

    def attempt(self, *batch_ids: int) -> None:
        """Mark batches as attempting."""
        self.ledger.outbox.mark_attempting(batch_ids, NOW_S)

    def doubt(self, batch_id: int) -> None:
        """Let a try end in doubt."""
        self.attempt(batch_id)
        self.ledger.outbox.retry(batch_id, at_s=NOW_S, is_in_doubt=True, reason="no answer", now_s=NOW_S)


def _fold(window: Any, body: bytes, events_count: int, quantity: Quantity) -> None:
    key = Key(body.rstrip(b".").decode(), "AI_QUERY", "")
    window.entries.setdefault(key, Entry()).add(Folded(key, quantity, None), 1)
    window.entries[key].count += events_count - 1
    window.events_count += events_count


def fill(folder: Path) -> Till:
    """Make a ledger with at least one row in every table, several in most."""
    till = Till(open_ledger(folder))
    ledger, outbox = till.ledger, till.ledger.outbox
    till.introduce(1, 2, 3)
    ledger.set_key_mode("test")
    ledger.bump("requests_count", 7)
    till.take(3, user="gone")
    bad = ((0, b"\x01", "not an event"),)
    till.take(3, events_count=0, invalid=bad)
    (first,) = till.seal()
    till.attempt(first)
    outbox.settle(first, NOW_S)
    ledger.mark_gone([producer_id(3)], NOW_S)
    ledger.forget(gone_before_s=NOW_S + 1)
    wide = till.batch("ann", "bob", "cy", "dee")
    till.attempt(wide.id)
    left, right = outbox.divide(wide.id, [(0, 2), (1, 3)], reason="refused", now_s=NOW_S)
    till.attempt(left.id)
    lone, other = outbox.divide(left.id, [(0,), (1,)], reason="refused", now_s=NOW_S)
    till.attempt(lone.id, other.id)
    outbox.suspect(lone.id, reason="row 0 is bad", now_s=NOW_S)
    till.doubt(right.id)
    trouble = {producer_id(1): Trouble(0, 1, "refused")}
    refused = till.batch("eve")
    till.attempt(refused.id)
    outbox.dead_letter(refused.id, reason="no such user", now_s=NOW_S, troubles=trouble)
    held = till.batch("fay")
    till.attempt(held.id)
    outbox.hold(held.id, reason="no answer", now_s=NOW_S, is_in_doubt=True)
    till.take(1, 3, user="gus")
    till.take(2, 2, user="hal")
    till.compact()
    till.take(1, 5, user="ida")
    till.take(2, user="jo")
    ledger.add_residue("a span", "12 bytes could not be read", NOW_S)
    return till


def faults(ledger: Ledger) -> list[str]:
    """What does not balance."""
    books = Books(rows=ledger.books_rows(), totals=ledger.totals(), residues=tuple(ledger.residues()))
    return books.faults()


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, read by another connection."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return {table.name: connection.execute(table.select_sql).fetchall() for table in schema.TABLES}


def rows_of(path: Path) -> list[tuple[str, tuple[Any, ...]]]:
    """The key of each row of each table."""
    with closing(sqlite3.connect(path)) as connection:
        return [
            (table.name, row)
            for table in schema.TABLES
            for row in connection.execute(f"SELECT {_key(connection, table.name)} FROM {table.name}")  # noqa: S608
        ]


def take_away(path: Path, table: str, key: tuple[Any, ...]) -> None:
    """Delete one row by other hands than the ledger's."""
    with closing(sqlite3.connect(path)) as connection, connection:
        places = " AND ".join(f"{column.strip()} IS ?" for column in _key(connection, table).split(","))
        assert connection.execute(f"DELETE FROM {table} WHERE {places}", key).rowcount == 1  # noqa: S608


def _key(connection: sqlite3.Connection, table: str) -> str:
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    return ", ".join(name for _, name, _, _, _, place in columns if place)


def copy_state(source: Path, target: Path) -> Path:
    """Copy a state folder as it lies on the disk, while somebody may have it open."""
    shutil.copytree(source, target)
    return target


def dump_of(till: Till) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a till's ledger."""
    return dump(till.ledger._path)


def unsettled(till: Till) -> list[int]:
    """The ids of the batches that a flush waits for."""
    return sorted(each for batches in till.ledger.outbox.unsettled_by_seal().values() for each in batches)


def error_of(do: Callable[[], object], times: int = 10_000) -> LedgerError:
    """The error that ends the repeating of something."""
    for _ in range(times):
        try:
            do()
        except LedgerError as error:
            return error
    raise AssertionError("it never failed")


def real_connection(ledger: Ledger) -> sqlite3.Connection:
    """The ledger's own connection."""
    connection = ledger._database._connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


def put_connection(ledger: Ledger, connection: Any) -> None:
    """Let the ledger use another connection."""
    ledger._database._connection = connection


class FailingConnection:
    """A connection whose nth statement fails, before or after it was carried out."""

    def __init__(self, inner: sqlite3.Connection, fails_at: int, *, is_after: bool) -> None:
        self.inner = inner
        self._left = fails_at
        self._is_after = is_after
        self.failed: str | None = None
        self.statements: list[str] = []

    @property
    def in_transaction(self) -> bool:
        """As the real one."""
        return self.inner.in_transaction

    def execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """As the real one, or an error."""
        return self._guard(sql, lambda: self.inner.execute(sql, tuple(values)))

    def executemany(self, sql: str, values: Iterable[Any]) -> sqlite3.Cursor:
        """As the real one, or an error."""
        return self._guard(sql, lambda: self.inner.executemany(sql, values))

    def close(self) -> None:
        """As the real one."""
        self.inner.close()

    def _guard(self, sql: str, do: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        # ROLLBACK is what the ledger answers with; a second failure is another test's.
        self.statements.append(sql)
        if self.failed is None and sql != "ROLLBACK":
            self._left -= 1
            if self._left == 0:
                self.failed = sql
                if self._is_after:
                    do()
                raise sqlite3.OperationalError("disk I/O error")
        return do()
