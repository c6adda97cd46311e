"""A new ledger is whole the moment it has its name."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from settle_mp.collector.birth import make_ledger
from settle_mp.collector.database import Database
from settle_mp.collector.ledger import Ledger

if TYPE_CHECKING:
    from pathlib import Path


def test_it_is_all_in_one_file(tmp_path: Path) -> None:
    """Nothing of its making is left beside it."""
    path = tmp_path / "ledger.db"
    make_ledger(path, b"i" * 16, 1.0)
    assert [each.name for each in tmp_path.iterdir()] == ["ledger.db"]
    Ledger.open_read_only(tmp_path).close()


def test_whoever_opens_it_first_changes_nothing_in_it(tmp_path: Path) -> None:
    """A death in the middle of that would leave a rollback journal, which a reader may not roll back."""
    path = tmp_path / "ledger.db"
    make_ledger(path, b"i" * 16, 1.0)
    before = path.read_bytes()
    database = Database(path)
    assert path.read_bytes() == before
    database.close()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
