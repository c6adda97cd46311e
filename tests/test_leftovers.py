"""What dead builders and removers left, and folders that nobody understands or can read."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import leftovers, statedir
from settle_mp.worker import birth
from tests.collector.journal_files import JournalFiles, events, flip
from tests.collectors import Bench, bench, is_gone

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_AGO_S = 2 * leftovers.ABANDONED_S
NAME = "0" * 31 + "9"


@pytest.fixture
def parts(state_dir: Path) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir) as made:
        yield made
        made.parts.adoption.drop()


def dead(state_dir: Path, number: int) -> JournalFiles:
    """A dead producer's journal of two events."""
    made = JournalFiles(state_dir / "journals", number.to_bytes(16, "big"))
    made.write_header()
    made.add(events(2 * number, 2 * number + 2))
    return made


def counted(made: Bench) -> int:
    """How many events are committed."""
    return sum(window.events_count for window in made.parts.state.windows)


def age(folder: Path, seconds: float) -> None:
    """Let a folder be that old."""
    at_s = time.time() - seconds
    os.utime(folder, (at_s, at_s))


def fail_for(monkeypatch: pytest.MonkeyPatch, name: str, code: int, path: Path) -> None:
    """Let one of the system's calls fail for what lies at or below a path."""
    owner: Any = Path if name == "rename" else os
    real: Any = getattr(owner, name)

    def failing(at: Any, *more: Any, **options: Any) -> Any:
        if not isinstance(at, int) and path in (Path(at), *Path(at).parents):
            raise OSError(code, os.strerror(code), str(at))
        return real(at, *more, **options)

    monkeypatch.setattr(owner, name, failing)


# --- Folders under construction, and folders on their way out ---


def test_an_abandoned_folder_under_construction_is_removed(state_dir: Path, parts: Bench) -> None:
    """Rule J1: old and unlocked, whether its builder came as far as the lock or not."""
    for number, files in enumerate(([], ["lock"], ["lock", "header"])):
        folder = state_dir / "journals" / f".new-{number}"
        folder.mkdir()
        for name in files:
            (folder / name).touch()
        age(folder, LONG_AGO_S)
    parts.take_in()
    assert list((state_dir / "journals").iterdir()) == []


def test_a_folder_that_is_being_built_is_left_alone(state_dir: Path, parts: Bench) -> None:
    """Rule J1: a builder that is slow holds the lock; one that has just begun has no lock to hold yet."""
    home = birth.make_home(state_dir / "journals", 0o600)
    age(home.folder, LONG_AGO_S)
    young = state_dir / "journals" / ".new-young"
    young.mkdir()
    age(young, leftovers.ABANDONED_S / 2)
    parts.take_in()
    assert home.folder.exists()
    assert young.exists()
    birth.abandon(home)


def test_a_folder_on_its_way_out_goes(state_dir: Path, parts: Bench) -> None:
    """Adoption: whoever died while it removed a journal had committed it; nothing of it is read."""
    journal = dead(state_dir, 1)
    leaving = journal.folder.with_name(f".old-{journal.folder.name}")
    journal.folder.rename(leaving)
    parts.take_in()
    assert (counted(parts), is_gone(leaving)) == (0, True)


