"""The state folder: is it there, whose is it, who reaches it, is there room."""

from __future__ import annotations

import os
import pwd
import stat
from typing import TYPE_CHECKING, Final

from settle_mp import endpoints, statedir
from settle_mp.doctor import filesystem
from settle_mp.doctor.finding import Finding, error, ok, warning
from settle_mp.transport import AddressError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.config import Settings

#: Below this much room workers drop events (16 MiB are kept for the ledger), and below that it is soon so.
ROOM_BYTES_MIN: Final = 17 * 1024 * 1024
ROOM_BYTES_LOW: Final = 512 * 1024 * 1024


def look(settings: Settings) -> Iterator[Finding]:
    """Look at the state folder of these settings."""
    root = settings.state_dir
    yield address(settings)
    if not root.is_dir():
        yield error(
            "state folder",
            f"{root} ({settings.source('state_dir')}) is not there: neither worker nor collector has used it",
            "start `settle-mp collector`, or name the folder that the workers use: `--state-dir`, "
            "SETTLE_MP_STATE_DIR or state_dir in settle-mp.toml",
        )
        return
    yield from rights(settings)
    yield filesystem.look(root)
    yield room(root)


def address(settings: Settings) -> Finding:
    """Whether the collector's address can be used: the path's length, tcp's keys."""
    try:
        found = endpoints.of_client(settings)
    except AddressError as problem:
        wrong = endpoints.settings_error(settings, problem)
        return error("address", str(problem), f"set {wrong.key} ({wrong.source}) to {wrong.allowed}")
    curve = " with CURVE" if found.curve else ""
    return ok("address", f"{found.frames}{curve}")


def rights(settings: Settings) -> Iterator[Finding]:
    """Whose the folder is, and who else reaches what is in it."""
    root = settings.state_dir
    found = root.stat()
    owner, mode = name_of(found.st_uid), stat.S_IMODE(found.st_mode)
    text = f"{root} is {owner}'s, mode {mode:04o}"
    if mode & stat.S_IRWXO:
        yield error(
            "rights", f"{text}: every user of this host reaches customers' events", f"chmod o= {root}"
        )
    elif not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        yield error(
            "rights",
            f"{text}, and {name_of(os.geteuid())} can't write there",
            f"run workers, collector and commands as {owner}; or set group to one that all are in, and "
            f"`chgrp -R GROUP {root} && chmod -R g+rwX {root} && find {root} -type d -exec chmod g+s {{}} +`",
        )
    else:
        yield ok("rights", text)
    yield from strangers(settings, found.st_uid)


def strangers(settings: Settings, owner_uid: int) -> Iterator[Finding]:
    """Journals of another user, where the folder is not shared with a group."""
    if settings.group is not None:
        return
    others: set[int] = set()
    for folder in statedir.producer_folders(statedir.StateDir(settings.state_dir).journals):
        try:
            others.add(folder.stat().st_uid)
        except OSError:  # gone meanwhile
            continue
    for uid in sorted(others - {owner_uid, 0}):
        yield warning(
            "rights",
            f"{name_of(uid)} tracks into a folder of {name_of(owner_uid)}",
            "run workers and collector as one user, or set group to a group that both are in",
        )


def room(root: Path) -> Finding:
    """Whether the disk has room."""
    disk = os.statvfs(root)
    free_bytes = disk.f_bavail * disk.f_frsize
    text = f"{free_bytes // (1024 * 1024):,} MiB are free on the disk of {root}"
    if disk.f_files and not disk.f_favail:
        return error("room", f"no inodes are free on the disk of {root}", "remove small files there")
    if free_bytes < ROOM_BYTES_MIN:
        return error("room", f"{text}: workers drop new events", "make room, or move state_dir")
    if free_bytes < ROOM_BYTES_LOW:
        return warning("room", text, "make room: when 16 MiB are left, workers drop new events")
    return ok("room", text)


def name_of(uid: int) -> str:
    """A user's name, or number where there is none, as in some containers."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
