"""Processes that live for one event leave nothing behind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.hosts import DEADLINE_S
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from tests.hosts import Host

pytestmark = pytest.mark.slow

LIVES = 500
#: The ledger, SQLite's two files beside it, and its own side files.
LEDGER_FILES = {"ledger.db", "ledger.db-shm", "ledger.db-wal", "aside", "reserve", "seal"}


@pytest.mark.parametrize("is_collected_afterwards", [False, True], ids=["collected", "collected-afterwards"])
def test_short_lives_leave_nothing_behind(host: Host, *, is_collected_afterwards: bool) -> None:
    """500 processes that end by os._exit: the state folder keeps the ledger and the one live journal only."""
    if not is_collected_afterwards:
        host.collector()
    parent = host.run([sys.executable, "-m", "tests.integrations.brief_lives", str(LIVES)])
    parent.wait_said("all have lived", timeout_s=120)
    if is_collected_afterwards:
        assert len(host.journals()) == LIVES + 1
        host.collector()
    wait_until(lambda: len(host.journals()) == 1, "only the live parent's journal is left", DEADLINE_S)
    names = {path.name for path in host.state_dir.iterdir()}
    assert names == {"collector.lock", "control", "frames", "journals", "ledger"}
    assert {path.name for path in (host.state_dir / "ledger").iterdir()} <= LEDGER_FILES
    parent.end()
    host.settle(LIVES + 1)
