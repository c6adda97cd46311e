"""Disks: full, read-only, failing, and with files that are not what was written to them.

A full disk is one of the house's own, 128 MiB in memory, or where that can't be mounted (and for errors of
single processes anywhere) a limit on how far a process's files may grow, set from outside: beyond it every
write fails, and SQLite calls that an I/O error.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING, Final

from tests.chaos import damage, mounts, ptrace
from tests.chaos.errors import COMMITS, FAILURES
from tests.chaos.fault import FAULTS, Fault, fault
from tests.chaos.hostile import end_collector, note_destroyed
from tests.chaos.house import WORKERS
from tests.chaos.judges import DESTROYED, PERHAPS_SENT, judge_destroyed, judge_dropped
from tests.chaos.load import CLOSE_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from random import Random

    from tests.chaos.errors import Failure
    from tests.chaos.house import House
    from tests.chaos.keepers import Child

    Spoil = Callable[[damage.Segment, int, Random], int]

#: The ledger's file.
LEDGER: Final = "ledger.db"
#: What a disk has for itself: twice what journals and ledger keep free, and what they grow to meanwhile.
DISK_MEBIBYTES: Final = 128
#: Tries for one failure of calls; a miss is a kill at another moment.
TRIES: Final = 5
#: Bytes that a process may still write of any file: side files and headers, and next to nothing of a ledger.
FILE_BYTES_MAX: Final = 8 * 1024


@contextlib.contextmanager
def full(house: House) -> Iterator[None]:
    """Leave no free block on the house's disk for a while."""
    mounts.fill(house.state_dir)
    try:
        yield
    finally:
        mounts.empty(house.state_dir)


@contextlib.contextmanager
def failing(*children: Child | None) -> Iterator[None]:
    """Have all writes of some processes fail that go further than the beginning of a file."""
    alive = [child for child in children if child is not None and child.is_running]
    limits = {child.pid: resource.prlimit(child.pid, resource.RLIMIT_FSIZE) for child in alive}
    for child in alive:
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, limits[child.pid][1]))
    try:
        yield
    finally:
        for child in alive:
            if child.is_running:
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, limits[child.pid])


# --- Full ---


@fault(
    "disk-full",
    group="disk",
    what="the disk is full for some seconds: segments, commits, seals, and what empties the ledger",
    counted="disks filled, sealed and settled on",
    share=0.02,
    judge=judge_dropped,
    disk_mebibytes=DISK_MEBIBYTES,
    obstacle=mounts.cannot_mount,
)
def disk_full(house: House) -> None:
    """It has a batch that must go and a window that must be sealed then: intake alone gets no room."""
    house.wait_tracking()
    house.upstream.stop()
    if not house.is_control:
        house.wait_until(lambda: _has_both(house), "there is something to seal and to ship, and a reserve")
    with full(house):
        before = damage.progress(house.state_dir)
        house.wait_full()
        house.upstream.start()
        if not house.is_control:
            house.wait_until(lambda: _has_passed(house, before), "it seals and settles on a full disk")
    house.count("disks filled, sealed and settled on")


def _has_both(house: House) -> bool:
    now = damage.progress(house.state_dir)
    return now.frames_count > 0 and now.batches_count > 0 and _has_reserve(house)


def _has_reserve(house: House) -> bool:
    reserve = house.state_dir / "ledger/reserve"
    return reserve.exists() and reserve.stat().st_blocks > 0


def _has_passed(house: House, before: damage.Progress) -> bool:
    """Whether the ledger has sealed and settled something since."""
    now = damage.progress(house.state_dir)
    return now.seal_number > before.seal_number and now.settled_count > before.settled_count


@fault(
    "disk-full-kill-collector",
    group="disk",
    what="SIGKILL of the collector while the disk is full; the next one starts on it",
    counted="disks filled",
    share=0.02,
    judge=judge_dropped,
    disk_mebibytes=DISK_MEBIBYTES,
    obstacle=mounts.cannot_mount,
)
def disk_full_kill_collector(house: House) -> None:
    """Even opening a database takes room, which the reserve gives."""
    house.wait_tracking()
    if not house.is_control:
        house.wait_until(lambda: _has_reserve(house), "the ledger has its reserve")
    with full(house):
        house.wait_s(0.3, 0.6)
        house.strike(house.collector)
        house.bury(house.collector)
        house.start_collector()
        house.wait_s(1.0, 2.0)
    house.count("disks filled")


@fault(
    "disk-full-new-worker",
    group="disk",
    what="a worker begins while the disk is full, and has its journal in memory",
    counted="disks filled",
    share=0.02,
    judge=judge_dropped,
    settings={CLOSE_VARIABLE: "30"},
    disk_mebibytes=DISK_MEBIBYTES,
    obstacle=mounts.cannot_mount,
)
def disk_full_new_worker(house: House) -> None:
    """It has time to hand over what it has; that of a killed one is gone, as `status` says before."""
    house.wait_tracking()
    slot = house.any_slot()
    house.retire(slot)
    with full(house):
        house.start_worker(slot)
        house.wait_s(0.5, 1.0)
    house.wait_taking_in()
    house.retire(slot)
    house.start_worker(slot)
    house.count("disks filled")


