"""What every test stands on: no settings from outside, a short state folder, and searches without a clock."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from settle_mp.worker.producer import close_all

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: a slow machine is not a wrong program. CI repeats the same examples, so that a failure there is
# one that anybody can repeat; elsewhere each run looks at new ones.
hypothesis.settings.register_profile(
    "settle-mp",
    deadline=None,
    derandomize="CI" in os.environ,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("settle-mp")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget settings of whoever runs the tests, the key for the real upstream first of all."""
    for name in [name for name in os.environ if name.startswith(("SETTLE_MP_", "SETTLESETTLE_"))]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _no_couriers_left_behind() -> Iterator[None]:
    """End the couriers of clients that a test has left open: what they log would be another test's."""
    yield
    close_all(0.0)


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Make a state folder, 0700, and remove it afterwards.

    Not under tmp_path: its long names leave no room for a unix socket, whose path may have 107 bytes.
    """
    path = Path(tempfile.mkdtemp(prefix="smp-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)
