"""`settle-mp doctor` on a host that is well, and on one that is not."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from settle_mp import statedir
from tests.collectors import command, worker
from tests.hosts import host
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from tests.hosts import Host

__all__ = ["host", "upstream"]

#: Findings about the machine that runs the tests, whose temporary files may lie anywhere.
MACHINE = {"file system", "room"}
LOOKED_AT = MACHINE | {
    "address", "rights", "collector", "descriptors", "workers", "version", "key", "upstream"
}  # fmt: skip


def test_a_host_that_is_well(host: Host) -> None:
    """Everything is looked at, and nothing but the machine itself is complained of."""
    host.collector()
    with worker(host) as ada:
        ada.track(1)
        wait_until(lambda: ada.pending_count == 0, "the worker is known")
        ended = command(host, "doctor", "--json")
    found = {each["check"]: each for each in json.loads(ended.said)["findings"]}
    assert found.keys() >= LOOKED_AT
    assert {name for name, each in found.items() if each["severity"] != "ok"} <= MACHINE
    assert ended.code in {0, 10}


def test_a_host_that_is_not(host: Host) -> None:
    """Without a collector and with an open folder: exit code 1, and each mend is printed."""
    with worker(host) as ada:
        ada.track(1)
        host.state_dir.chmod(0o777)
        ended = command(host, "doctor", "--offline")
        host.state_dir.chmod(0o700)
    assert ended.code == 1
    assert "ERROR    rights" in ended.said
    assert f"mend: chmod o= {host.state_dir}" in ended.said
    assert "ERROR    collector" in ended.said
    assert "mend: start `settle-mp collector`" in ended.said
    assert "upstream" not in ended.said


def test_something_that_should_be_mended_has_its_own_code(host: Host) -> None:
    """Where only warnings are found, scripts can tell."""
    host.collector()
    with worker(host, "--few-descriptors") as ada:
        ada.track(1)
        ended = command(host, "doctor", "--json", "--offline")
    said = json.loads(ended.said)
    assert any(each["check"] == "descriptors" and each["severity"] == "warning" for each in said["findings"])
    assert (ended.code, said["severity"]) == (10, "warning")


def test_a_collector_that_says_nothing_is_told_from_none(host: Host) -> None:
    """One that is stuck holds the folder; another address is no collector."""
    lock = statedir.try_lock(host.state_dir / "collector.lock", create=True)
    assert lock is not None
    ended = command(host, "doctor", "--offline")
    os.close(lock)
    assert ended.code == 1
    assert "one has the state folder, and does not answer" in ended.said
