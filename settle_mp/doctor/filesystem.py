"""What a state folder's file system is, and what that means for locks, maps and durability."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from settle_mp.doctor.finding import Finding, error, ok, warning

if TYPE_CHECKING:
    from pathlib import Path

CHECK: Final = "file system"

#: Several kernels share these, and a lock or a map of one is not another's.
_SHARED: Final = re.compile(
    r"nfs4?|cifs|smb\d?|9p|afs|ceph|glusterfs|lustre|gfs2|ocfs2|beegfs|gpfs|fuse\.(?!ext).*"
)
#: Gone with the container, unless a volume is mounted there.
_LAYERS: Final = frozenset({"overlay", "overlayfs", "aufs"})
_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_COPY_ON_WRITE: Final = frozenset({"btrfs", "zfs", "bcachefs"})


def look(folder: Path) -> Finding:
    """Look at the file system of a folder. Linux alone says what it is."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            kind = kind_of(os.path.realpath(folder), file.read())
    except OSError:
        return ok(CHECK, "unknown: this system does not say; it must be a local one")
    return judge(folder, kind)


def kind_of(path: str, mounts: str) -> str:
    """The file system of a real path, from the text of /proc/self/mountinfo (proc(5))."""
    best, kind = "", "unknown"
    for line in mounts.splitlines():
        mounted, _, device = line.partition(" - ")
        fields = mounted.split(" ")
        if len(fields) < 5 or not device:  # noqa: PLR2004  the fifth is the mount point
            continue
        point = fields[4].replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
        is_above = path == point or path.startswith(point.rstrip("/") + "/")
        # A later one of the same place lies over the earlier.
        if is_above and len(point) >= len(best):
            best, kind = point, device.split(" ")[0]
    return kind


def judge(folder: Path, kind: str) -> Finding:
    """Say what a kind of file system means for the state folder."""
    move = "set state_dir (SETTLE_MP_STATE_DIR) to a folder on a local disk, for workers and collector alike"
    if _SHARED.fullmatch(kind):
        return error(
            CHECK, f"{folder} is on {kind}, where locks and memory maps of several hosts do not agree", move
        )
    if kind in _LAYERS:
        return warning(
            CHECK,
            f"{folder} is in a container's image layer ({kind}): what is not shipped goes with the container",
            f"mount a volume at {folder}, or drain before the end (`settle-mp collector --drain-timeout 20`)",
        )
    if kind in _MEMORY:
        return warning(
            CHECK, f"{folder} is in memory ({kind}): what is not shipped goes at the next boot", move
        )
    if kind in _COPY_ON_WRITE:
        return warning(
            CHECK,
            f"{folder} is on {kind}, which may have no room for what it has promised room for: when it is "
            "full, workers may be killed (SIGBUS)",
            f"keep room free on it, or use another file system; on btrfs `chattr +C {folder}/journals` helps",
        )
    return ok(CHECK, f"{kind}, local")
