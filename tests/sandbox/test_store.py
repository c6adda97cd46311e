"""The store."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from settle_mp.sandbox.answers import Answer, success
from settle_mp.sandbox.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INSERT = "INSERT INTO types VALUES (?, ?, 1, 1)"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return str(tmp_path / "sandbox.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    """A store in that file."""
    opened = Store(path)
    yield opened
    opened.close()


def _add(db: sqlite3.Connection) -> Answer:
    db.execute(INSERT, ("A", "1"))
    return success({"accepted": 1})


def _add_and_fail(db: sqlite3.Connection) -> Answer:
    _add(db)
    raise RuntimeError("in the middle")


def test_a_change_and_its_answer_are_one_transaction(store: Store) -> None:
    """When a change fails half-way, neither its rows nor its answer are kept."""
    with pytest.raises(RuntimeError, match="in the middle"):
        store.settle("k", b"f", _add_and_fail)
    assert store.kept("k") is None
    assert store.read("SELECT * FROM types") == []
    answer = store.settle("k", b"f", _add)
    assert store.kept("k") == (b"f", answer)


def test_a_key_taken_meanwhile_undoes_the_change(store: Store) -> None:
    """A second answer under one key can't be committed, and its rows go with it."""
    store.settle("k", b"f", _add)
    with pytest.raises(sqlite3.IntegrityError):
        store.settle("k", b"f", lambda db: (db.execute(INSERT, ("B", "1")), success({}))[1])
    assert store.read("SELECT event_type FROM types") == [("A",)]


def test_what_was_answered_is_still_there_after_opening_again(path: str) -> None:
    """Keys and answers outlive the process."""
    first = Store(path)
    answer = first.settle("k", b"f", _add)
    first.close()
    again = Store(path)
    assert again.kept("k") == (b"f", answer)
    assert again.forget_keys() == 1
    assert again.kept("k") is None
    again.close()


def test_sums_are_added_as_decimals(store: Store) -> None:
    """The sum that SQLite stores is the exact one."""
    assert store.read("SELECT exact_add('0.1', '0.2')") == [("0.3",)]


def test_files_of_others_are_left_alone(path: str) -> None:
    """A database of something else is refused, and not a byte of it changes."""
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.close()
    with open(path, "rb") as file:  # noqa: PTH123 - One read.
        before = file.read()
    with pytest.raises(StoreError, match="something else"):
        Store(path)
    with open(path, "rb") as file:  # noqa: PTH123 - One read.
        assert file.read() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """Garbage, a folder and a path that can't be are one clear error."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"not a database, but long enough to look like one " * 50)
    for bad in (garbage, tmp_path, tmp_path / "absent" / "x.db"):
        with pytest.raises(StoreError, match="can't be used"):
            Store(str(bad))


def test_another_layout_is_refused(path: str) -> None:
    """A file of another version is refused instead of being misread."""
    Store(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="layout 99"):
        Store(path)
