"""The upstream: nothing is lost whatever it answers, and nothing twice but what is counted as in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import groups
from tests.chaos.fault import FAULTS
from tests.chaos.matrix import Matrix, chosen

if TYPE_CHECKING:
    from tests.chaos.fault import Fault

assert groups.__all__  # importing it registered the faults

#: The same in each run of CI; `make chaos` rolls another one.
SEED = 30
#: Rounds of one house at most: a busy machine takes its time.
ROUNDS = 8


def houses() -> list[list[Fault]]:
    """Faults that agree in what they need share a house."""
    kinds: dict[str, list[Fault]] = {}
    for each in chosen(groups=["upstream"]):
        kinds.setdefault(each.house_kind, []).append(each)
    return [kind[at : at + ROUNDS] for kind in kinds.values() for at in range(0, len(kind), ROUNDS)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("faults", houses(), ids=lambda faults: faults[0].name)
def test_every_fault_of_the_upstream_once_under_load(faults: list[Fault]) -> None:
    """Sets of keys and exact sums agree, `status` balances at every look, and no key came with two bodies."""
    matrix = Matrix(SEED, 1)
    matrix.play(faults)
    assert matrix.wrong() == []
    for each in faults:
        row = matrix.rows[each.name]
        assert row.counts[each.counted] >= 1
        assert row.tracked > 100


def test_the_issue_has_its_faults() -> None:
    """Each that users meet: the ways there, each answer, and what a server may forget."""
    names = {each.name for each in FAULTS.values() if each.group == "upstream"}
    assert names >= {
        *("refused", "no-name", "no-tls", "deaf", "timeout-applied", "reset-applied", "reset-not-applied"),
        *("500-applied", "500-not-applied", "429", "503", "401", "403", "404", "400-one", "400-all"),
        *("413-rows", "refused-in-doubt", "key-too-old", "key-forgotten", "not-json", "drip", "redirect"),
        *("keys-ignored", "hold", "hold-kill"),
    }
