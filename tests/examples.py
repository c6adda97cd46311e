"""Examples in tests: a copy of one on a host, with ports of its own, and its README's commands.

    install, sandbox, server, usage, totals = put(host, "gunicorn", ports=("8790", "8000"))
    first = host.run(["bash", "-c", sandbox])
    assert billed(run(host, totals)) == {"AI_QUERY": 2}

A README's commands are run as they stand there, those of one block in one shell.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.hosts import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.hosts import Host

EXAMPLES: Final = Path(__file__).parent.parent / "examples"

needs_a_terminal = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl"
)


def put(host: Host, name: str, *, ports: Sequence[str]) -> list[str]:
    """Copy an example onto the host, which then has no settings but those; returns the README's commands."""
    # A unix socket's path is short, hence the state folder's place.
    folder = host.state_dir / "example"
    host.folder = shutil.copytree(
        EXAMPLES / name, folder, ignore=shutil.ignore_patterns("state", "*.db*", "__pycache__")
    )
    host.environ = {name: value for name, value in host.environ.items() if not name.startswith("SETTLE")}
    ours = {port: _free_port() for port in ports}
    for path in folder.rglob("*"):
        if path.is_file():
            text = re.sub(rf"\b({'|'.join(ours)})\b", lambda found: ours[found[0]], path.read_text())
            path.write_text(text)
    return re.findall(r"^```sh\n(.*?)^```$", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def _free_port() -> str:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return str(taken.getsockname()[1])


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
