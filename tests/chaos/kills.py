"""Kills: SIGKILL, `os._exit` and SIGSTOP, at random moments and at every step between two durable writes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from tests.chaos import ptrace
from tests.chaos.fault import FAULTS, UNCOMMITTED, Fault, fault
from tests.chaos.house import ALREADY_RUNNING, WORKERS, open_house
from tests.chaos.points import POINTS

if TYPE_CHECKING:
    from tests.chaos.house import House
    from tests.chaos.points import Point

#: Seconds between two random kills at most.
LULL_S: Final = 0.12
#: Tries for one hit of a point; a miss is a kill at another moment, and counted as one.
TRIES: Final = 5
#: Collectors that die one after the other before one may live.
FIRST_STARTS: Final = 2
#: Seconds that a stopped process stays so: longer than a silent courier is waited for.
STOPPED_S: Final = 5.0


@fault("kill-worker", group="kills", what="SIGKILL of a worker at a random moment", share=0.5)
def kill_worker(house: House) -> None:
    """One worker, then its successor in the same slot."""
    house.wait_s(0, LULL_S)
    house.kill_worker()


@fault("kill-collector", group="kills", what="SIGKILL of the collector at a random moment", share=0.3)
def kill_collector(house: House) -> None:
    """Now and then while it is still starting."""
    house.wait_s(0, 3 * LULL_S)
    if house.is_control:
        kill_worker(house)
        return
    house.strike(house.collector)
    house.bury(house.collector)
    house.start_collector()


@fault("kill-both", group="kills", what="SIGKILL of a worker and the collector at once", share=0.2)
def kill_both(house: House) -> None:
    """The successors start in either order."""
    house.wait_s(0, 3 * LULL_S)
    slot = house.any_slot()
    doomed = [house.worker(slot), house.collector]
    house.random.shuffle(doomed)
    for child in doomed:
        house.strike(child)
    house.bury(*doomed)
    house.start()


@fault("kill-everything", group="kills", what="SIGKILL of all workers and the collector at once", share=0.1)
def kill_everything(house: House) -> None:
    """What was left behind has to be found by those who come after."""
    house.wait_s(0, 3 * LULL_S)
    doomed = [house.collector, *(house.worker(slot) for slot in range(WORKERS))]
    house.random.shuffle(doomed)
    for child in doomed:
        house.strike(child)
    house.bury(*doomed)
    house.start()


@fault(
    "exit-in-track", group="kills", what="os._exit of a worker, within track()", counted="os._exit", share=0.2
)
def exit_in_track(house: House) -> None:
    """A signal handler ends the process, wherever its first thread is; the others are anywhere as well."""
    house.wait_s(0.02, LULL_S)
    slot = house.any_slot()
    house.strike(house.worker(slot), signal.SIGUSR1)
    house.bury(house.worker(slot))
    house.count("os._exit")
    house.start_worker(slot)


@fault(
    "stop-worker",
    group="kills",
    what="SIGSTOP of a worker for 5 s, then SIGCONT",
    counted="SIGSTOP",
    share=0.01,
)
def stop_worker(house: House) -> None:
    """A stopped worker is alive: what it has journaled is read, and its journal stays its own."""
    worker = house.worker(house.any_slot())
    worker.signal(signal.SIGSTOP)
    house.wait_s(STOPPED_S, STOPPED_S)
    worker.signal(signal.SIGCONT)
    house.count("SIGSTOP")


@fault(
    "stop-collector",
    group="kills",
    what="SIGSTOP of the collector for 5 s, then SIGCONT",
    counted="SIGSTOP",
    share=0.01,
)
def stop_collector(house: House) -> None:
    """Meanwhile a worker dies, so that there is something to adopt and nobody who does."""
    if not house.is_control:
        assert house.collector is not None
        house.collector.signal(signal.SIGSTOP)
    house.wait_s(STOPPED_S / 2, STOPPED_S / 2)
    kill_worker(house)
    house.wait_s(STOPPED_S / 2, STOPPED_S / 2)
    if house.collector is not None:
        house.collector.signal(signal.SIGCONT)
    house.count("SIGSTOP")


@fault(
    "stop-then-kill",
    group="kills",
    what="SIGSTOP of a worker until its journal has been read, SIGCONT and SIGKILL of it at once",
    share=0.01,
)
def stop_then_kill(house: House) -> None:
    """What it does between the two signals comes after what was read of it while it was silent."""
    slot = house.any_slot()
    house.worker(slot).signal(signal.SIGSTOP)
    house.wait_s(STOPPED_S - 2, STOPPED_S)
    house.worker(slot).signal(signal.SIGCONT)
    house.wait_s(0, 0.01)
    house.strike(house.worker(slot))
    house.bury(house.worker(slot))
    house.count("SIGSTOP")
    house.start_worker(slot)


def cannot_trace() -> str:
    """Why points can't be hit on this machine."""
    return "" if ptrace.is_possible() else "tracing one's own children (ptrace) is not possible here"


@fault(
    "two-adoptions",
    group="kills",
    what="SIGKILL of the collector within an adoption; two collectors start at once",
    share=0.05,
    obstacle=cannot_trace,
)
def two_adoptions(house: House) -> None:
    """The second finds the state folder taken, with the adoption that the dead one had begun half done."""
    name = house.random.choice([point.name for point in POINTS if point.name.startswith("adoption")])
    house.kill_worker()
    house.kill_at(name)
    if house.is_control:
        return
    first, second = house.start_two_collectors()
    house.wait_until(lambda: not first.is_running or not second.is_running, "one of two collectors gives way")
    loser, winner = (first, second) if not first.is_running else (second, first)
    house.collector = winner
    loser.is_doomed = True
    if loser.code != ALREADY_RUNNING:
        house.complaints.append(f"the second collector ended with {loser.code}: {house.said('collector')}")


@fault(
    "first-start",
    group="kills",
    what="SIGKILL of collectors before any step of the first start on a new state folder",
    share=0.02,
    obstacle=cannot_trace,
)
def first_start(house: House) -> None:
    """The ledger is being born, and workers have tracked already."""
    if house.is_control:
        kill_worker(house)
        return
    with open_house(seed=f"{house.random.random()}", is_started=False) as other:
        for slot in range(WORKERS):
            other.start_worker(slot)
        for _ in range(FIRST_STARTS):
            other.kill_at("before any step of a start")
        other.settle()
        verdict = other.verdict()
        wrong = [f"{verdict.lost} lost, {verdict.twice} twice"] if verdict.lost or verdict.twice else []
        other.complaints += [*wrong, *verdict.complaints]
        house.complaints += other.complaints
        house.counts.update(other.counts)


def _at_point(point: Point) -> Fault:
    name = point.name
    is_adoption = name.startswith("adoption")

    def play(house: House) -> None:
        for _ in range(TRIES):
            if is_adoption:
                house.kill_worker()
            is_hit = house.kill_at(name)
            house.start()
            if is_hit:
                return

    slug = name.replace(":", "").replace(",", "").replace("'", "").replace(" ", "-")
    return Fault(
        name=f"at-{slug}",
        group="kills",
        what=f"SIGKILL at the point: {name}",
        play=play,
        family=f"SIGKILL {point.stage}",
        member=name.removeprefix("adoption: "),
        counted=name,
        power_loss="nothing that came this far" if point.is_on_disk else UNCOMMITTED,
        share=0.1,
        obstacle=cannot_trace,
    )


for _point in POINTS:
    _fault = _at_point(_point)
    FAULTS[_fault.name] = _fault
