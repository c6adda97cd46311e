"""The example's README: every command in it is run as it stands there."""

from __future__ import annotations

import os
import re
import signal
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.examples import billed, needs_a_terminal, put, run
from tests.hosts import DEADLINE_S

if TYPE_CHECKING:
    from tests.hosts import Host

pytestmark = [pytest.mark.slow, needs_a_terminal]


def test_a_newcomer_sees_usage_billed(host: Host) -> None:
    """Sandbox, worker, tasks and the end: each says what the README says it does."""
    install, sandbox, worker, usage, totals, books, books_at_the_end = put(host, "celery", ports=("8790",))
    assert install.startswith("pip install")
    first = host.run(["bash", "-c", sandbox])
    first.wait_said("The sandbox answers on")
    second = host.run(["bash", "-c", worker])
    second.wait_said("collector_started")

    run(host, usage)
    said = second.wait_said(" succeeded in ", 3)
    assert len(set(re.findall(r"ForkPoolWorker-(\d+)\] Task \S+ succeeded", said))) == 3
    assert billed(run(host, totals)) == {"THUMBNAIL": 2, "AUDIO_MINUTE": Decimal("12.5")}
    assert "The books balance." in run(host, books)

    # As a terminal's Ctrl-C does.
    os.killpg(second.pid, signal.SIGINT)
    second.process.wait(DEADLINE_S)
    assert second.said.index("Warm shutdown") < second.said.index("collector_stopped")
    said = run(host, books_at_the_end)
    assert "The books balance." in said
    assert re.search(r"^confirmed +3 +14\.5$", said, re.MULTILINE)
    os.killpg(first.pid, signal.SIGINT)
    first.process.wait(DEADLINE_S)
    host.wait_empty()
