"""CURVE keys on disk: made whole, for their owner alone, and refused where they can't be right."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from settle_mp import endpoints, keys
from settle_mp.config import load
from settle_mp.keys import KeysError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make the keys of a collector and of one worker."""
    made = tmp_path / "keys"
    keys.make(made)
    return made


@pytest.fixture
def workers(folder: Path, tmp_path: Path) -> Path:
    """Make the folder of a worker's host: what `settle-mp keys` says is to be copied there."""
    copied = tmp_path / "elsewhere"
    copied.mkdir()
    for name in (keys.COLLECTOR_PUBLIC, keys.WORKER_SECRET):
        shutil.copy2(folder / name, copied / name)
    return copied


def test_the_two_sides_fit(folder: Path, workers: Path) -> None:
    """The worker knows the collector's public key, the collector admits the worker's and its own."""
    collector, worker = keys.of_collector(folder), keys.of_worker(workers)
    assert collector is not None
    assert worker is not None
    assert worker.collector == collector.public
    assert keys.admitted(folder) == {worker.public, collector.public}


def test_secret_keys_are_their_owners_alone(folder: Path) -> None:
    """Files 0600, folders 0700, and nothing that is printed by accident shows one."""
    for path in [folder, *folder.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    for curve in (keys.of_collector(folder), keys.of_worker(folder)):
        assert curve is not None
        assert curve.secret.reveal() not in f"{curve!r} {curve} {curve.secret}"


def test_a_group_may_read_what_workers_need(tmp_path: Path) -> None:
    """Where workers run as another user, they reach their own keys and not the collector's secret."""
    keys.make(tmp_path / "keys", gid=os.getgid())
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (tmp_path / "keys", *(tmp_path / "keys").iterdir())
    }
    assert modes == {
        "keys": 0o750,
        keys.WORKER_SECRET: 0o640,
        keys.COLLECTOR_PUBLIC: 0o640,
        keys.COLLECTOR_SECRET: 0o600,
        "workers": 0o700,
    }


def test_keys_are_never_replaced(folder: Path) -> None:
    """A second make would lock every worker out: it is refused, and nothing has changed."""
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError):
        keys.make(folder)
    with pytest.raises(FileExistsError):
        keys.add_worker(folder, keys.WORKER_NAME)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_keys_are_made_all_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the disk full in the middle nothing is left that looks like keys."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys, "add_worker", fail)
    with pytest.raises(OSError, match="No space"):
        keys.make(tmp_path / "state" / "keys")
    assert list((tmp_path / "state").iterdir()) == []


def test_more_workers_come_in_and_can_be_shut_out(folder: Path) -> None:
    """Each worker's host may have a key of its own; without its public file it is not admitted."""
    keys.add_worker(folder, "web-2")
    second = folder / "workers" / "web-2.public"
    assert len(keys.admitted(folder)) == 3
    assert second.read_text().strip() in keys.admitted(folder)
    second.unlink()
    assert len(keys.admitted(folder)) == 2


def test_commands_on_the_collectors_host_need_no_workers_secret(folder: Path) -> None:
    """`settle-mp status` there goes in with the collector's own pair."""
    (folder / keys.WORKER_SECRET).unlink()
    assert keys.of_worker(folder) == keys.of_collector(folder)


def test_no_keys_are_none(tmp_path: Path) -> None:
    """Where nothing was made, nothing is wrong yet."""
    for read in (keys.of_worker, keys.of_collector):
        assert read(tmp_path / "keys") is None
    assert keys.admitted(tmp_path / "keys") == frozenset()


@pytest.mark.parametrize("text", ["", "short", "x" * 41, "ü" * 40, "x" * 39 + "\\", "\0" * 40])
def test_what_is_no_key_is_refused(folder: Path, text: str) -> None:
    """The error names the file and the mend, and never what was in it."""
    (folder / keys.WORKER_SECRET).write_text(text)
    with pytest.raises(KeysError, match=r"worker\.secret holds no CURVE key; copy it again") as caught:
        keys.of_worker(folder)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_a_secret_that_everybody_reaches_is_refused(folder: Path, mode: int) -> None:
    """The error has the command that mends it."""
    (folder / keys.COLLECTOR_SECRET).chmod(mode)
    with pytest.raises(KeysError, match=r"`chmod o= .*collector\.secret`"):
        keys.of_collector(folder)


def test_keys_that_can_not_be_read_are_named(folder: Path) -> None:
    """With the system's reason; a folder is what not even root reads."""
    (folder / keys.WORKER_SECRET).unlink()
    (folder / keys.WORKER_SECRET).mkdir(mode=0o700)
    with pytest.raises(KeysError, match=r"worker\.secret can't be read \(Is a directory\)"):
        keys.of_worker(folder)


# What the settings make of it.


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "[::]"])  # noqa: S104  what operators write
def test_all_addresses_are_reached_by_loopback(folder: Path, host: str) -> None:
    """One settings file serves the collector and the workers beside it."""
    settings = load(state_dir=folder.parent, endpoint=f"tcp://{host}:4000", environ={})
    assert endpoints.of_collector(settings).frames == f"tcp://{host}:4000"
    expected = "tcp://[::1]" if host == "[::]" else "tcp://127.0.0.1"
    found = endpoints.of_client(settings)
    assert (found.frames, found.control) == (f"{expected}:4000", f"{expected}:4001")


def test_keys_dir_is_where_the_keys_are(folder: Path, tmp_path: Path) -> None:
    """The setting beats the folder in the state folder."""
    settings = load(state_dir=tmp_path / "empty", keys_dir=folder, endpoint="tcp://h:4000", environ={})
    assert endpoints.of_client(settings).curve == keys.of_worker(folder)


def test_sockets_in_the_state_folder_need_no_keys(folder: Path) -> None:
    """CURVE is for tcp alone; bad keys are no hindrance then."""
    (folder / keys.COLLECTOR_SECRET).write_text("bad")
    assert endpoints.of_collector(load(state_dir=folder.parent, environ={})).curve is None
