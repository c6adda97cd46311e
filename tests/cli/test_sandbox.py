"""The command `settle-mp sandbox`, as a process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.sandbox.posting import post
from tests.upstreams import sandbox, wait_until

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "settle_mp.cli", "sandbox"]


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_is_and_ends_in_good_order(tmp_path: Path, signum: int) -> None:
    """It prints what to export, writes its port, and ends with 0 and without a word on a signal."""
    port_file = tmp_path / "port"
    options = ["--port=0", f"--port-file={port_file}", f"--db={tmp_path / 's.db'}"]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, *options], stdout=pipe, stderr=pipe, text=True, env=environ) as process:
        wait_until(port_file.exists, "the port is written")
        port = int(port_file.read_text())
        socket.create_connection(("127.0.0.1", port)).close()
        process.send_signal(signum)
        said, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "")
    assert f"export SETTLESETTLE_BASE_URL=http://127.0.0.1:{port}\n" in said
    assert re.search(r"^export SETTLESETTLE_API_KEY=ss_test_\w+$", said, re.MULTILINE)


@pytest.mark.slow
def test_killed_it_goes_on_where_it_was() -> None:
    """What was answered before SIGKILL is there afterwards, keys and rows together."""
    with sandbox(in_process=False) as upstream:
        post(upstream, key="k")
        upstream.kill()
        upstream.start()
        assert post(upstream, key="k").headers["idempotency-replayed"] == "true"
        assert upstream.quantity() == 1


@pytest.mark.slow
def test_its_options_reach_it() -> None:
    """The limits, the pinned key and the ignoring of keys are those of the command line."""
    options = {
        "api_key": "ss_test_pinned",
        "ignores_idempotency_keys": True,
        "rows_max": 1,
        "seeds": {"u=1": 5},
    }
    with sandbox(in_process=False, **options) as upstream:  # type: ignore[arg-type] # Each has its own type.
        assert [post(upstream, key="k").status_code for _ in range(2)] == [200, 200]
        assert post(upstream, headers={"X-API-Key": "ss_test_other"}).status_code == 401
        assert post(upstream, b'{"events":[{},{}]}').status_code == 413
        assert upstream.quantity() == 2
        assert upstream.balance("u=1") == 5


@pytest.mark.slow
def test_a_pinned_key_is_not_printed(tmp_path: Path) -> None:
    """The output names no key that was given as a secret."""
    port_file = tmp_path / "port"
    options = ["--port=0", f"--port-file={port_file}", "--api-key=ss_test_secret"]
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, text=True) as process:
        wait_until(port_file.exists, "the port is written")
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert "ss_test_secret" not in said


@pytest.mark.slow
def test_what_can_not_be_is_one_clear_line(tmp_path: Path) -> None:
    """A taken port, an open address and a bad file each end it with code 1 and one line."""
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"this is no database at all " * 100)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for seed in ("u", "u=", "=5", "u=-1", "u=1.5", "u=9007199254740992"):
            refused = _run("--port=0", f"--seed={seed}")
            assert (refused.returncode, "USER=CREDITS" in refused.stderr) == (2, True)
        runs = [
            _run(f"--port={port}"),
            _run("--port=0", "--host=0.0.0.0"),
            _run("--port=0", f"--db={garbage}"),
        ]
    assert [run.returncode for run in runs] == [1, 1, 1]
    assert all(run.stderr.startswith("Error: ") and run.stderr.count("\n") == 1 for run in runs)
    assert all(run.stdout == "" for run in runs)


@pytest.mark.slow
def test_help_has_examples() -> None:
    """`--help` shows how to tell it what to do wrong."""
    run = _run("--help")
    assert run.returncode == 0
    assert "Examples:" in run.stdout
    assert "/sandbox/faults" in run.stdout
