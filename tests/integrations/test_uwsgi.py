"""uWSGI's hooks: chained to the user's own, and names for operators in a real uWSGI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from settle_mp.integrations import uwsgi as hooks
from settle_mp.journals import read_header
from settle_mp.statedir import StateDir, producer_folders
from settle_mp.worker import producer as producers
from tests.hosts.machine import is_answered
from tests.hosts.uwsgi import PORT
from tests.worker.uwsgis import Uwsgi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Uwsgi]:
    """Be a process of uWSGI that has not forked, and forget what it was called."""
    module = Uwsgi(0)
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    monkeypatch.setattr(producers, "_label", [])
    yield module
    hooks._connected.clear()


def test_elsewhere_nothing_happens() -> None:
    """The same application may be started by a test or by another server."""
    hooks.connect()
    assert hooks._connected == []


def test_hooks_of_the_users_own_run_as_well(module: Uwsgi) -> None:
    """Theirs at the fork sees the worker's name, and what theirs tracks at the end is handed over."""
    seen: list[str] = []
    module.post_fork_hook = lambda: seen.append("".join(producers._label))  # type: ignore[attr-defined]
    module.atexit = lambda: seen.append("end")  # type: ignore[attr-defined]
    hooks.connect()
    hooks.connect()
    module.worker = 3
    module.post_fork_hook()
    module.atexit()
    assert seen == ["uwsgi:shop:app worker 3", "end"]


def test_a_worker_that_loads_the_application_itself_is_named_at_once(module: Uwsgi) -> None:
    """With lazy-apps the fork is over when the application connects."""
    module.worker = 2
    hooks.connect()
    assert producers._label == ["uwsgi:shop:app worker 2"]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"wsgi-file": b"shop.py"}, "shop.py"),
        ({"mount": [b"/=shop:app", b"/b=blog:app"]}, "/=shop:app"),
        ({}, "app"),
    ],
)
def test_an_application_is_named_as_uwsgi_was_told(
    module: Uwsgi, options: dict[str, object], name: str
) -> None:
    """Whichever option names it."""
    module.opt, module.worker = options, 1
    hooks.connect()
    assert producers._label == [f"uwsgi:{name} worker 1"]


@pytest.mark.slow
def test_workers_are_named_for_operators(host: Host) -> None:
    """Each journal says which worker's it is, and `status` shows it while the worker lives."""
    command = [sys.executable, str(Path(sys.executable).with_name("uwsgi")), "--master", "--processes=2"]
    oracle = {"HOST_CLIENT": "ours", "HOST_ORACLE": str(host.folder / "oracle"), "HOST_VARIANT": "hooks"}
    server = host.run([*command, "--http-socket=127.0.0.1:0", "--module=tests.apps.uwsgi:app"], **oracle)
    found = PORT.search(server.wait_said("spawned uWSGI worker 2"))
    assert found is not None
    assert is_answered(int(found[1]), "1")
    folders = producer_folders(StateDir(host.state_dir).journals)
    names = {identity.name for each in folders if (identity := read_header(each).identity)}
    workers = {name for name in names if "worker" in name}
    assert workers
    assert workers <= {f"uwsgi:tests.apps.uwsgi:app worker {number}" for number in (1, 2)}
    assert set(host.status()["workers"]) == names
    server.kill_group()
    host.wait_empty()
