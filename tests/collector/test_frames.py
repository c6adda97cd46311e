"""Frames and sums: a compaction changes what is stored, and nothing that it says."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector.frames import SUMS_PER_ROW
from settle_mp.collector.ledger import LedgerError
from settle_mp.core.books import Amount
from settle_mp.core.fold import Entry, Key
from tests.collector.ledgers import EVENT_BYTES, HOUR, NOW_S, Till, dump_of, faults, open_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A new ledger that knows producers 1 and 2."""
    till = Till(open_ledger(tmp_path))
    till.introduce(1, 2)
    yield till
    till.ledger.close()


def test_sums_take_the_place_of_frames(till: Till, tmp_path: Path) -> None:
    """After a compaction the same sums are read back, of each hour and key, and the frames are gone."""
    for number in range(1, 7):
        till.take(1, number, Decimal(number) / 10, user="ann")
        till.take(2, number, user="bob", hour=HOUR + number % 2)
    before = {(window.hour, key): entry for window in till.windows for key, entry in window.entries.items()}
    assert till.ledger.raw_bytes == 2 * 21 * 40
    till.compact()
    assert till.ledger.raw_bytes == 0
    assert dump_of(till)["frames"] == []
    till.ledger.close()
    till = Till(open_ledger(tmp_path))
    after = {(window.hour, key): entry for window in till.windows for key, entry in window.entries.items()}
    assert after == before
    assert till.ledger.totals()["pending"] == Amount(42, Decimal("2.1") + 21)
    assert faults(till.ledger) == []
    till.take(1, user="ann")
    till.compact()
    till.seal()
    assert faults(till.ledger) == []
    till.ledger.close()


def test_the_ledger_grows_with_keys_and_not_with_events(till: Till) -> None:
    """A hundred times the events of the same keys take no more room once they are compacted."""
    sizes = []
    for rounds_count in (1, 10):
        for _ in range(rounds_count):
            for user in range(30):
                till.take(1, 100, user=f"user {user}")
            till.compact()
        sizes.append(till.ledger._database.used_bytes())
    assert till.ledger.totals()["pending"].events == 11 * 30 * 100
    assert sizes[1] <= sizes[0] + 4096


@pytest.mark.parametrize("take_away", [Till.compact, Till.seal])
def test_what_is_taken_away_is_not_written_once_more(
    till: Till, tmp_path: Path, take_away: Callable[[Till], Any]
) -> None:
    """Megabytes of frames leave the ledger by a log of some pages, on a full disk as well."""
    for _ in range(20):
        till.take(1, 100_000 // EVENT_BYTES)
    till.ledger._database.cut_log()
    take_away(till)
    assert till.ledger.raw_bytes == 0
    assert (tmp_path / "ledger.db-wal").stat().st_size < 200_000


def test_more_sums_than_fit_into_a_row(till: Till) -> None:
    """Thousands of keys are spread over rows and come back, each once, with the widest sums there are."""
    users_count = 2 * SUMS_PER_ROW + 1
    till.take(1, users_count, users_count * 2**70)
    window = till.windows.at(HOUR, NOW_S)
    expected = {Key(f"user {user}", "AI_QUERY", ""): Entry(1, 2**70) for user in range(users_count)}
    next(iter(expected.values())).sums = {"tokens": Decimal("-0.125")}
    window.entries.clear()
    window.entries.update(expected)
    till.compact()
    assert len(dump_of(till)["sums"]) == 3
    till.load()
    assert till.windows.at(HOUR, NOW_S).entries == expected
    assert faults(till.ledger) == []


@pytest.mark.parametrize("replace_rows", [Till.compact, Till.seal])
def test_memory_that_differs_never_takes_the_place_of_rows(
    till: Till, replace_rows: Callable[[Till], Any]
) -> None:
    """A window that holds one event too many, or one too few, is not written over the frames (L1)."""
    till.take(1, 3)
    till.take(2, 2, user="bob")
    before = dump_of(till)
    entry = till.windows.at(HOUR, NOW_S).entries.popitem()
    with pytest.raises(LedgerError, match="memory holds"):
        replace_rows(till)
    till.windows.at(HOUR, NOW_S).entries[entry[0]] = entry[1]
    entry[1].count += 1
    till.windows.at(HOUR, NOW_S).events_count += 1
    with pytest.raises(LedgerError, match="memory holds"):
        replace_rows(till)
    assert dump_of(till) == before
    till.load()
    replace_rows(till)
    assert faults(till.ledger) == []