# --- Read-only ---


def _wait_up(house: House) -> None:
    """On a folder that nobody may write to, a worker gets no journal and a collector no socket."""
    house.wait_tracking()
    if not house.is_control:
        house.wait_up()


@fault(
    "read-only",
    group="disk",
    what="the state folder is read-only for some seconds, under a live collector and live workers",
    counted="folders made read-only",
    share=0.02,
    judge=judge_dropped,
    obstacle=mounts.cannot_mount,
)
def read_only(house: House) -> None:
    """What is open can still be written, and nothing else."""
    _wait_up(house)
    with mounts.read_only(house.state_dir):
        house.wait_trouble()
        house.wait_s(0.2, 1.0)
    house.count("folders made read-only")
    house.wait_taking_in()


@fault(
    "read-only-kill-collector",
    group="disk",
    what="SIGKILL of the collector while the state folder is read-only; the next one says why it can't start",
    counted="folders made read-only",
    share=0.02,
    judge=judge_dropped,
    obstacle=mounts.cannot_mount,
)
def read_only_kill_collector(house: House) -> None:
    """Its supervisor tries again, and the one that can is as any other."""
    _wait_up(house)
    with mounts.read_only(house.state_dir):
        house.wait_s(0.1, 0.5)
        house.strike(house.collector)
        house.bury(house.collector)
        refused = house.start_collector()
        if refused is not None:
            refused.is_doomed = True
            house.bury(refused)
            if refused.code != 1 or "readonly" not in house.collectors_words.replace("-", "").lower():
                house.complaints.append(f"a collector ended with {refused.code}: {house.said('collector')}")
    house.count("folders made read-only")
    house.start()
    _wait_up(house)


@fault(
    "read-only-new-worker",
    group="disk",
    what="a worker begins while the state folder is read-only, and has its journal in memory",
    counted="folders made read-only",
    share=0.02,
    judge=judge_dropped,
    settings={CLOSE_VARIABLE: "30"},
    obstacle=mounts.cannot_mount,
)
def read_only_new_worker(house: House) -> None:
    """It has time to hand over what it has."""
    _wait_up(house)
    slot = house.any_slot()
    house.retire(slot)
    with mounts.read_only(house.state_dir):
        house.start_worker(slot)
        house.wait_tracking()
    house.wait_taking_in()
    house.retire(slot)
    house.start_worker(slot)
    house.count("folders made read-only")


# --- Failing ---


@fault(
    "io-error",
    group="disk",
    what="an I/O error from each write to the ledger's files, for a second or two",
    counted="I/O errors",
    share=0.02,
)
def io_error(house: House) -> None:
    """Commits, seals and settlements fail; nothing is acknowledged that is not there."""
    if not house.is_control:
        house.wait_up()
    with failing(house.collector):
        house.wait_trouble()
        house.wait_s(0.1, 0.5)
    house.count("I/O errors")


@fault(
    "io-error-kill",
    group="disk",
    what="SIGKILL of the collector amidst I/O errors",
    counted="I/O errors",
    share=0.02,
)
def io_error_kill(house: House) -> None:
    """What the next one finds is what was committed before."""
    if not house.is_control:
        house.wait_up()
    with failing(house.collector):
        house.wait_s(0.1, 0.5)
        house.strike(house.collector)
        house.bury(house.collector)
    house.start_collector()
    house.count("I/O errors")


@fault(
    "no-segment",
    group="disk",
    what="no further journal segment can be made, for a second or two",
    counted="segments refused",
    share=0.02,
    judge=judge_dropped,
)
def no_segment(house: House) -> None:
    """What does not fit is dropped and counted, where a kill does not reach the count."""
    house.wait_tracking()
    with failing(*(house.worker(slot) for slot in range(WORKERS))):
        house.strike(house.collector)
        house.bury(house.collector)
        house.wait_dropped()
    slot = house.any_slot()
    house.retire(slot)
    house.start()
    house.count("segments refused")


def cannot_fail_calls() -> str:
    """Why single calls can't be made to fail on this machine."""
    return "" if ptrace.can_fail_calls() else "making system calls fail takes ptrace, and x86_64"


def _have_calls_fail(house: House, failure: Failure, *, is_killed: bool = False) -> None:
    """Try until they do, and wait until it is over."""
    for _ in range(TRIES):
        if failure.is_of_a_dead_journal:
            house.kill_worker()
        is_hit = house.fail_at(failure.name, is_killed=is_killed)
        house.wait_decided()
        house.start()
        if is_hit:
            break
    house.wait_taking_in()


