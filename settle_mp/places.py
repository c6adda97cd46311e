"""Where things are on this host unless a setting says otherwise, and what a path in a setting means."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from settle_mp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping


def absolute(path: str, base: str, environ: Mapping[str, str]) -> Path:
    """A path as it is written in a setting, relative to `base`; `~` is the user's home folder."""
    if path == "~" or path.startswith("~/"):
        path = _home(environ) + path[1:]
    return Path(os.path.abspath(os.path.join(base, path)))  # noqa: PTH100, PTH118 - resolve() would follow links


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """The state folder where none was set.

    Raises:
        SettingsError: If this user has no home folder.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/settle-mp")
    if sys.platform == "darwin":
        return Path(_home(environ), "Library/Application Support/settle-mp")
    # The XDG specification says to ignore a path that is not absolute.
    xdg = environ.get("XDG_STATE_HOME", "")
    return Path(xdg if xdg.startswith("/") else f"{_home(environ)}/.local/state", "settle-mp")


def _home(environ: Mapping[str, str]) -> str:
    home = environ.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where this says "~"
    if not home.startswith("/"):
        raise SettingsError("state_dir", "default", "this user has no home folder", "SETTLE_MP_STATE_DIR")
    return home
