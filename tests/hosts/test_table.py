"""The table in docs/hosts/README.md has a cell for each declared row, and says what was played."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.hosts.matrix import HOSTS, ROWS
from tests.hosts.play import Outcome
from tests.hosts.results import FOLDER, Results
from tests.hosts.table import PAGE, page_with_table, table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts.row import Row

EACH_HOST = pytest.mark.parametrize("host", HOSTS)


@EACH_HOST
def test_every_row_was_played_and_is_right(host: str) -> None:
    """A missing cell, or one that went wrong, fails; so does a result of a row that is not declared."""
    results = Results(host)
    rows = [row for row in ROWS if row.host == host]
    assert {row.name: wrongs for row in rows if (wrongs := results.wrongs(row))} == {}
    assert results.rows.keys() == {row.name for row in rows}


@EACH_HOST
def test_the_control_is_seen_losing(host: str) -> None:
    """On each host, and in each row that does not say why it is gentle."""
    rows = Results(host).rows
    lost = {row.name: rows[row.name]["control"]["lost"] for row in ROWS if row.host == host}
    assert any(lost.values())
    assert [row.name for row in ROWS if row.host == host and not lost[row.name] and not row.gentle] == []


def test_the_page_is_made_of_the_results() -> None:
    """Nobody has written in the table, and none has forgotten to make it anew."""
    page = PAGE.read_text()
    assert page_with_table(page) == page
    assert "missing" not in table()
    assert "WRONG" not in table()


def test_there_is_no_result_without_a_host() -> None:
    """A host that was taken out takes its results along."""
    assert {path.stem.replace("-", " ") for path in FOLDER.iterdir()} == set(HOSTS)


# These can fail.


def outcome(*wrongs: str, lost: int = 0) -> Outcome:
    """Make one that tracked and billed 10."""
    return Outcome(
        tracked=10,
        applied=10 - lost,
        lost=lost,
        phases={},
        shutdown_s=1.0,
        has_hung=False,
        complaints=[],
        wrongs=list(wrongs),
    )


@pytest.fixture
def row() -> Row:
    """One row of the matrix."""
    return ROWS[0]


def test_a_missing_take_and_a_wrong_one_are_told(row: Row, tmp_path: Path) -> None:
    """Each take of a row has to be there, and right."""
    results = Results(row.host, tmp_path)
    assert not results.has(row)
    outcomes = {take.name: outcome() for take in row.takes}
    results.keep(row, outcomes)
    assert Results(row.host, tmp_path).has(row)
    results.keep(row, {**outcomes, "control": outcome("nothing lost")})
    assert Results(row.host, tmp_path).wrongs(row) == ["control: nothing lost"]
    del outcomes["none"]
    results.keep(row, outcomes)
    assert Results(row.host, tmp_path).wrongs(row) == ["none: not played"]
    assert json.loads((tmp_path / f"{row.host}.json").read_text())["versions"]
