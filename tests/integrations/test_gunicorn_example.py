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


@pytest.fixture
def blocks(host: Host) -> list[str]:
    """Copy the example onto the host; return the README's commands block by block."""
    return put(host, "gunicorn", ports=("8790", "8000"))


def test_a_newcomer_sees_usage_billed(host: Host, blocks: list[str]) -> None:
    """Sandbox, gunicorn, requests, kills and the end: each says what the README says it does."""
    install, sandbox, gunicorn, usage, totals, books, kills, books_at_the_end = blocks
    assert install.startswith("pip install")
    first = host.run(["bash", "-c", sandbox])
    first.wait_said("The sandbox answers on")
    second = host.run(["bash", "-c", gunicorn])
    second.wait_said("collector_started")

    assert run(host, usage).count('"tokens"') == 2
    assert billed(run(host, totals)) == {"AI_QUERY": 2, "PDF_PAGE": 12}
    assert "The books balance." in run(host, books)
    assert billed(run(host, kills)) == {"AI_QUERY": 2, "PDF_PAGE": 22}

    # As a terminal's Ctrl-C does.
    os.killpg(second.pid, signal.SIGINT)
    second.process.wait(DEADLINE_S)
    assert second.said.index("Shutting down: Master") < second.said.index("collector_stopped")
    said = run(host, books_at_the_end)
    assert "The books balance." in said
    assert re.search(r"^confirmed +13 +24$", said, re.MULTILINE)
    os.killpg(first.pid, signal.SIGINT)
    first.process.wait(DEADLINE_S)
    assert host.pids() == []


def test_bad_orders_are_not_billed(host: Host, blocks: list[str]) -> None:
    """What can't be billed is answered with 400 and a reason, and leaves nothing behind."""
    url = re.findall(r"http://127\.0\.0\.1:\d+/ask", "".join(blocks))[0]
    server = host.run(["bash", "-c", "gunicorn"])
    server.wait_said("Booting worker")
    orders = ['{"user": "ada"}', '{"user": "", "question": "?"}', "[]", "no JSON"]
    answers = [run(host, f"curl -s -w '%{{http_code}}' -d '{order}' {url}") for order in orders]
    assert [answer[-3:] for answer in answers] == ["400"] * 4, answers
    os.killpg(server.pid, signal.SIGINT)
    server.process.wait(DEADLINE_S)
    assert re.search(r"^tracked +0 +0$", run(host, "settle-mp status"), re.MULTILINE)
