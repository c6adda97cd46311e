"""The matrix: which rounds are played in which house, what came of them, and where that is kept.

Rule 1: a round's dice are made from the seed, the fault's name and the round's number, so that the same seed
plays the same rounds; only what the machine does meanwhile differs.
Rule 2: results are kept after each batch of rounds, so that a run goes on where it was ended.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.chaos.fault import FAULTS, UNCOMMITTED, Fault, Settled
from tests.chaos.house import open_house
from tests.chaos.judges import judge_destroyed, judge_dropped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.chaos.house import House
    from tests.chaos.oracle import Verdict

#: Rounds in one house before it is settled and judged.
BATCH_ROUNDS: Final = 40
#: The row of all faults together: a batch counts once in it, whatever was played there.
ALL: Final = "all"
#: Rounds between two looks at `status`.
LOOK_EVERY: Final = 5
#: What is counted of a house as a whole: how often `status` was looked at, and events ever in doubt.
SEEN_AT_THE_END: Final = ("looks", "in doubt")
#: The group whose faults are about doubt, and whose events in doubt stand in the table.
DOUBTFUL: Final = "upstream"
#: What a loss is, by the judge that held it against the number of such events.
LOSSES: Final = {judge_dropped: "dropped, and counted so", judge_destroyed: "destroyed, and named"}


@dataclass(slots=True)
class Row:
    """What came of one fault so far."""

    #: Numbers of the rounds that were played.
    played: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    tracked: int = 0
    allowed: int = 0
    lost: int = 0
    twice: int = 0
    wrong: list[str] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def rounds(self) -> int:
        """How many rounds were played."""
        return len(self.played)

    def kept(self) -> dict[str, Any]:
        """As it is written to the state file."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


