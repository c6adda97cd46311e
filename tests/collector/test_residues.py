"""Residues: each has a number of its own, and only what was read is acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.collector.ledgers import NOW_S, Till, open_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A new ledger."""
    made = Till(open_ledger(tmp_path))
    yield made
    made.ledger.close()


def found(till: Till) -> list[tuple[int, str, bool]]:
    """Number, text and whether it is open, of each."""
    return [(each.id, each.text, each.is_open) for each in till.ledger.named_residues()]


def test_an_acknowledged_one_stays_and_is_no_fault(till: Till, tmp_path: Path) -> None:
    """With its time, after a restart as well; the others stand as they did."""
    till.ledger.add_residue("a", "12 bytes", NOW_S)
    till.ledger.add_residue("b", "a ledger", NOW_S)
    till.ledger.decisions.acknowledge(1, NOW_S + 7)
    till.ledger.close()
    till.ledger = open_ledger(tmp_path)
    assert till.ledger.residues() == ["a ledger"]
    assert found(till) == [(1, "12 bytes", False), (2, "a ledger", True)]
    assert till.ledger.named_residues()[0].acknowledged_s == NOW_S + 7


@pytest.mark.parametrize("is_acknowledged", [False, True])
def test_the_same_again_is_no_news(till: Till, *, is_acknowledged: bool) -> None:
    """A journal is read again after a death: what is known of it stays known."""
    till.ledger.add_residue("a", "12 bytes \ud800", NOW_S)
    if is_acknowledged:
        till.ledger.decisions.acknowledge(1, NOW_S)
    till.ledger.add_residue("a", "12 bytes \ud800", NOW_S + 9)
    assert found(till) == [(1, "12 bytes ?", not is_acknowledged)]
    assert till.ledger.named_residues()[0].at_s == NOW_S


def test_another_text_is_another_residue(till: Till) -> None:
    """Open again, under a number that none had before: who read the first has not acknowledged it."""
    till.ledger.add_residue("a", "12 bytes", NOW_S)
    till.ledger.decisions.acknowledge(1, NOW_S)
    till.ledger.add_residue("a", "24 bytes", NOW_S)
    assert found(till) == [(2, "24 bytes", True)]
    assert till.ledger.residues() == ["24 bytes"]
    with pytest.raises(LookupError, match="there is no residue 1"):
        till.ledger.decisions.acknowledge(1, NOW_S)


def test_one_is_acknowledged_once(till: Till) -> None:
    """Its time is that of the first word."""
    till.ledger.add_residue("a", "12 bytes", NOW_S)
    till.ledger.decisions.acknowledge(1, NOW_S)
    with pytest.raises(ValueError, match="residue 1 is acknowledged already"):
        till.ledger.decisions.acknowledge(1, NOW_S + 5)
    assert till.ledger.named_residues()[0].acknowledged_s == NOW_S
