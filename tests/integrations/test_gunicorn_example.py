"""The example's README: every command in it is run as it stands there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from tests.hosts import DEADLINE_S, ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"),
]

EXAMPLE = ROOT / "examples" / "gunicorn"


def free_port() -> str:
    """Find a port where nothing listens."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return str(taken.getsockname()[1])


@pytest.fixture
def blocks(host: Host, state_dir: Path) -> list[str]:
    """Copy the example onto the host, with ports of its own; return the README's commands block by block."""
    host.folder = shutil.copytree(
        EXAMPLE, state_dir / "example", ignore=shutil.ignore_patterns("state", "*.db*")
    )
    host.environ = {name: value for name, value in host.environ.items() if not name.startswith("SETTLE")}
    ports = {"8790": free_port(), "8000": free_port()}
    for path in host.folder.iterdir():
        path.write_text(re.sub(r"\b(8790|8000)\b", lambda found: ports[found[0]], path.read_text()))
    return re.findall(
        r"^```sh\n(.*?)^```$", (host.folder / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )


def run(host: Host, block: str) -> str:
    """Run a block in a terminal of its own, where no command may fail; returns what they print."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        env=host.environ,
        cwd=host.folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def billed(printed: str) -> dict[str, Decimal]:
    """Read the totals by event type in what was printed."""
    assert '{"data"' in printed, printed
    shown, _ = json.JSONDecoder().raw_decode(printed[printed.index('{"data"') :])
    return {name: Decimal(each["quantity"]) for name, each in shown["data"]["usage"].items()}


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
