"""Recovery: after an error of the ledger the loop goes on, unless damage is found twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from settle_mp.collector.ledger import LedgerDamagedError, LedgerError
from settle_mp.collector.recovery import Recovery
from tests.collectors import Bench, bench
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.upstreams import Upstream

__all__ = ["upstream"]


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir, upstream) as made:
        yield made


@pytest.fixture
def recovery(parts: Bench) -> Recovery:
    """One that does not rest."""
    made = Recovery(parts.parts)
    made._rest_s = 0.0
    return made


def spoil(state_dir: Path, name: str) -> None:
    """Have a row of `meta` fail its check."""
    with closing(sqlite3.connect(state_dir / "ledger/ledger.db")) as database, database:
        database.execute("UPDATE meta SET checksum = checksum + 1 WHERE name = ?", (name,))


def test_what_only_looked_damaged_goes_on(recovery: Recovery) -> None:
    """SQLite says of an error of reading that the file is malformed; read as a whole, it is sound."""
    recovery.note(LedgerDamagedError("database disk image is malformed"), is_intake=False)
    assert recovery.must_reload
    assert recovery.is_ready()
    assert not recovery.must_reload


def test_what_is_damaged_ends_the_collector(state_dir: Path, recovery: Recovery) -> None:
    """Also where nothing but a check reads it; the next start puts it aside."""
    spoil(state_dir, "key_mode")
    recovery.note(LedgerDamagedError("a row of meta fails its check"), is_intake=False)
    with pytest.raises(LedgerDamagedError, match="meta"):
        recovery.is_ready()


def test_damage_that_is_found_while_it_is_read_again_is_looked_at_twice(
    state_dir: Path, recovery: Recovery
) -> None:
    """Also after an error that was none."""
    spoil(state_dir, "seal_number")
    recovery.note(LedgerError("disk I/O error"), is_intake=False)
    assert not recovery.is_ready()
    with pytest.raises(LedgerDamagedError, match="meta"):
        recovery.is_ready()
