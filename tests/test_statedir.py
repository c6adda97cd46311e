"""The state folder: closed to others, and locks that mean what they say."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import shutil
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp import statedir
from settle_mp.statedir import StateDir
from tests.chaos import mounts
from tests.worker import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZES = st.integers(0, 16**8 - 1)
BASES = st.integers(0, 2**63 - 1)


def mode_of(path: Path) -> int:
    """Read a file's rights."""
    return stat.S_IMODE(path.stat().st_mode)


def open_count() -> int:
    """Count this process's descriptors."""
    return len([*Path("/dev/fd").iterdir()])


@pytest.fixture(params=[0o000, 0o077])
def _any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Under an open and a closed umask."""
    before = os.umask(request.param)
    yield
    os.umask(before)


# Folders and files.


def test_naming_the_folder_touches_nothing(tmp_path: Path) -> None:
    """A client made at import or before a change of user leaves no trace."""
    state = StateDir(tmp_path / "state")
    assert state.frames_socket.parent == state.control_socket.parent == state.root
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_any_umask")
def test_folders_are_for_this_user_alone(tmp_path: Path) -> None:
    """What opens the sockets and the journals is the right to enter the folder: 0700, whatever the umask."""
    state = StateDir(tmp_path / "state")
    state.prepare()
    assert mode_of(state.root) == mode_of(state.journals) == 0o700


@pytest.mark.usefixtures("_any_umask")
def test_a_group_may_share_the_folder(tmp_path: Path) -> None:
    """With a group the folders are 0770 and new files in them the group's; others have no right at all."""
    group = grp.getgrgid(os.getgid()).gr_name
    state = StateDir(tmp_path / "state")
    state.prepare(group)
    assert mode_of(state.root) == mode_of(state.journals) == 0o2770
    assert state.journals.stat().st_gid == os.getgid()
    assert statedir.file_mode(group) == 0o660
    assert statedir.file_mode(None) == 0o600


def test_an_operators_rights_stay(tmp_path: Path) -> None:
    """A folder that is there keeps its mode, and what is in it."""
    state = StateDir(tmp_path)
    tmp_path.chmod(0o750)
    (tmp_path / "kept").touch()
    state.prepare()
    assert mode_of(tmp_path) == 0o750
    assert (tmp_path / "kept").exists()


def test_a_file_in_the_folders_place_is_an_error(tmp_path: Path) -> None:
    """Nothing is removed to make room: the error names the path."""
    path = tmp_path / "state"
    path.write_text("somebody's")
    with pytest.raises(NotADirectoryError, match=r"state"):
        statedir.make_folder(path)
    assert path.read_text() == "somebody's"


def test_a_folder_that_somebody_makes_at_the_same_moment_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers begin at once: the one that comes second finds it made and goes on."""
    monkeypatch.setattr(type(tmp_path), "is_dir", later(type(tmp_path).is_dir, answer=False))
    statedir.make_folder(tmp_path)


def later(function: Callable[..., bool], *, answer: bool) -> Callable[..., bool]:
    """Give another answer once, and then the true one."""
    calls: list[object] = []

    def answered(*arguments: object) -> bool:
        calls.append(arguments)
        return answer if len(calls) == 1 else function(*arguments)

    return answered


@pytest.mark.usefixtures("_any_umask")
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_new_file_is_new_and_has_its_rights(tmp_path: Path, mode: int) -> None:
    """Past the umask, and not inherited by programs that are started; one that is there is not opened."""
    path = tmp_path / "file"
    descriptor = statedir.open_new(path, mode)
    assert mode_of(path) == mode
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)
    with pytest.raises(FileExistsError):
        statedir.open_new(path, mode)


# Locks.


def lock_and_wait(path: Path) -> None:
    """Take a lock, say so beside it, and hold it until killed."""
    assert statedir.try_lock(path, create=True) is not None
    path.with_suffix(".held").touch()
    time.sleep(children.DEADLINE_S)


def test_a_lock_is_held_for_life_and_free_at_death(tmp_path: Path) -> None:
    """Rule J1: SIGKILL frees it at once, so a free lock proves a death and a held one a life."""
    path = tmp_path / "lock"
    child = children.start(lock_and_wait, path)
    try:
        deadline_s = time.monotonic() + children.DEADLINE_S
        while not path.with_suffix(".held").exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.005)
        assert statedir.try_lock(path) is None
        assert statedir.is_locked(path)
    finally:
        child.kill()
    assert not statedir.is_locked(path)
    descriptor = statedir.try_lock(path)
    assert descriptor is not None
    os.close(descriptor)


def test_asking_leaves_a_free_lock_free(tmp_path: Path) -> None:
    """Rule J1: `status` looks at every lock, and must not stay the holder of one."""
    path = tmp_path / "lock"
    path.touch()
    before = open_count()
    assert not statedir.is_locked(path)
    assert not statedir.is_locked(path)
    assert open_count() == before


@pytest.mark.skipif(bool(mounts.cannot_mount()), reason=mounts.cannot_mount())
def test_a_lock_tells_who_lives_where_nobody_may_write(tmp_path: Path) -> None:
    """Rule J1: a file system that became read-only ends nobody, and makes no lock."""
    path = tmp_path / "lock"
    descriptor = statedir.try_lock(path, create=True)
    assert descriptor is not None
    with mounts.read_only(tmp_path):
        assert statedir.is_locked(path)
        os.close(descriptor)
        assert not statedir.is_locked(path)
        with pytest.raises(OSError, match="Read-only"):
            statedir.try_lock(tmp_path / "other", create=True)


def test_no_lock_file_is_no_lock(tmp_path: Path) -> None:
    """Nobody holds what is not there, and looking makes no file."""
    assert not statedir.is_locked(tmp_path / "lock")
    with pytest.raises(FileNotFoundError):
        statedir.try_lock(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_any_umask")
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_a_lock_that_is_made_has_its_rights(tmp_path: Path, mode: int) -> None:
    """A collector of the same group must be able to open it; programs that are started inherit none."""
    descriptor = statedir.try_lock(tmp_path / "lock", create=True, mode=mode)
    assert descriptor is not None
    assert mode_of(tmp_path / "lock") == mode
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


def flock_after(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Let something happen between the opening of a lock file and its locking."""
    flock = fcntl.flock

    def changed(descriptor: int, operation: int) -> None:
        change()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", changed)


