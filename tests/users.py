"""Processes of other users, on a machine where the tests are root's.

    command = as_user(WWW_DATA, USERS)(["python", …])      # that user, and a member of that group alone

Where the interpreter or the checkout lies in a folder that others may not enter, it is mounted anew at its
own place for the process alone.
"""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.hosts import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Users and a group that every Debian has; none of the users is in the group but by our word.
WWW_DATA: Final = 33
NOBODY: Final = 65534
USERS: Final = 100
USERS_NAME: Final = "users"
#: A user that nobody knows.
STRANGER: Final = 12_345

_PROGRAMS: Final = ("unshare", "mount", "setpriv")


def skip_unless_permitted() -> None:
    """Skip the test where no process can be another user's, and say why."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("only root can start processes of other users, here on Linux")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: util-linux, mount)")
    try:
        import grp

        known = grp.getgrgid(USERS).gr_name
    except KeyError:
        known = "none"
    if known != USERS_NAME:
        pytest.skip(f"group {USERS} is {known} here, not {USERS_NAME}")
    tried = subprocess.run(
        as_user(NOBODY, USERS)([sys.executable, "-c", "import settle_mp"]),
        capture_output=True, text=True, check=False, cwd="/", env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"another user can't run this interpreter: {tried.stderr.strip()[-200:]}")


def as_user(user: int, *groups: int) -> Callable[[Sequence[str]], list[str]]:
    """Make commands that run as a user, in these groups; the first is its main one."""
    numbers = ",".join(map(str, groups))
    become = f"exec setpriv --reuid={user} --regid={groups[0]} --groups={numbers} -- "
    return lambda command: _within_reach(become, command)


def reachable(command: Sequence[str]) -> list[str]:
    """The same command, as root, whose children may be other users."""
    return _within_reach("exec ", command)


def _within_reach(become: str, command: Sequence[str]) -> list[str]:
    script = f'set -e; cd /; {_mounts()} {become}"$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def _mounts() -> str:
    """What makes interpreter and checkout reachable, in a mount namespace."""
    lines = []
    places = {Path(sys.base_prefix).resolve(), Path(sys.prefix), ROOT}
    for closed in {found for each in places if (found := _closed_above(each)) is not None}:
        inside = sorted(each for each in places if closed in each.parents)
        for number, place in enumerate(inside):
            lines.append(f"t{number}=$(mktemp -d); mount --bind {shlex.quote(str(place))} $t{number};")
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed))};")
        for number, place in enumerate(inside):
            quoted = shlex.quote(str(place))
            lines.append(f"mkdir -p {quoted}; mount --move $t{number} {quoted}; rmdir $t{number};")
    return " ".join(lines)


def _closed_above(path: Path) -> Path | None:
    """The outermost folder above a path that others may not enter."""
    for folder in reversed(path.parents):
        if not folder.stat().st_mode & stat.S_IXOTH:
            return folder
    return None
