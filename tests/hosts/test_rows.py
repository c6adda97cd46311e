"""The matrix's fast rows; `make hosts` plays all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.hosts.matrix import HOSTS, ROWS
from tests.hosts.play import compare, play_take

if TYPE_CHECKING:
    from tests.hosts.row import Row

FAST = [row for row in ROWS if row.is_fast]


@pytest.mark.slow
@pytest.mark.parametrize("row", FAST, ids=lambda row: f"{row.host}: {row.name}")
def test_every_unit_arrives_exactly_once(row: Row) -> None:
    """Ours with the collector up and down, one variant each; the control loses; nothing is left or said."""
    ups = [take for take in row.takes if take.collecting == "up"]
    downs = [take for take in row.takes if take.client == "ours" and take.collecting == "down"]
    others = [take for take in row.takes if take.client != "ours"]
    outcomes = {take.name: play_take(row, take) for take in [*others, ups[0], downs[-1]]}
    compare(row, outcomes)
    assert {name: outcome.wrongs for name, outcome in outcomes.items() if outcome.wrongs} == {}


def test_each_host_has_a_fast_row_and_names_of_its_own() -> None:
    """A row that hides behind another's name would never be played."""
    assert {row.host for row in FAST} == set(HOSTS)
    names = [f"{row.host}: {row.name}" for row in ROWS]
    assert len(set(names)) == len(names)