Turn = tuple[Fault, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rounds that are played in one house, and judged together."""

    turns: tuple[Turn, ...]

    @property
    def faults(self) -> list[Fault]:
        """Which faults, each once."""
        return list({each.name: each for each, _ in self.turns}.values())


class Matrix:
    """A run of faults.

    Args:
        seed: Of all dice.
        rounds: How many rounds a fault whose share is 1 gets.
        state: The file that a run goes on from; None to keep nothing.
        jobs: Houses at a time.
        client: "settle", or "control".
        tell: Called with a line of progress now and then.
    """

    def __init__(
        self,
        seed: int,
        rounds: int,
        *,
        state: Path | None = None,
        jobs: int = 1,
        client: str = "settle",
        tell: Callable[[str], object] = str,
    ) -> None:
        self.seed = seed
        self.rows: dict[str, Row] = {}
        self._rounds = rounds
        self._state = state
        self._jobs = jobs
        self._lock = threading.Lock()
        self._client = client
        self._tell = tell
        if state is not None and state.exists():
            kept = json.loads(state.read_bytes())
            self.rows = {name: Row(**{**row, "counts": Counter(row["counts"])}) for name, row in kept.items()}

    def rounds_of(self, fault: Fault) -> int:
        """How many rounds a fault gets in all."""
        return math.ceil(self._rounds * fault.share)

    def play(self, faults: Iterable[Fault]) -> None:
        """Play what is left of these."""
        batches = self._batches([each for each in faults if not each.obstacle()])
        with ThreadPoolExecutor(self._jobs) as pool:
            list(pool.map(self._try, batches))

    def _batches(self, faults: Sequence[Fault]) -> list[Batch]:
        """Long runs keep to one fault a house, so that what is wrong has a name; short ones share houses."""
        kinds: dict[str, list[Turn]] = {}
        for each in faults:
            rounds = self.rounds_of(each)
            left = sorted(set(range(rounds)) - set(self.rows.get(each.name, Row()).played))
            kind = each.name if rounds >= BATCH_ROUNDS // 4 else each.house_kind
            kinds.setdefault(kind, []).extend((each, number) for number in left)
        batches = [
            Batch(turns=tuple(turns[at : at + BATCH_ROUNDS]))
            for turns in kinds.values()
            for at in range(0, len(turns), BATCH_ROUNDS)
        ]
        random.Random(self.seed).shuffle(batches)  # noqa: S311  dice
        return batches

    def _try(self, batch: Batch) -> None:
        """Play a batch; one that can't be played to its end is wrong, and played again by the next run."""
        try:
            self._play(batch)
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001  a long run goes on
            text = "".join(traceback.format_exception(error)[-6:])
            with self._lock:
                self.rows.setdefault(batch.faults[0].name, Row()).wrong.append(text)
                self._tell(f"{batch.faults[0].name}: {text}")

    def _play(self, batch: Batch) -> None:
        started_s = time.monotonic()
        first = batch.turns[0][0]
        names = ", ".join(f"{each.name}" for each in batch.faults)
        with open_house(
            seed=f"{self.seed}/{first.name}",
            client=self._client,
            settings=first.settings,
            disk_mebibytes=first.disk_mebibytes,
            **first.upstream,
        ) as house:
            counts = [
                self._round(house, *turn, is_looked_at=at % LOOK_EVERY == 0)
                for at, turn in enumerate(batch.turns)
            ]
            status = house.settle()
            verdict = house.verdict()
            wrong = first.judge(Settled(house=house, verdict=verdict, status=status))
            house.complaints += [] if self._client == "control" else wrong
            seen = Counter({name: house.counts[name] for name in SEEN_AT_THE_END})
        took_s = time.monotonic() - started_s
        with self._lock:
            self._enter(batch, counts, verdict, wrong, seen, took_s)
            self._keep()
        self._tell(
            f"{took_s:5.1f} s  {len(batch.turns):2} rounds  {verdict.tracked:7,} events  "
            f"{verdict.lost} lost  {verdict.twice} twice  {names}"
            + "".join(f"\n    {each}" for each in wrong)
        )

    def _enter(
        self,
        batch: Batch,
        counts: list[Counter[str]],
        verdict: Verdict,
        wrong: list[str],
        seen: Counter[str],
        took_s: float,
    ) -> None:
        total = self.rows.setdefault(ALL, Row())
        for (each, number), counted in zip(batch.turns, counts, strict=True):
            row = self.rows.setdefault(each.name, Row())
            row.played.append(number)
            row.counts += counted
            row.took_s += took_s / len(batch.turns)
            total.counts += counted
        # A verdict is a batch's; a batch of one fault, which long runs have, makes it that fault's.
        for row in (total, *(self.rows[each.name] for each in batch.faults)):
            row.counts += seen
            row.tracked += verdict.tracked
            row.allowed += verdict.allowed
            row.lost += verdict.lost
            row.twice += verdict.twice
            row.wrong += wrong

    def _round(self, house: House, fault: Fault, number: int, *, is_looked_at: bool) -> Counter[str]:
        before = house.counts.copy()
        house.random.seed(f"{self.seed}/{fault.name}/{number}")
        fault.play(house)
        if is_looked_at:
            house.look()
        counted = house.counts - before
        for name in SEEN_AT_THE_END:
            counted.pop(name, None)
        return counted

    def _keep(self) -> None:
        if self._state is None:
            return
        self._state.parent.mkdir(parents=True, exist_ok=True)
        building = self._state.with_suffix(".new")
        building.write_text(json.dumps({name: row.kept() for name, row in self.rows.items()}, indent=1))
        building.replace(self._state)

    # --- What it found ---

    def wrong(self) -> list[str]:
        """Say what makes the run fail: what judges found, and points that were never hit."""
        found = [f"{name}: {each}" for name, row in self.rows.items() if name != ALL for each in row.wrong]
        for name, row in self.rows.items():
            if name not in FAULTS:
                continue  # all of them together, or one of an older run
            times = row.counts[FAULTS[name].counted]
            if times < row.rounds:
                found.append(f"{name}: {FAULTS[name].counted} {times} times in {row.rounds} rounds")
        return found


def chosen(names: Iterable[str] = (), groups: Iterable[str] = ()) -> list[Fault]:
    """Choose faults by name and group; all when nothing is named.

    Raises:
        ValueError: For a name or group that there is none of.
    """
    names, groups = list(names), list(groups)
    unknown = [name for name in names if name not in FAULTS]
    unknown += [group for group in groups if group not in {each.group for each in FAULTS.values()}]
    if unknown:
        msg = f"{unknown[0]} is no fault and no group of faults; these are: {', '.join(FAULTS)}"
        raise ValueError(msg)
    if not names and not groups:
        return list(FAULTS.values())
    return [each for each in FAULTS.values() if each.name in names or each.group in groups]


def summary(rows: Mapping[str, Row]) -> str:
    """Say in a sentence what was done and what came of it."""
    total = rows.get(ALL, Row())
    return (
        f"{total.counts['SIGKILL']:,} SIGKILLs under load, {total.tracked:,} events tracked: "
        f"{total.lost:,} lost, {total.twice:,} twice. Of the calls that a death cut off "
        f"{total.allowed:,} are billed. `status` was looked at {total.counts['looks']:,} times, and balanced."
    )


def table(rows: Mapping[str, Row]) -> str:
    """Write the rows as a Markdown table: a line a fault, or a family of them."""
    head = "| fault | times | SIGKILLs | events tracked | looks at `status` | in doubt | lost | twice |"
    lines = [
        f"{head} power loss takes |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    families: dict[str, list[Fault]] = {}
    for name, each in FAULTS.items():
        if name in rows:
            families.setdefault(each.family or name, []).append(each)
    return "\n".join(lines + [_line(members, rows) for members in families.values()])


def _line(members: Sequence[Fault], rows: Mapping[str, Row]) -> str:
    first, played = members[0], [rows[each.name] for each in members]
    what = f"{first.family}: {'; '.join(each.member for each in members)}" if first.family else first.what
    counts = [_times(each, row) for each, row in zip(members, played, strict=True)]
    times = f"{min(counts):,}" + " each" * (len(counts) > 1)
    sums = [f"{sum(values):,}" for values in zip(*map(_figures, played), strict=True)]
    if first.group != DOUBTFUL:
        sums[2 + SEEN_AT_THE_END.index("in doubt")] = ""
    lost = sum(row.lost for row in played)
    if lost and first.judge in LOSSES:
        sums[-2] = f"{lost:,} ({LOSSES[first.judge]})"
    # Of a family the one that would lose most.
    power_loss = max({each.power_loss for each in members}, key=lambda text: text == UNCOMMITTED)
    return f"| {' | '.join([what, times, *sums, power_loss])} |"


def _times(fault: Fault, row: Row) -> int:
    # SIGKILLs have a column of their own: some rounds have several.
    return row.rounds if fault.counted == "SIGKILL" else row.counts[fault.counted]


def _figures(row: Row) -> tuple[int, ...]:
    seen = (row.counts[name] for name in SEEN_AT_THE_END)
    return (row.counts["SIGKILL"], row.tracked, *seen, row.lost, row.twice)


def hits(rows: Mapping[str, Row]) -> str:
    """Write how often each fault did what it is for."""
    return "\n".join(
        f"{row.counts[FAULTS[name].counted]:6,} in {row.rounds:5,} rounds  {name}"
        for name, row in rows.items()
        if name in FAULTS
    )
