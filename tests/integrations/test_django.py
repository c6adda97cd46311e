"""The Django app: one client by the project's settings, checked at the start; commands with the same."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.integrations import django
from settle_mp.journals import read_header
from settle_mp.statedir import StateDir, producer_folders
from tests.examples import EXAMPLES
from tests.hosts import DEADLINE_S

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host

SET_UP = """
import sys
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["settle_mp.integrations.django"], **{given!r})
sys.argv = {argv!r}
django.setup()
"""


def run(
    code: str, given: dict[str, Any], *argv: str, environ: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code in a project with these settings."""
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            SET_UP.format(given=given, argv=list(argv or ["script"])) + code,
        ],
        env=environ or {},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


@pytest.mark.parametrize(
    ("given", "environ", "said"),
    [
        (
            {"flush_intervall_s": 1},
            {},
            "flush_intervall_s (SETTLE_MP in Django's settings): there is no such",
        ),
        ({"batch_rows_max": "50"}, {}, "batch_rows_max (SETTLE_MP in Django's settings): "),
        ({}, {"SETTLE_MP_BATCH_ROWS_MAX": "x"}, "batch_rows_max (environment SETTLE_MP_BATCH_ROWS_MAX): "),
        (["state_dir"], {}, "SETTLE_MP must be a dict of settings by name, not list"),
        ({1: 2}, {}, "SETTLE_MP must be a dict of settings by name"),
    ],
)
def test_a_wrong_setting_stops_the_start(given: Any, environ: dict[str, str], said: str) -> None:
    """The error is Django's own kind, and names the setting, where it stands and what is allowed."""
    done = run("", {"SETTLE_MP": given}, environ=environ)
    assert done.returncode == 1
    assert f"ImproperlyConfigured: {said}" in done.stderr
    assert "SettingsError" not in done.stderr


def test_both_clients_have_the_projects_settings(state_dir: Path) -> None:
    """They are made once, share one journal, and whatever SETTLE_MP leaves out is a default."""
    code = """
from settle_mp import AsyncSettle, Settle
from settle_mp.integrations.django import async_settle, settle
import settle_mp.integrations.django as ours
assert type(settle) is Settle and type(async_settle) is AsyncSettle
assert ours.settle is settle and ours.async_settle is async_settle
settle.events.track("ada", "CALL")
async_settle.events.track("ada", "CALL")
assert settle.events.pending_count == async_settle.events.pending_count == 2
print(settle, async_settle)
"""
    done = run(code, {"SETTLE_MP": {"state_dir": str(state_dir)}})
    shown = f"Settle(state_dir={str(state_dir)!r})"
    assert (done.stdout, done.stderr) == (f"{shown} Async{shown}\n", "")


def test_a_project_without_settings_is_right(state_dir: Path) -> None:
    """SETTLE_MP may be left out; nothing is opened by the start."""
    done = run("", {}, environ={"SETTLE_MP_STATE_DIR": str(state_dir)})
    assert (done.returncode, done.stderr) == (0, "")
    assert list(state_dir.iterdir()) == []


def test_another_name_is_none() -> None:
    """The module has the two clients, and says so."""
    with pytest.raises(AttributeError, match="no attribute 'settel'"):
        _ = django.settel


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (("/srv/manage.py", "bill_storage"), "django:bill_storage"),
        (("/bin/gunicorn", "shop"), "gunicorn pid"),
    ],
)
def test_commands_are_named_for_operators(state_dir: Path, argv: tuple[str, ...], name: str) -> None:
    """A command has its own name; servers are left to their own hooks."""
    code = "from settle_mp.integrations.django import settle; settle.events.track('ada', 'CALL')"
    done = run(code, {}, *argv, environ={"SETTLE_MP_STATE_DIR": str(state_dir)})
    assert done.stderr == ""
    (folder,) = producer_folders(StateDir(state_dir).journals)
    identity = read_header(folder).identity
    assert identity is not None
    assert identity.name.startswith(name)


@pytest.mark.slow
def test_commands_have_the_projects_settings(host: Host) -> None:
    """`manage.py settle_mp` is the program itself, with SETTLE_MP in its environment."""
    code = """
import django.core.management
django.core.management.execute_from_command_line(sys.argv)
"""
    given = {
        "SETTLE_MP": {
            "state_dir": str(host.state_dir),
            "batch_rows_max": 7,
            "annotate": False,
            "event_types": ["B", "A"],
            "api_key": "ss_test_of_django",
            "base_url": "http://127.0.0.1:9",
        }
    }
    shown = run(code, given, "manage.py", "settle_mp", "config").stdout
    assert f"{host.state_dir}" in shown
    for name in ("batch_rows_max", "annotate", "event_types", "api_key"):
        (line,) = [line for line in shown.splitlines() if line.startswith(name + " ")]
        assert "environment" in line
    assert "ss_test_of_django" not in shown
    down = run(code, given, "manage.py", "settle_mp", "flush", "--timeout=0")
    assert down.returncode != 0
    assert "Usage: " in run(code, given, "manage.py", "settle_mp", "--help").stdout


def test_the_examples_settings_are_right() -> None:
    """The example's project starts."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "manage.py", "check"],
        cwd=EXAMPLES / "django",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert "no issues" in done.stdout, done.stderr
