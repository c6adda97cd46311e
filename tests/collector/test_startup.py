"""How a collector starts (rule L5): one a state folder, and nothing is touched before that is known."""

from __future__ import annotations

import fcntl
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import config
from settle_mp.collector.startup import AlreadyRunningError, Opened, make_upstream, open_collector
from settle_mp.errors import SettingsError
from settle_mp.transport import AddressError
from tests.collectors import bench, bind, make_journal

if TYPE_CHECKING:
    from pathlib import Path

KEY = "ss_test_" + "k" * 24


def start(state_dir: Path, **settings: Any) -> Opened:
    """Open a collector's files."""
    return open_collector(config.load(state_dir=state_dir, **settings))


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """The inode and the time of the last change of each file."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_a_second_one_is_refused(state_dir: Path) -> None:
    """Rule L5: while one holds the lock, no other opens the ledger."""
    first = start(state_dir)
    before = files(state_dir)
    with pytest.raises(AlreadyRunningError, match=str(state_dir)):
        start(state_dir)
    assert files(state_dir) == before
    first.close()
    start(state_dir).close()


def test_a_lock_that_was_replaced_protects_all_the_same(state_dir: Path) -> None:
    """Rule L5: with another lock file a second one sees the first's socket before it touches the ledger."""
    first = start(state_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(state_dir / "control"))
        listening.listen()
        (state_dir / "collector.lock").unlink()
        before = files(state_dir / "ledger")
        with pytest.raises(AlreadyRunningError, match="listens"):
            start(state_dir)
        assert files(state_dir / "ledger") == before
    first.close()


def test_the_lock_file_stays(state_dir: Path) -> None:
    """Rule L5: a lock file that goes at the end would let two in, one by the old and one by the new."""
    start(state_dir).close()
    inode = (state_dir / "collector.lock").stat().st_ino
    start(state_dir).close()
    assert (state_dir / "collector.lock").stat().st_ino == inode


def test_a_look_at_the_lock_keeps_nobody_out(state_dir: Path) -> None:
    """A command that looks whether a collector runs holds its lock for a moment; a start outlasts it."""
    start(state_dir).close()
    descriptor = os.open(state_dir / "collector.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    is_held = threading.Event()

    def let_go() -> None:
        is_held.wait(10)
        time.sleep(0.1)  # the start has to find it taken first
        os.close(descriptor)

    thread = threading.Thread(target=let_go)
    thread.start()
    is_held.set()
    start(state_dir).close()
    thread.join()


def test_a_socket_that_nobody_listens_on_is_no_hindrance(state_dir: Path) -> None:
    """What a killed collector left behind is in nobody's way."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(state_dir / "frames"))
    start(state_dir).close()


def test_a_file_where_the_socket_belongs_is_left_alone(state_dir: Path) -> None:
    """Rule L5: libzmq would delete it."""
    for name in ("frames", "control"):
        path = state_dir / name
        path.write_text("somebody's")
        with pytest.raises(AddressError, match="left alone"):
            start(state_dir)
        assert path.read_text() == "somebody's"
        path.unlink()


@pytest.mark.parametrize(
    ("settings", "name", "allowed"),
    [
        ({"endpoint": "tcp://10.0.0.1:7000"}, "endpoint", "CURVE"),
        ({"endpoint": "ipc:///tmp/" + "x" * 95}, "endpoint", "short path"),
        ({"state_dir": "/" + "x" * 110}, "state_dir", "shorter"),
        ({"group": "no-such-group"}, "group", "a group of this system"),
        ({"state_dir": "/dev/null/x"}, "state_dir", "a folder that this user can write"),
    ],
)
def test_what_can_not_be_is_named_with_its_source(
    state_dir: Path, settings: dict[str, str], name: str, allowed: str
) -> None:
    """A setting that passes the loader and can't be used all the same is named like any other."""
    given: dict[str, Any] = {"state_dir": state_dir / "below", **settings}
    with pytest.raises(SettingsError) as caught:
        open_collector(config.load(**given))
    assert name in str(caught.value)
    assert "argument" in str(caught.value)
    assert allowed in str(caught.value)


def test_a_key_of_the_other_mode_is_refused(state_dir: Path) -> None:
    """Rule C2: a ledger with test events never ships with a live key."""
    start(state_dir, api_key=KEY).close()
    with pytest.raises(SettingsError, match="a test key, as this state folder's ledger has"):
        start(state_dir, api_key=KEY.replace("test", "live"))
    start(state_dir).close()


def test_events_bind_the_ledger_to_their_mode(state_dir: Path) -> None:
    """Rule C2: a collector without a key takes a worker's events; the key that comes later must fit them."""
    make_journal(state_dir, "ada", key_mode="live").close()
    with bench(state_dir) as parts:
        parts.take_in()
    with pytest.raises(SettingsError, match="a live key"):
        start(state_dir, api_key=KEY)


def test_a_ledger_behind_a_journal_is_put_aside(state_dir: Path) -> None:
    """Rule L6: what headers say that this ledger took is held against it at the start."""
    opened = start(state_dir)
    ledger = opened.ledger.id
    opened.close()
    journal = make_journal(state_dir, "ada")
    bind(state_dir, journal, ledger, 4_000)
    opened = start(state_dir)
    assert opened.ledger.id != ledger
    assert ledger in opened.put_aside
    assert len(opened.ledger.residues()) == 1
    opened.close()
    journal.close()


def test_without_a_key_there_is_no_upstream(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It says that nothing is shipped, what that means for the bill, and how to mend it."""
    assert make_upstream(config.load(state_dir=state_dir)) is None
    (record,) = [record for record in caplog.records if record.message == "no_api_key"]
    assert {"reason", "bill", "mend"} <= record.__dict__.keys()
