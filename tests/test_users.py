"""Workers and collector as different users, with real ones: all they share is the group of the setting."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from tests.collectors import worker
from tests.hosts import CLI, Host, host
from tests.upstreams import upstream, wait_until
from tests.users import (
    NOBODY,
    STRANGER,
    USERS,
    USERS_NAME,
    WWW_DATA,
    as_user,
    reachable,
    skip_unless_permitted,
)

if TYPE_CHECKING:
    from tests.hosts import Program

__all__ = ["host", "upstream"]


@pytest.fixture
def shared(host: Host) -> Host:
    """A host whose state folder is the collector's user's and the group's, as the docs have it made."""
    skip_unless_permitted()
    os.chown(host.state_dir, NOBODY, USERS)
    host.state_dir.chmod(0o2770)
    host.environ["SETTLE_MP_GROUP"] = USERS_NAME
    # The usual one, which takes from the group what it needs to write.
    host.environ["HOME"] = "/"
    return host


def collector_of_another_user(host: Host) -> Program:
    """A collector as nobody, in the group."""
    collector = host.run(as_user(NOBODY, NOBODY, USERS)([*CLI, "collector"]))
    collector.wait_said("collector_started")
    return collector


def check_rights(host: Host) -> None:
    """Nobody but the group reaches anything, and the folders of journals are the group's."""
    for path in [host.state_dir, *host.state_dir.rglob("*")]:
        assert not path.lstat().st_mode & stat.S_IRWXO, path
    journals = (host.state_dir / "journals").stat()
    assert (journals.st_gid, stat.S_IMODE(journals.st_mode)) == (USERS, 0o2770)


@pytest.mark.parametrize("is_worker_first", [True, False])
def test_a_group_is_all_that_workers_and_collector_share(shared: Host, *, is_worker_first: bool) -> None:
    """Who comes first makes the folders; the dead are adopted and removed, the living are acked."""
    shared.wrap = as_user(WWW_DATA, WWW_DATA, USERS)
    collector = None if is_worker_first else collector_of_another_user(shared)
    with worker(shared) as ada, worker(shared, "--silent") as bob:
        ada.track(10)
        bob.track(20)
        bob.kill()
        collector = collector or collector_of_another_user(shared)
        assert ada.flush().is_ok
        wait_until(lambda: len(shared.journals()) == 1, "what the dead left is adopted and removed", 60)
        check_rights(shared)
        owners = {path.stat().st_uid for path in (shared.state_dir / "journals").iterdir()}
        assert owners == {WWW_DATA}
    shared.settle(30)
    assert "ERROR" not in collector.said
    assert "WARNING" not in collector.said


def test_who_is_not_in_the_group_stays_outside(shared: Host) -> None:
    """It tracks into its own memory, says so, and neither reads nor writes anything here."""
    collector = collector_of_another_user(shared)
    shared.wrap = as_user(STRANGER, STRANGER)
    with worker(shared) as eve:
        assert eve.track(3) == 3
        assert not eve.flush(1.0).is_ok
    assert shared.journals() == []
    assert shared.upstream.requests_count == 0
    assert collector.end().count("frame_refused") == 0


def test_a_preloaded_worker_that_drops_its_user_is_billed(shared: Host) -> None:
    """Gunicorn's `user`: the arbiter is root and tracks at import, its workers are www-data in the group."""
    collector_of_another_user(shared)
    shared.wrap = reachable
    conf = f"user = {WWW_DATA}\ngroup = {USERS}\n"
    app = "tests.integrations.tracking_app:app"
    server = shared.gunicorn(app, "--preload", conf=conf, TRACK_AT_IMPORT="5")
    assert server.post(40) == 40
    owners = {path.stat().st_uid for path in (shared.state_dir / "journals").iterdir()}
    assert WWW_DATA in owners
    check_rights(shared)
    server.kill_group()
    shared.settle(45)
