"""The books of the ledger: whatever row goes missing, something no longer adds up, and says where."""

from __future__ import annotations

import shutil
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector import accounts, schema
from settle_mp.collector.ledger import LedgerDamagedError
from settle_mp.core.books import Amount
from settle_mp.core.fold import total
from tests.collector.ledgers import HOUR, NOW_S, Till, dump_of, faults, fill, open_ledger, rows_of, take_away

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.core.event import Quantity

#: How a lost row is named: by the bucket of the events in it, or else by its table.
NAMES = {
    "producers": ("committed",),
    "departed": ("committed",),
    "frames": ("pending",),
    "sums": ("pending",),
    "batches": ("pending", "in_doubt"),
    "dead_letters": ("dead_lettered",),
    "receipts": ("confirmed",),
}


@pytest.mark.parametrize("table", [table.name for table in schema.TABLES])
def test_a_row_taken_away_is_noticed(tmp_path: Path, table: str) -> None:
    """Each row of each table, taken away behind our back, is named: while we run, and at each start."""
    till = fill(tmp_path / "whole")
    till.ledger.close()
    keys = [key for name, key in rows_of(tmp_path / "whole" / "ledger.db") if name == table]
    assert keys
    for number, key in enumerate(keys):
        folder = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", folder)
        ledger = open_ledger(folder)
        before = set(faults(ledger))
        take_away(folder / "ledger.db", table, key)
        named = set(faults(ledger)) - before
        ledger.close()
        names = names_of(table, key)
        assert any(fault.startswith(names) for fault in named), (key, named)
        if table in {each.name for each in schema.FIXED}:
            with pytest.raises(LedgerDamagedError, match="is missing"):
                open_ledger(folder)
        else:
            ledger = open_ledger(folder)
            assert set(faults(ledger)) - before == named
            ledger.close()


def names_of(table: str, key: tuple[Any, ...]) -> tuple[str, ...]:
    """How the loss of a row may be told."""
    if table == "totals":
        return str(key[0]), f"totals: the row of {key[0]}"
    return NAMES.get(table, (table,))


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A new ledger that knows producer 1."""
    till = Till(open_ledger(tmp_path))
    till.introduce(1)
    yield till
    till.ledger.close()


def test_sums_of_any_size_add_up(till: Till) -> None:
    """Short numbers are added up by SQLite, long ones and fractions exactly; together they are the total."""
    quantities: list[Quantity] = [
        1,
        999_999_999,
        10**9,
        2**80,
        Decimal("0.1"),
        Decimal("1e-9"),
        Decimal(10**20),
    ]
    for quantity in quantities:
        till.take(1, 1, quantity)
        assert faults(till.ledger) == []
    assert till.ledger.books_rows()["pending"] == Amount(7, total(quantities))


def test_receipts_are_by_the_hour_of_the_answer_and_old_ones_merge(till: Till) -> None:
    """What was confirmed is told by the hour for a month, then in one row; nothing of the sum is lost."""
    for hours in (0, 1, 5):
        batch = till.batch("ann", "bob")
        till.attempt(batch.id)
        till.ledger.outbox.settle(batch.id, NOW_S + hours * 3600)
    assert [row[:3] for row in dump_of(till)["receipts"]] == [
        ("confirmed", HOUR + hours, 2) for hours in (0, 1, 5)
    ]
    month_later_s = NOW_S + (accounts.RECEIPT_HOURS + 5) * 3600
    for _ in range(2):
        till.ledger.forget(gone_before_s=month_later_s)
        assert [row[:3] for row in dump_of(till)["receipts"]] == [
            ("confirmed", -1, 4),
            ("confirmed", HOUR + 5, 2),
        ]
    assert faults(till.ledger) == []
