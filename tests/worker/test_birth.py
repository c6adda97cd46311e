"""How a journal's folder is born: nobody ever sees one that is whole and not locked (rule J1)."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from typing import TYPE_CHECKING

import pytest

from settle_mp import statedir
from settle_mp.worker import birth
from settle_mp.worker.room import JournalFullError
from tests.worker import children, reading
from tests.worker.faults import system
from tests.worker.interruptions import interrupt, points
from tests.worker.journaling import build, folder_of

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.worker.journal import Journal

#: Journals that are alive at the same time; each takes three descriptors.
BATCH = 50
BATCHES = 20


def leave(journal: Journal) -> None:
    """End a journal so that no scanner takes it for a whole one, in the order of the collector's removal."""
    statedir.remove_folder(folder_of(journal))
    journal.close()


def scan(journals: Path, stop: Path) -> tuple[int, list[str]]:
    """Try the locks of all whole journals until told to stop; returns how often, and which were free."""
    looks, free = 0, []
    while not stop.exists():
        for folder in statedir.producer_folders(journals):
            with contextlib.suppress(FileNotFoundError):
                lock = statedir.try_lock(folder / statedir.LOCK_NAME)
                looks += 1
                if lock is not None:
                    free.append(folder.name)
                    os.close(lock)
    return looks, free


def test_no_live_journal_reads_as_dead(tmp_path: Path) -> None:
    """Rule J1: a scanner that tries all locks all the time never gets one of 1,000 live producers."""
    journals, stop = tmp_path / "journals", tmp_path / "stop"
    scanner = children.start(scan, journals, stop)
    try:
        for _ in range(BATCHES):
            made = [build(journals) for _ in range(BATCH)]
            for journal in made:
                leave(journal)
    finally:
        stop.touch()
    looks, free = scanner.result()
    assert free == []
    assert looks > BATCHES * BATCH


def test_a_folder_is_whole_and_locked_once_it_has_its_name(tmp_path: Path) -> None:
    """Rule J1: at every step of the building, what has a producer's name has lock, header and segment."""

    def look() -> None:
        for folder in statedir.producer_folders(tmp_path):
            assert reading.is_locked(folder)
            assert reading.identity(folder).producer.hex() == folder.name
            assert len(reading.segments(folder)) == 1

    build_one = partial(build, tmp_path)
    for at in range(1, points(build_one) + 1):
        journal = interrupt(build_one, at, look)
        journal.discard()


@pytest.mark.parametrize("minds_locks", [True, False])
def test_a_builder_whose_folder_went_begins_again(tmp_path: Path, *, minds_locks: bool) -> None:
    """Rule J1: the collector may take a slow builder's folder for abandoned, or somebody removes it.

    The collector first takes the lock. That can come between the lock's making and its locking, and then
    the builder holds a lock on a file that no path leads to.
    """

    def remove() -> None:
        for folder in tmp_path.glob(statedir.BUILDING_PREFIX + "*"):
            if not minds_locks or not reading.is_locked(folder):
                statedir.remove_folder(folder)

    build_one = partial(build, tmp_path)
    for at in range(1, points(build_one) + 1):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        journal = interrupt(build_one, at, remove)
        assert folder_of(journal).parent == tmp_path
        assert reading.is_locked(folder_of(journal)), at
        journal.append(b"event")
        assert reading.payloads(folder_of(journal))[1:] == [b"event"], at
        journal.close()


def test_a_builder_gives_up_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that goes each time is an error, and no endless loop."""

    def lose(home: birth.Home) -> None:
        raise birth.HomeLostError(str(home.folder))

    monkeypatch.setattr(birth, "move_in", system(lose))
    with pytest.raises(birth.HomeLostError):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_without_room_leaves_nothing(tmp_path: Path) -> None:
    """Rule J5: the bound is met before the folder has a name; what was begun is removed."""
    with pytest.raises(JournalFullError):
        build(tmp_path, host_bytes_max=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("mode", "folder_mode"), [(0o600, 0o700), (0o660, 0o2770)])
def test_rights(tmp_path: Path, mode: int, folder_mode: int) -> None:
    """One user's alone, or a group's as well, whatever the umask."""
    before = os.umask(0o077)
    try:
        home = birth.make_home(tmp_path, mode)
    finally:
        os.umask(before)
    assert home.folder.stat().st_mode & 0o7777 == folder_mode
    assert (home.folder / "lock").stat().st_mode & 0o777 == mode
    birth.abandon(home)
    assert list(tmp_path.iterdir()) == []


def test_the_name_is_the_producers_id(tmp_path: Path) -> None:
    """16 random bytes, so that a name never comes again and doubles as a secret."""
    homes = [birth.make_home(tmp_path, 0o600) for _ in range(50)]
    assert len({home.producer for home in homes}) == 50
    for home in homes:
        assert len(home.producer) == 16
        assert birth.move_in(home).name == home.producer.hex()
        birth.release(home.producer)


def test_a_child_holds_no_lock_of_its_parents(tmp_path: Path) -> None:
    """Rule J4: neither of finished journals nor of those under construction; the parent keeps them."""
    journal = build(tmp_path)
    home = birth.make_home(tmp_path, 0o600)
    assert len(reading.held_locks(tmp_path)) == 2
    assert children.run(reading.held_locks, tmp_path) == []
    assert reading.is_locked(folder_of(journal))
    assert reading.is_locked(home.folder)
    birth.abandon(home)
    journal.close()
    assert reading.held_locks(tmp_path) == []


def test_a_child_leaves_its_parents_building_alone(tmp_path: Path) -> None:
    """Rule J4: what the parent has begun is not the child's to finish, nor to give up."""
    home = birth.make_home(tmp_path, 0o600)

    def work() -> bool:
        birth.abandon(home)
        with pytest.raises(birth.HomeLostError):
            birth.move_in(home)
        return True

    assert children.run(work)
    assert birth.move_in(home).is_dir()
    birth.release(home.producer)


def test_a_lock_outlives_nobody(tmp_path: Path) -> None:
    """Rule J4: while a child lives on, its dead parent's lock is free, and so the parent reads as dead."""
    journals, go = tmp_path / "journals", tmp_path / "go"

    def wait() -> None:
        while not go.exists():
            pass

    def parent() -> int:
        build(journals)
        return children.start(wait).pid

    try:
        pid = children.run(parent)
        os.kill(pid, 0)  # it lives
        (folder,) = statedir.producer_folders(journals)
        assert not reading.is_locked(folder)
    finally:
        go.touch()
