"""The example's README: every command in it is run as it stands there."""

from __future__ import annotations

import os
import re
import signal
from typing import TYPE_CHECKING

import pytest

from tests.examples import billed, needs_a_terminal, put, run
from tests.hosts import DEADLINE_S

if TYPE_CHECKING:
    from tests.hosts import Host

pytestmark = [pytest.mark.slow, needs_a_terminal]


def test_a_newcomer_sees_usage_billed(host: Host) -> None:
    """Sandbox, collector, uvicorn, requests and the end: each says what the README says it does."""
    install, sandbox, collector, server, usage, totals, books, books_at_the_end = put(
        host, "asgi", ports=("8790", "8000")
    )
    assert install.startswith("pip install")
    first = host.run(["bash", "-c", sandbox])
    first.wait_said("The sandbox answers on")
    second = host.run(["bash", "-c", collector])
    second.wait_said("collector_started")
    # uvicorn's own: its workers' standard input, and its parent's socket.
    third = host.run(["bash", "-c", server], PYTHONWARNINGS="ignore::ResourceWarning")
    third.wait_said("Application startup complete.", 4)

    assert run(host, usage).split()[:3] == ["A", "good", "question:"]
    assert billed(run(host, totals)) == {"WORD": 16}
    assert "The books balance." in run(host, books)

    # As a terminal's Ctrl-C does.
    for program in (third, second):
        os.killpg(program.pid, signal.SIGINT)
        program.process.wait(DEADLINE_S)
    assert third.said.count("Application shutdown complete.") == 4
    said = run(host, books_at_the_end)
    assert "The books balance." in said
    assert re.search(r"^confirmed +2 +16$", said, re.MULTILINE)
    os.killpg(first.pid, signal.SIGINT)
    first.process.wait(DEADLINE_S)
    host.wait_empty()
