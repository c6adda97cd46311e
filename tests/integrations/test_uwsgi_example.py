"""The example's README: every command in it is run as it stands there."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from tests.examples import billed, needs_a_terminal, put, run
from tests.hosts import DEADLINE_S

if TYPE_CHECKING:
    from tests.hosts import Host

pytestmark = [pytest.mark.slow, needs_a_terminal]


def test_a_newcomer_sees_usage_billed(host: Host) -> None:
    """Sandbox, collector, uWSGI, requests, kills and the end: each says what the README says it does."""
    install, sandbox, collector, uwsgi, usage, totals, kills = put(host, "uwsgi", ports=("8790", "8000"))
    assert install.startswith("pip install")
    first = host.run(["bash", "-c", sandbox])
    first.wait_said("The sandbox answers on")
    second = host.run(["bash", "-c", collector])
    second.wait_said("collector_started")
    third = host.run(["bash", "-c", uwsgi])
    third.wait_said("spawned uWSGI worker 4")

    assert '"tokens"' in run(host, usage)
    said = run(host, totals)
    assert "The books balance." in said
    assert "uwsgi:app:app worker " in said
    assert billed(said) == {"AI_QUERY": 1, "PDF_PAGE": 12}
    assert billed(run(host, kills)) == {"AI_QUERY": 1, "PDF_PAGE": 22}
    for program in (third, second, first):
        os.killpg(program.pid, signal.SIGINT)
        program.process.wait(DEADLINE_S)
    assert host.pids() == []