def _failing_calls(failure: Failure) -> Fault:
    is_sync = failure.name.startswith("sync of ")
    return Fault(
        name=failure.name.replace(" ", "-").replace("'", ""),
        group="disk",
        what=f"an I/O error: {failure.name}",
        play=lambda house: _have_calls_fail(house, failure),
        family="an I/O error, or no room, at a sync of the ledger's files and at what comes next" * is_sync,
        member=failure.name.removeprefix("sync of ") * is_sync,
        counted=failure.name,
        share=0.02,
        obstacle=cannot_fail_calls,
    )


for _failure in FAILURES:
    _made = _failing_calls(_failure)
    FAULTS[_made.name] = _made


@fault(
    "sync-kill",
    group="disk",
    what="SIGKILL of the collector at an error of a sync; the next one finds in the log what was not synced",
    counted="killed at a sync",
    share=0.02,
    obstacle=cannot_fail_calls,
)
def sync_kill(house: House) -> None:
    """It may be counted, and then nobody else may bring it."""
    _have_calls_fail(house, house.random.choice(COMMITS), is_killed=True)
    house.count("killed at a sync")


# --- Damaged ---


def _spoiled_journal(name: str, what: str, spoil: Spoil) -> None:
    @fault(name, group="disk", what=what, counted="journals spoiled", share=0.05, judge=judge_destroyed)
    def play(house: House) -> None:
        house.count("journals spoiled")
        if house.is_control:
            return
        house.wait_up()
        house.strike(house.collector)
        house.bury(house.collector)
        house.wait_s(0.1, 0.4)
        dead = set(damage.dead_journals(house.state_dir))
        house.retire(house.any_slot())
        _spoil(house, spoil, set(damage.dead_journals(house.state_dir)) - dead)
        house.start()
        house.wait_up()

    play.__doc__ = "The rest of it is billed, and the next worker's journal is its own."


def _spoil(house: House, spoil: Spoil, folders: set[Path]) -> None:
    """Spoil one segment of these journals, and count what that destroys."""
    positions = damage.held(house.state_dir).positions
    whole = [
        (each, positions.get(folder.name, 0))
        for folder in sorted(folders)
        for each in damage.segments(folder)
        if each.records()
    ]
    segment, committed = house.random.choice(whole)
    house.count(DESTROYED, spoil(segment, committed, house.random))


_spoiled_journal("journal-cut", "a dead worker's journal is cut off at any sector", damage.truncate)
_spoiled_journal("journal-bit", "a bit flips in a dead worker's journal", damage.flip)


def _spoiled_ledger(name: str, what: str, file: str) -> None:
    @fault(name, group="disk", what=what, counted="ledgers spoiled", share=0.05, judge=judge_destroyed)
    def play(house: House) -> None:
        house.count("ledgers spoiled")
        if house.is_control:
            return
        held, before = end_collector(house), damage.batches(house.state_dir)
        damage.spoil_ledger(house.state_dir, file, house.random)
        after = damage.batches(house.state_dir)
        house.start_collector()
        house.wait_up()
        if any(name.startswith("ledger-") for name in _quarantined(house)):
            note_destroyed(house, held)
        elif file == LEDGER:  # a log that is cut off leaves older rows, and no spoiled ones
            _discard_spoiled(house, before, after)

    play.__doc__ = "It is believed as it was, or put aside and named."


def _discard_spoiled(house: House, before: dict[int, damage.Batch], after: dict[int, damage.Batch]) -> None:
    """Do as an operator does with batches that can't be sent any more, and count what was destroyed."""
    spoiled = [batch for number, batch in before.items() if after.get(number) != batch]
    held = {number for number, batch in after.items() if before.get(number) != batch}
    house.wait_until(lambda: held <= damage.held_batches(house.state_dir), "what was spoiled is held")
    for number in held:
        house.command("indoubt", "discard", str(number))
    house.count(DESTROYED, sum(batch.events for batch in spoiled))
    house.count(PERHAPS_SENT, sum(batch.events for batch in spoiled if batch.is_perhaps_sent))


def _quarantined(house: House) -> list[str]:
    """What was put aside in this round; it is taken away, for the next one to see its own."""
    folder = house.state_dir / "quarantine"
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208  names are wanted
    for name in names:
        (folder / name).unlink()
    return names


_spoiled_ledger("ledger-cut-or-bit", "the ledger's file is cut off at a sector, or a bit flips", LEDGER)
_spoiled_ledger("log-cut-or-bit", "the ledger's WAL is cut off at a sector, or a bit flips", f"{LEDGER}-wal")


@fault(
    "batch-bit",
    group="disk",
    what="a bit flips in a batch on its way; it is held, and an operator discards it",
    counted="batches spoiled",
    share=0.02,
    judge=judge_destroyed,
)
def batch_bit(house: House) -> None:
    """That one is never sent, and the rest is billed."""
    for _ in range(TRIES):
        if house.is_control:
            break
        end_collector(house)
        if before := damage.batches(house.state_dir):
            damage.flip_body(house.state_dir, house.random)
            after = damage.batches(house.state_dir)
            house.start_collector()
            _discard_spoiled(house, before, after)
            break
        house.start_collector()
    else:
        return
    house.count("batches spoiled")