def test_a_lock_on_an_unlinked_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J1: somebody removed the file before we had its lock, so the lock protects nothing."""
    path = tmp_path / "lock"
    flock_after(monkeypatch, path.unlink)
    before = open_count()
    assert statedir.try_lock(path, create=True) is None
    assert open_count() == before


def test_a_lock_on_a_replaced_file_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J1: another file stands at the path by now, and its lock may be somebody's."""
    path, other = tmp_path / "lock", tmp_path / "other"
    path.touch()
    other.touch()
    flock_after(monkeypatch, lambda: other.exists() and other.rename(path))
    before = open_count()
    assert statedir.try_lock(path) is None
    assert open_count() == before


def test_a_lock_in_a_folder_that_was_renamed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J1: the collector took the folder away while we came to its lock."""
    folder = tmp_path / "journal"
    folder.mkdir()
    flock_after(monkeypatch, lambda: folder.rename(tmp_path / ".old-journal"))
    assert statedir.try_lock(folder / "lock", create=True) is None


def test_a_symlink_is_never_locked(tmp_path: Path) -> None:
    """Somebody else's file can't be put in a lock's place, and no file is made through a link."""
    path, target = tmp_path / "lock", tmp_path / "target"
    path.symlink_to(target)
    before = open_count()
    for create in (False, True):
        with pytest.raises(OSError, match=r".") as caught:
            statedir.try_lock(path, create=create)
        assert caught.value.errno == errno.ELOOP
    assert not target.exists()
    assert open_count() == before


def test_a_lock_that_fails_for_another_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without locks must not look like one where somebody else is always first."""

    def refused() -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    flock_after(monkeypatch, refused)
    before = open_count()
    with pytest.raises(OSError, match="no locks"):
        statedir.try_lock(tmp_path / "lock", create=True)
    assert open_count() == before


# Names.


@given(base=BASES, size=SIZES, nonce=st.binary(min_size=1, max_size=8))
def test_a_segments_name_says_where_it_stands(base: int, size: int, nonce: bytes) -> None:
    """A reader knows base and size from the name, before it has read a byte."""
    assert statedir.parse_segment_name(statedir.segment_name(base, size, nonce.hex())) == (base, size)


@given(bases=st.lists(BASES, max_size=5, unique=True))
def test_segments_names_sort_by_position(bases: list[int]) -> None:
    """A sorted listing is in the order of the journal."""
    names = [statedir.segment_name(base, 65536, "ab") for base in bases]
    assert sorted(names) == [statedir.segment_name(base, 65536, "ab") for base in sorted(bases)]


@pytest.mark.parametrize(
    "name",
    [
        "lock",
        "header",
        "0000000000000000-10000-ab.seg.new",
        "0000000000000000-10000.seg",
        "000000000000000-10000-ab.seg",
        "0000000000000000-10000-ab.seg\n",
        "000000000000000G-10000-ab.seg",
        "\u0660000000000000000-10000-ab.seg",
        "../0000000000000000-10000-ab.seg",
    ],
)
def test_other_files_are_no_segments(name: str) -> None:
    """Rule J1: a segment that is still being made has another name, and is not read."""
    assert statedir.parse_segment_name(name) is None


# Journal folders.


def test_only_whole_journals_are_seen(tmp_path: Path) -> None:
    """Rule J1: scanners pass over what is being built and what is leaving."""
    for name in ("aa", "bb", ".new-cc", ".old-dd"):
        (tmp_path / name).mkdir()
    assert sorted(folder.name for folder in statedir.producer_folders(tmp_path)) == ["aa", "bb"]
    assert list(statedir.producer_folders(tmp_path / "missing")) == []


def test_a_removal_that_was_cut_short_leaves_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle, it leaves a name that no scanner takes for a journal; again, and it is gone."""
    folder = tmp_path / "aa"
    folder.mkdir()
    for name in ("lock", "header", "0000000000000000-10000-ab.seg"):
        (folder / name).touch()

    def remove_and_be_killed() -> None:
        def killed(_: object) -> None:
            (tmp_path / ".old-aa" / "lock").unlink()
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(shutil, "rmtree", killed)
        statedir.remove_folder(folder)

    assert children.start(remove_and_be_killed).wait() == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".old-aa"]
    assert list(statedir.producer_folders(tmp_path)) == []
    statedir.remove_folder(tmp_path / ".old-aa")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_is_removed(tmp_path: Path) -> None:
    """Whoever else removed it did what was wanted."""
    statedir.remove_folder(tmp_path / "aa")
