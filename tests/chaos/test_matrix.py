"""The matrix: each round once, in the right house, and no run passes that did not do what it says."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos import groups, matrix
from tests.chaos.fault import FAULTS, Fault
from tests.chaos.judges import judge_dropped
from tests.chaos.matrix import BATCH_ROUNDS, Batch, Matrix, Row, chosen, summary, table

if TYPE_CHECKING:
    from pathlib import Path

assert groups.__all__  # importing it registered the faults


def fault(name: str, share: float = 1.0, **fields: Any) -> Fault:
    """A fault that does nothing."""
    return Fault(name=name, group="some", what=name, play=lambda _: None, share=share, **fields)


def turns(batches: list[Batch]) -> list[tuple[str, int]]:
    """All rounds, by fault and number."""
    return sorted((each.name, number) for batch in batches for each, number in batch.turns)


def test_each_round_is_played_once() -> None:
    """As many as the share says, and at least one."""
    faults = [fault("often"), fault("seldom", 0.1), fault("hardly", 0.001)]
    batches = Matrix(1, 100)._batches(faults)
    wanted = [("often", n) for n in range(100)] + [("seldom", n) for n in range(10)] + [("hardly", 0)]
    assert turns(batches) == sorted(wanted)
    assert max(len(batch.turns) for batch in batches) <= BATCH_ROUNDS


def test_long_runs_keep_to_one_fault_a_house() -> None:
    """So that what is wrong has a name; short ones share houses, where the faults agree what a house is."""
    faults = [fault("a"), fault("b"), fault("c", settings={"SETTLE_MP_BATCH_ROWS_MAX": "1"})]
    assert all(len(batch.faults) == 1 for batch in Matrix(1, BATCH_ROUNDS)._batches(faults))
    shared = Matrix(1, 1)._batches(faults)
    assert sorted([each.name for each in batch.faults] for batch in shared) == [["a", "b"], ["c"]]


def test_a_run_goes_on_where_it_was_ended(tmp_path: Path) -> None:
    """Whichever rounds those were."""
    state = tmp_path / "state.json"
    row = Row(played=[0, 2], counts=Counter({"SIGKILL": 2}), tracked=7)
    state.write_text(json.dumps({"a": row.kept()}))
    resumed = Matrix(1, 4, state=state)
    assert resumed.rows == {"a": row}
    assert turns(resumed._batches([fault("a")])) == [("a", 1), ("a", 3)]


def test_the_same_seed_plays_the_same_order() -> None:
    """And another seed another one."""
    faults = [fault(f"{n}") for n in range(9)]
    orders = [[turns([each]) for each in Matrix(seed, 40)._batches(faults)] for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Fault:
    """A register of one fault."""
    made = fault("only", counted="it happened")
    monkeypatch.setattr(matrix, "FAULTS", {"only": made})
    return made


def test_what_never_happened_fails_the_run(only: Fault) -> None:
    """A point that was not hit in each of its rounds says so."""
    run = Matrix(1, 3)
    run.rows["only"] = Row(played=[0, 1, 2], counts=Counter({"it happened": 2}))
    assert run.wrong() == ["only: it happened 2 times in 3 rounds"]
    run.rows["only"].counts["it happened"] = 3
    assert run.wrong() == []
    run.rows["only"].wrong.append("3 lost, 0 twice")
    assert run.wrong() == [f"{only.name}: 3 lost, 0 twice"]


def test_a_batch_that_breaks_off_fails_the_run(only: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is played again by the next."""

    def broken(**_: object) -> None:
        raise OSError("no room for a house")

    monkeypatch.setattr(matrix, "open_house", broken)
    run = Matrix(1, 1)
    run.play([only])
    assert "no room for a house" in run.wrong()[0]
    assert turns(run._batches([only])) == [("only", 0)]


def test_the_table_has_a_row_a_fault(only: Fault) -> None:
    """With its own count."""
    rows = {"only": Row(played=[0], counts=Counter({"it happened": 1_000, "SIGKILL": 2}), tracked=3, lost=4)}
    assert summary({**rows, matrix.ALL: rows["only"]}).startswith(
        "2 SIGKILLs under load, 3 events tracked: 4 lost, 0 twice."
    )
    assert (
        table(rows).splitlines()[2] == f"| {only.what} | 1,000 | 2 | 3 | 0 |  | 4 | 0 | {only.power_loss} |"
    )


def test_the_table_says_what_a_loss_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fault destroys events, or drops them at a bound, and its judge held the loss against that."""
    made = fault("full", counted="it happened", judge=judge_dropped)
    monkeypatch.setattr(matrix, "FAULTS", {"full": made})
    rows = {"full": Row(played=[0], counts=Counter({"it happened": 1}), tracked=9_000, lost=4_000)}
    assert "| 4,000 (dropped, and counted so) | 0 |" in table(rows)


def test_faults_are_chosen_by_name_and_group() -> None:
    """A name that there is none of is told."""
    assert [each.name for each in chosen(["kill-both"])] == ["kill-both"]
    assert {each.group for each in chosen(groups=["kills"])} == {"kills"}
    assert chosen() == list(FAULTS.values())
    with pytest.raises(ValueError, match="kill-nobody is no fault"):
        chosen(["kill-nobody"])


def test_names_are_slugs() -> None:
    """They stand on command lines and in files."""
    characters = set(itertools.chain.from_iterable(FAULTS))
    assert all(each.isalnum() or each == "-" for each in characters)


def test_a_family_has_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names all its members, and says how often each happened at least."""
    made = [fault(name, family="SIGKILL here", member=name, counted=name) for name in ("one", "two")]
    made[1] = fault("two", family="SIGKILL here", member="two", counted="two", power_loss="nothing")
    monkeypatch.setattr(matrix, "FAULTS", {each.name: each for each in made})
    rows = {
        name: Row(played=[0], counts=Counter({name: n, "SIGKILL": n})) for name, n in (("one", 5), ("two", 7))
    }
    assert table(rows).splitlines()[2:] == [
        "| SIGKILL here: one; two | 5 each | 12 | 0 | 0 |  | 0 | 0 | what is not committed |"
    ]
    assert matrix.hits(rows).split() == ["5", "in", "1", "rounds", "one", "7", "in", "1", "rounds", "two"]
