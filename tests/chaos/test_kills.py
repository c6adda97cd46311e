"""Kills: nothing is lost and nothing comes twice, whoever dies and whenever (promise 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import groups, points
from tests.chaos.matrix import ALL, Matrix, chosen

if TYPE_CHECKING:
    from tests.chaos.fault import Fault

assert groups.__all__  # importing it registered the faults

#: The same in each run of CI; `make chaos` rolls another one.
SEED = 20

AT_RANDOM = [each for each in chosen(groups=["kills"]) if not each.name.startswith("at-")]
AT_POINTS = [each for each in chosen(groups=["kills"]) if each.name.startswith("at-")]
HALF = len(AT_POINTS) // 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults",
    [AT_RANDOM, AT_POINTS[:HALF], AT_POINTS[HALF:]],
    ids=["at random", "at the first points", "at the other points"],
)
def test_nothing_is_lost_and_nothing_comes_twice(faults: list[Fault]) -> None:
    """Each fault once, under load: sets of keys and exact sums agree, and `status` balances at every look."""
    obstacles = {each.obstacle() for each in faults} - {""}
    if obstacles and all(each.obstacle() for each in faults):
        pytest.skip(obstacles.pop())
    matrix = Matrix(SEED, 1)
    matrix.play(faults)
    assert matrix.wrong() == []
    assert matrix.rows[ALL].tracked > 1_000


@pytest.mark.slow
def test_the_client_that_loses_is_caught() -> None:
    """The same kills, the same load, the same oracle, and a plain buffer in memory."""
    matrix = Matrix(SEED, 1, client="control")
    # `make chaos` plays all of them at it; to it each point is a kill like any other.
    matrix.play([each for each in [*AT_RANDOM, *AT_POINTS[:8]] if not each.name.startswith("stop-")])
    assert matrix.rows[ALL].lost > 0
    assert matrix.rows[ALL].twice == 0


def test_every_point_has_its_fault() -> None:
    """None is forgotten."""
    assert {each.counted for each in AT_POINTS} == {point.name for point in points.POINTS}
