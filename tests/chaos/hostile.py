"""Hostile and odd: strangers at the sockets, ledgers of others, clocks that step, ways of forking."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.chaos import clock, damage, forks
from tests.chaos.fault import FAULTS, Fault, fault, nothing_lost_nothing_twice
from tests.chaos.house import ALREADY_RUNNING
from tests.chaos.judges import DESTROYED, PERHAPS_SENT, judge_destroyed
from tests.hostile.strangers import STRANGERS

if TYPE_CHECKING:
    from tests.chaos.fault import Settled
    from tests.chaos.house import House
    from tests.chaos.keepers import Child

DAY_S: Final = 86_400.0

# --- Strangers ---


def _stranger(name: str, doc: str) -> Fault:
    def play(house: House) -> None:
        if not house.is_control:
            house.wait_up()
            house.wait_s(0, 0.1)
            STRANGERS[name](house.state_dir, house.random)
        house.count(name)

    what = f"strangers at the sockets: {doc[0].lower()}{doc[1:].rstrip('.')}"
    return Fault(name=name.replace("_", "-"), group="hostile", what=what, play=play, counted=name, share=0.02)


for _name, _each in STRANGERS.items():
    _made = _stranger(_name, _each.__doc__ or "")
    FAULTS[_made.name] = _made


# --- Ledgers ---


def end_collector(house: House) -> damage.Held:
    """Kill the collector when its ledger holds something, and read what that is."""
    house.wait_up()
    house.upstream.stop()
    house.wait_s(0.3, 0.6)
    house.strike(house.collector)
    house.bury(house.collector)
    house.upstream.start()
    return damage.held(house.state_dir)


def note_destroyed(house: House, held: damage.Held) -> None:
    """Remember what is gone with a ledger."""
    house.count(DESTROYED, held.events)
    house.count(PERHAPS_SENT, held.perhaps_sent)


def await_next_ledger(house: House, before: bytes) -> None:
    """Start a collector, which must go on with another ledger and say what became of the one before."""
    house.start_collector()
    house.wait_up()
    if _ledger_id(house) == before:
        house.complaints.append("the ledger was believed")
    if not any("was put aside as quarantine/" in each for each in house.status()["faults"]):
        house.complaints.append("no residue names the ledger")


def _ledger_id(house: House) -> bytes:
    with closing(sqlite3.connect(house.state_dir / "ledger/ledger.db")) as database:
        return bytes.fromhex(database.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()[0])


@fault(
    "ledger-lost",
    group="hostile",
    what="the ledger's file is gone, under live workers",
    counted="ledgers lost",
    share=0.02,
    judge=judge_destroyed,
)
def ledger_lost(house: House) -> None:
    """What only it knew is named; the journals go on where it stood."""
    house.count("ledgers lost")
    if house.is_control:
        return
    held = end_collector(house)
    before = _ledger_id(house)
    for path in damage.ledger_files(house.state_dir):
        path.unlink()
    note_destroyed(house, held)
    await_next_ledger(house, before)


@fault(
    "ledger-of-another-machine",
    group="hostile",
    what="the ledger of another machine in its place, under live workers",
    counted="ledgers swapped",
    share=0.02,
    judge=judge_destroyed,
)
def ledger_of_another_machine(house: House) -> None:
    """It is sound, and not the one that this folder had."""
    house.count("ledgers swapped")
    if house.is_control:
        return
    held = end_collector(house)
    with tempfile.TemporaryDirectory() as folder:
        other = _collector_elsewhere(house, Path(folder))
        for path in damage.ledger_files(house.state_dir):
            path.unlink()
        for path in damage.ledger_files(other):
            shutil.copy(path, house.state_dir / "ledger" / path.name)
    note_destroyed(house, held)
    await_next_ledger(house, _ledger_id(house))


def _collector_elsewhere(house: House, state_dir: Path) -> Path:
    """Have a collector make a ledger in another folder, and end it in good order."""
    ours = house.collector
    house.environ["SETTLE_MP_STATE_DIR"] = str(state_dir)
    try:
        house.start_collector()
        house.wait_up()
        house.strike(house.collector, signal.SIGTERM)
        house.bury(house.collector)
    finally:
        house.environ["SETTLE_MP_STATE_DIR"] = str(house.state_dir)
        house.collector = ours
    return state_dir


@fault(
    "ledger-of-yesterday",
    group="hostile",
    what="an older copy of the ledger in its place, under live workers",
    counted="ledgers set back",
    share=0.02,
    judge=judge_destroyed,
)
def ledger_of_yesterday(house: House) -> None:
    """What it had sent since would be sent again."""
    house.count("ledgers set back")
    if house.is_control:
        return
    end_collector(house)
    with tempfile.TemporaryDirectory() as folder:
        copies = [Path(shutil.copy(path, folder)) for path in damage.ledger_files(house.state_dir)]
        sent = house.status()["events"]["confirmed"]
        house.start_collector()
        house.wait_until(lambda: house.status()["events"]["confirmed"] > sent, "more is sent")
        held = end_collector(house)
        before = _ledger_id(house)
        for path in damage.ledger_files(house.state_dir):
            path.unlink()
        for copy in copies:
            shutil.copy(copy, house.state_dir / "ledger" / copy.name)
    note_destroyed(house, held)
    await_next_ledger(house, before)


# --- Clocks ---


def judge_hours(settled: Settled) -> list[str]:
    """Nothing lost, nothing twice, and no sum over two hours."""
    wrong = nothing_lost_nothing_twice(settled)
    with closing(sqlite3.connect(settled.house.upstream.db_path)) as database:
        for (body,) in database.execute("SELECT body FROM requests"):
            for row in json.loads(body)["events"]:
                window = row["metadata"]["settle_mp"]
                start, end = window["window_start"], window["window_end"]
                if start[:13] != end[:13] and not end.endswith(":00:00Z"):
                    wrong.append(f"a sum from {start} to {end}")
    return wrong


def _clock_step(name: str, what: str, *steps_s: float | None) -> None:
    @fault(
        name,
        group="hostile",
        what=what,
        counted="clock steps",
        share=0.02,
        judge=judge_hours,
        settings=clock.SETTINGS,
    )
    def step(house: House) -> None:
        for by_s in steps_s:
            house.wait_s(0.1, 0.3)
            house.clock.step(house.clock.to_next_hour() if by_s is None else by_s)
        house.wait_s(0.1, 0.3)
        house.count("clock steps")
        if house.is_control:
            return
        # A collector that starts then has times of the other side of the step in its ledger. In good order:
        # what a kill leaves in doubt would seem a day old, and be held for a person to decide.
        house.wait_up()
        house.strike(house.collector, signal.SIGTERM)
        house.bury(house.collector)
        house.start_collector()
        house.wait_s(0.1, 0.3)


_clock_step("clock-a-day-ahead", "the clock leaps a day ahead, and back", DAY_S, -DAY_S)
_clock_step("clock-a-day-back", "the clock leaps a day back, and ahead", -DAY_S, DAY_S)
_clock_step("clock-next-hour", "the clock leaps into the next hour, twice", None, None)


# --- Forks ---


@fault(
    "brief-lives",
    group="hostile",
    what="2,000 processes that each track one event and die at once",
    counted="brief",
    share=0.002,
)
def brief_lives(house: House) -> None:
    """Each has a journal of its own."""
    for _ in range(8):
        house.fork_lives("brief", 250)


@fault(
    "fork-within-track",
    group="hostile",
    what="forks while other threads are within track(); the parent goes on",
    counted="beside_threads",
    share=0.02,
)
def fork_within_track(house: House) -> None:
    """Whatever the other threads were about at the fork goes on in the parent alone."""
    house.fork_lives("beside_threads", 9)


@fault(
    "fork-of-a-fork",
    group="hostile",
    what="forks of forks, each generation tracking before and after",
    counted="generations",
    share=0.02,
)
def fork_of_a_fork(house: House) -> None:
    """Four generations, some times."""
    house.fork_lives("generations", 9)


@fault(
    "containers",
    group="hostile",
    what="containers on one state folder: pid namespaces whose processes all are process 1, SIGKILL of each",
    counted="containers",
    share=0.02,
    obstacle=forks.cannot_contain,
)
def containers(house: House) -> None:
    """A process id says nothing: each of them has the one that another has had."""
    house.fork_lives("containers", 5, is_killed=True)


@fault(
    "two-collectors",
    group="hostile",
    what="two collectors in two pid namespaces; SIGKILL of the first, and another one takes over",
    counted="second collectors",
    share=0.02,
    obstacle=forks.cannot_contain,
)
def two_collectors(house: House) -> None:
    """All of them are process 1; only the lock tells who lives."""
    house.count("second collectors")
    if house.is_control:
        return
    house.strike(house.collector)
    house.bury(house.collector)
    first = _contained_collector(house)
    second = house.start_collector(is_contained=True)
    assert second is not None
    second.is_doomed = True
    house.bury(second)
    words = f"another collector runs on {house.state_dir}; it goes on, this one ends"
    if second.code != ALREADY_RUNNING or words not in house.collectors_words:
        house.complaints.append(f"the second ended with {second.code}: {house.collectors_words}")
    house.collector = first
    house.wait_s(0.1, 0.3)
    house.strike(first)
    house.bury(first)
    _contained_collector(house)


def _contained_collector(house: House) -> Child | None:
    collector = house.start_collector(is_contained=True)
    house.wait_up()
    if not re.search(r"collector_started .*\bpid=1\b", house.collectors_words):
        house.complaints.append(f"the collector is in no namespace of its own: {house.collectors_words}")
    return collector
