"""The key's mode: `is_sandbox`, `is_live`, and one warning of a test key."""

from __future__ import annotations

import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import AsyncSettle, Settle
from settle_mp.worker import mode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mode, "_said", [])


@pytest.mark.parametrize("make", [Settle, AsyncSettle])
def test_the_mode_is_the_keys(make: Any, state_dir: Path) -> None:
    """A test key is a sandbox, a live one is live, and anything else is neither."""
    own = {"state_dir": state_dir, "base_url": "http://127.0.0.1:9"}
    modes = []
    for key in ("ss_test_a", "ss_live_a", "other", None):
        client = make(api_key=key, **own)
        modes.append((client.is_sandbox, client.is_live))
    assert modes == [(True, False), (False, True), (False, False), (False, False)]


@pytest.mark.parametrize("make", [Settle, AsyncSettle])
def test_a_test_key_is_warned_of_once_where_the_client_is_made(make: Any, state_dir: Path) -> None:
    """At the line of the application; a second client says nothing."""
    with pytest.warns(UserWarning, match="test key") as caught:
        make(api_key="ss_test_a", state_dir=state_dir)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(api_key="ss_test_a", state_dir=state_dir)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "ss_live_a"},
        {"api_key": None},
        {"api_key": "ss_test_a", "disabled": True},
        {"api_key": "ss_test_a", "base_url": "http://127.0.0.1:8790"},
        {"api_key": "ss_test_a", "base_url": "http://localhost:8790/v1"},
        {"api_key": "ss_test_a", "base_url": "http://[::1]:8790"},
    ],
)
def test_nothing_is_said_where_it_is_no_mistake(settings: dict[str, Any], state_dir: Path) -> None:
    """A live key, no key, a disabled client, and an address of this machine."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Settle(state_dir=state_dir, **settings)


def test_a_script_sees_its_own_line(tmp_path: Path) -> None:
    """As every user meets it: on standard error, with the line that made the client, without the key."""
    script = tmp_path / "app.py"
    script.write_text("from settle_mp import Settle\n\nSettle(api_key='ss_test_secret', state_dir='s')\n")
    ran = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f"{script}:3: UserWarning: The API key is a test key" in ran.stderr
    assert "secret" not in ran.stderr.splitlines()[0]
