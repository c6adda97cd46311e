"""Plays rows and judges what came out: every unit exactly once, no complaint, no hang, nothing left."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.hosts import oracle
from tests.hosts.machine import DEADLINE_S, Host, complaints_in
from tests.hosts.stage import Stage
from tests.upstreams import sandbox, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts.machine import Program
    from tests.hosts.row import Row, Take
    from tests.upstreams import Upstream

#: How often a question that costs its answerer something is asked again, in seconds.
LOOK_S: Final = 0.1
#: What may be in a state folder when everything has ended: the ledger, locks, sockets and an empty folder.
STAYS: Final = {"collector.lock", "control", "frames", "journals", "ledger"}
#: What a collector warns of, and the one thing that is meant to be so: each event has its id in its metadata.
_WARNING: Final = re.compile(r"^.* (?:WARNING|ERROR) .*$", re.MULTILINE)
_MEANT: Final = re.compile("metadata_defeat_folding")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a take came to.

    Attributes:
        tracked: Events whose `track()` returned, or began and perhaps did not return.
        applied: Rows that the upstream has applied.
        lost: Events whose `track()` returned and that were not applied.
        phases: How many were tracked in each phase.
        shutdown_s: How long the host took to end.
        has_hung: Whether it did not end at all, so that it was killed.
        complaints: What the host's processes complained of, numbers left out.
        wrongs: What is wrong with all this.
    """

    tracked: int
    applied: int
    lost: int
    phases: dict[str, int]
    shutdown_s: float
    has_hung: bool
    complaints: list[str]
    wrongs: list[str]

    def to_json(self) -> dict[str, Any]:
        """As it is kept."""
        return asdict(self)


def play_row(row: Row) -> dict[str, Outcome]:
    """Play all takes of a row; returns their outcomes by name."""
    outcomes = {}
    for take in row.takes:
        try:
            outcomes[take.name] = play_take(row, take)
        except (Exception, pytest.fail.Exception) as error:
            msg = f"in the take {take.name!r}"
            raise AssertionError(msg) from error
    compare(row, outcomes)
    return outcomes


def compare(row: Row, outcomes: dict[str, Outcome]) -> None:
    """Add what is wrong only beside other takes: a control that loses nothing, a complaint that is ours."""
    alone, control = outcomes["none"], outcomes["control"]
    if not control.lost and not row.gentle:
        control.wrongs.append("the control has lost nothing, and the row does not say why")
    for outcome in outcomes.values():
        if outcome is not alone and outcome is not control:
            ours = set(outcome.complaints) - set(alone.complaints)
            ours = {each for each in ours if not row.host_says or not re.search(row.host_says, each)}
            outcome.wrongs.extend(f"complaint: {each}" for each in sorted(ours))


def play_take(row: Row, take: Take) -> Outcome:
    """Play one take on a machine of its own."""
    with _machine() as (machine, upstream):
        collector = machine.collector() if take.client == "ours" and take.collecting == "up" else None
        stage = Stage(machine, take, collector)
        has_hung = _play(row, stage)
        complaints = _complaints(machine, collector)
        account = oracle.read(stage.oracle)
        wrongs = []
        if take.client == "ours":
            wrongs += _settle(machine, upstream, account, collector)
            wrongs += [f"nothing was tracked in phase {each}" for each in row.phases - account.phases.keys()]
            wrongs += account.wrongs(oracle.applied(upstream.rows()))
        wait_until(lambda: _is_quiet(upstream), "the upstream has ended all requests")
        applied = oracle.applied(upstream.rows())
        assert has_hung or stage.shutdown_s is not None, f"{row.name}: play() has measured no ending"
        return Outcome(
            tracked=len(account.tracked),
            applied=len(applied),
            lost=account.lost_count(applied),
            phases=account.phases,
            shutdown_s=round(stage.shutdown_s or 0.0, 2),
            has_hung=has_hung,
            complaints=sorted(complaints),
            wrongs=wrongs,
        )


def _play(row: Row, stage: Stage) -> bool:
    """Play, and wait until the host has ended. Returns whether it hung, which only the control may."""
    try:
        row.play(stage)
        stage.wait_over()
    except pytest.fail.Exception:
        if stage.take.client != "control":
            raise
        stage.machine.end_all()
        return True
    return False


@contextlib.contextmanager
def _machine() -> Iterator[tuple[Host, Upstream]]:
    # A unix socket's path is short, hence /tmp itself.
    folder = Path(tempfile.mkdtemp(prefix="smp-", dir="/tmp"))
    (folder / "state").mkdir(mode=0o700)
    (folder / "home").mkdir()
    try:
        with sandbox() as upstream:
            machine = Host(folder / "state", upstream, folder / "home")
            try:
                yield machine, upstream
            finally:
                machine.end_all()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(
    machine: Host, upstream: Upstream, account: oracle.Account, collector: Program | None
) -> list[str]:
    """Have everything shipped, end the collector, and look at what is left here."""
    # A worker that has lived long enough without a collector says so.
    may_say = ("collector_not_heard",) if collector is None else ()
    collector = collector or machine.collector()

    def lost() -> int:
        return account.lost_count(oracle.applied(upstream.rows()))

    with contextlib.suppress(pytest.fail.Exception):  # what is lost is told by the account
        wait_until(lambda: not lost(), "all is applied", DEADLINE_S, LOOK_S)
        wait_until(lambda: not machine.journals(), "all journals are removed", DEADLINE_S, LOOK_S)
    said = collector.end()
    wrongs = [f"the collector says: {line}" for line in _WARNING.findall(said) if not _MEANT.search(line)]
    wrongs += [f"settle_mp says: {each}" for each in account.logged if not each.startswith(may_say)]
    wrongs += [f"left in the state folder: {name}" for name in _left(machine)]
    books = machine.status()
    events = {name: count for name, count in books["events"].items() if count}
    if not books["balanced"] or events.get("confirmed") != events.get("tracked"):
        wrongs.append(f"the books say: {events}")
    return wrongs


def _left(machine: Host) -> list[str]:
    left = {path.name for path in machine.state_dir.iterdir()} - STAYS
    return sorted([*left, *(f"journals/{name}" for name in machine.journals())])


def _is_quiet(upstream: Upstream) -> bool:
    requests = upstream.requests()
    return int(requests["received"]) == int(requests["ended"])


def _complaints(machine: Host, collector: Program | None) -> set[str]:
    """Kinds of tracebacks and warnings, the same for the same kind in two takes."""
    said = "\n".join(each.said for each in machine.programs if each is not collector)
    complaints = complaints_in(said)
    found = [each.rpartition("\n")[2] for each in complaints]
    if any("settle_mp" in each for each in complaints):
        found.append("settle_mp is in a traceback or warning")
    return {re.sub(r"0x[0-9a-f]+|\d+", "N", each).strip() for each in found}
