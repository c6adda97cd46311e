"""The oracle and the judgement see what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.hosts import oracle
from tests.hosts.matrix import ROWS
from tests.hosts.play import Outcome, compare

if TYPE_CHECKING:
    from pathlib import Path

LINES = "+ a request 2\n= a\n+ b thread 1\n= b\n+ c thread 3\n~ is slow\n"


@pytest.fixture
def account(tmp_path: Path) -> oracle.Account:
    """Two events whose track() returned, and one whose process died before."""
    path = tmp_path / "oracle"
    path.write_text(LINES)
    return oracle.read(path)


def test_lines_are_read(account: oracle.Account) -> None:
    """What was tracked in which phase, what returned, and words."""
    assert account.tracked == {"a": 2, "b": 1, "c": 3}
    assert account.returned == {"a", "b"}
    assert account.phases == {"request": 1, "thread": 2}
    assert (account.logged, account.words) == ((), ("is slow",))


@pytest.mark.parametrize("length", range(len("+ d thread 1")))
def test_a_line_that_is_being_written_is_not_there_yet(tmp_path: Path, length: int) -> None:
    """A process appends while another one reads; the last line of all ends as the others do."""
    path = tmp_path / "oracle"
    assert oracle.read(path).tracked == {}
    path.write_text(LINES + "+ d thread 1"[:length])
    assert oracle.read(path).tracked == {"a": 2, "b": 1, "c": 3}
    path.write_text(LINES + "+ d thread 1\n")
    assert oracle.read(path).tracked == {"a": 2, "b": 1, "c": 3, "d": 1}


@pytest.mark.parametrize(
    ("applied", "wrong"),
    [
        ([("a", 2), ("b", 1)], None),
        ([("a", 2), ("b", 1), ("c", 3)], None),
        ([("a", 2)], "1 lost: b"),
        ([("a", 2), ("a", 2), ("b", 1)], "1 applied twice: a"),
        ([("a", 2), ("b", 1), ("d", 1)], "1 applied but not tracked: d"),
        ([("a", 2), ("b", 2)], "1 applied with another quantity: b"),
        ([("a", 2), ("b", 1), ("c", 3), ("c", 3)], "1 applied twice: c"),
    ],
)
def test_each_wrong_is_told(
    account: oracle.Account, applied: list[tuple[str, int]], wrong: str | None
) -> None:
    """Lost, twice, unknown, altered; one whose track() never returned may be there once, or not."""
    assert account.wrongs(applied) == ([wrong] if wrong else [])


def test_a_control_that_loses_nothing_is_wrong_unless_the_row_says_why() -> None:
    """And a complaint that the app without us does not make is ours."""
    row = ROWS[0]
    whole = Outcome(
        tracked=1,
        applied=1,
        lost=0,
        phases={},
        shutdown_s=1.0,
        has_hung=False,
        complaints=["theirs"],
        wrongs=[],
    )

    def played(**others: Outcome) -> dict[str, Outcome]:
        fresh = {take.name: replace(whole, wrongs=[]) for take in row.takes}
        outcomes = {**fresh, "control": replace(whole, lost=1, wrongs=[]), **others}
        compare(row, outcomes)
        return {name: outcome for name, outcome in outcomes.items() if outcome.wrongs}

    assert played() == {}
    assert list(played(control=replace(whole, wrongs=[]))) == ["control"]
    ours = row.takes[-1].name
    assert played(**{ours: replace(whole, complaints=["ours"], wrongs=[])})[ours].wrongs == [
        "complaint: ours"
    ]