def test_an_abandoned_folder_that_cant_be_removed_costs_no_descriptor(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: its lock is let go of, so that the next scan can try again."""
    folder = state_dir / "journals" / ".new-1"
    folder.mkdir()
    (folder / "lock").touch()
    age(folder, LONG_AGO_S)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monkeypatch.context() as patch:
        fail_for(patch, "rename", errno.EACCES, folder)
        parts.take_in()
    assert folder.exists()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    parts.take_in()
    assert is_gone(folder)


# --- Folders that are none, or can't be read ---


def test_strange_names_stop_nobody_and_stay(state_dir: Path, parts: Bench) -> None:
    """Adoption: what is no journal is left alone, and the journals beside it are read."""
    folder = state_dir / "journals"
    for name in ("lost+found", "ab", "x" * 32, "z" * 200, "..x", "ümlaut"):
        (folder / name).mkdir()
    (folder / NAME).write_text("a file under a journal's name")
    (folder / ("f" * 32)).symlink_to("/nowhere")
    (folder / ".new-file").touch()
    before = sorted(folder.iterdir())
    journal = dead(state_dir, 1)
    for _ in range(2):
        parts.take_in()
    assert (counted(parts), is_gone(journal.folder)) == (2, True)
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("name", ["AB" * 16, "ab" * 16 + " ", " ".join(["ab"] * 16)])
def test_a_copy_under_another_spelling_is_no_journal(state_dir: Path, parts: Bench, name: str) -> None:
    """Adoption: a producer has one folder; a stale copy says nothing of whether it lives."""
    journal = dead(state_dir, 1)
    stale = journal.folder.with_name(name)
    shutil.copytree(journal.folder, stale)
    assert bytes.fromhex(name) == b"\xab" * 16
    parts.take_in()
    assert counted(parts) == 2
    assert stale.exists()
    assert set(parts.parts.state.members) == {journal.producer}


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("what", ["", "lock", "header", "segment"])
def test_a_journal_that_cant_be_read_stops_no_other(
    state_dir: Path,
    parts: Bench,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
    code: int,
) -> None:
    """Adoption: it is told once and tried again; nothing of it is lost or taken for gone."""
    bad, good = dead(state_dir, 1), dead(state_dir, 2)
    path = next(bad.folder.glob("*.seg")) if what == "segment" else bad.folder / what
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with monkeypatch.context() as patch:
        fail_for(patch, "open", code, path)
        fail_for(patch, "listdir", code, path)
        for _ in range(3):
            parts.take_in()
    assert (counted(parts), is_gone(good.folder), bad.folder.exists()) == (2, True, True)
    assert [record.msg for record in caplog.records].count("journal_not_read") == 1
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    parts.take_in()
    assert (counted(parts), is_gone(bad.folder)) == (4, True)
    assert parts.parts.state.ledger.residues() == []


def test_journals_that_cant_be_listed_end_no_loop(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Adoption: nobody is taken for gone, and no scan for done, where nothing could be seen."""
    journal = dead(state_dir, 1)
    lock = statedir.try_lock(journal.folder / "lock")
    assert lock is not None
    parts.take_in()
    scan = parts.parts.adoption.scan_anew()
    with monkeypatch.context() as patch:
        fail_for(patch, "listdir", errno.EIO, state_dir / "journals")
        for _ in range(2):
            parts.parts.adoption.scan_soon()
            parts.parts.adoption.turn(parts.now_s)
            parts.parts.adoption.settle()
    assert parts.parts.adoption.done_count < scan
    assert not parts.parts.state.members[journal.producer].is_gone
    assert [record.msg for record in caplog.records].count("journals_not_listed") == 1
    os.close(lock)
    parts.take_in()
    assert (counted(parts), is_gone(journal.folder)) == (2, True)
    assert parts.parts.adoption.done_count >= scan


def test_a_folder_that_cant_be_removed_is_tried_again(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adoption: it is committed, so that it may stay for a while; its lock is not kept."""
    journal = dead(state_dir, 1)
    with monkeypatch.context() as patch:
        fail_for(patch, "rename", errno.EACCES, journal.folder)
        for _ in range(2):
            parts.take_in()
    assert (counted(parts), journal.folder.exists()) == (2, True)
    assert not statedir.is_locked(journal.folder / "lock")
    parts.take_in()
    assert (counted(parts), is_gone(journal.folder)) == (2, True)


@pytest.mark.parametrize("what", ["folder", "copy"])
def test_damage_is_named_also_where_nothing_can_be_put_aside(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Promise 4: the residue stands before the rest is committed past the damage, and says what was kept."""
    journal = dead(state_dir, 1)
    flip(next(journal.folder.glob("*.seg")), 33)
    if what == "folder":
        (state_dir / "quarantine").write_text("in the way")
    else:
        monkeypatch.setattr(shutil, "copyfile", _full)
    parts.take_in()
    (residue,) = parts.parts.state.ledger.residues()
    assert "not kept" in residue
    assert (counted(parts), is_gone(journal.folder)) == (1, True)


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- Who is gone ---


def test_producers_whose_folders_are_gone_are_marked(
    state_dir: Path, parts: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule L4: from then on they may be forgotten, a day later; one whose folder is back is not gone."""
    caplog.set_level(logging.INFO)
    journal = dead(state_dir, 1)
    lock = statedir.try_lock(journal.folder / "lock")
    assert lock is not None
    parts.parts.adoption.is_urgent = True
    parts.take_in()
    ledger, members = parts.parts.state.ledger, parts.parts.state.members
    assert ledger.producers()[journal.producer].gone_s is None
    away = state_dir / "away"
    journal.folder.rename(away)
    parts.take_in()
    assert ledger.producers()[journal.producer].gone_s is not None
    assert members[journal.producer].is_gone
    away.rename(journal.folder)
    journal.add(events(90, 91))
    parts.take_in()
    assert ledger.producers()[journal.producer].gone_s is None
    assert not members[journal.producer].is_gone
    os.close(lock)


def test_what_lay_in_a_folder_that_is_gone_is_forgotten(state_dir: Path, parts: Bench) -> None:
    """Promise 3: memory of silent producers is bounded by those whose folders are there."""
    journal = dead(state_dir, 1)
    lock = statedir.try_lock(journal.folder / "lock")
    assert lock is not None
    parts.take_in()
    assert set(parts.parts.adoption._lying) == {journal.producer}
    shutil.rmtree(journal.folder)
    parts.take_in()
    assert parts.parts.adoption._lying == {}
    os.close(lock)


def test_no_folder_of_journals_is_no_error(state_dir: Path, parts: Bench) -> None:
    """Adoption: somebody emptied the state folder; workers make it again."""
    (state_dir / "journals").rmdir()
    parts.take_in()
    assert dead(state_dir, 1).folder.exists()
    parts.take_in()
    assert counted(parts) == 2
