"""Small disks: a file system in memory over a folder, so that it can be full."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What takes all the space of a disk.
FILLER: Final = "filler"


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    """Mount a disk of its own on a folder, which is made; 0 mounts nothing."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if mebibytes:
        _mount("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=0700", "tmpfs", str(folder))
    try:
        yield
    finally:
        if mebibytes:
            _mount("umount", "--lazy", str(folder))


def fill(disk: Path) -> None:
    """Leave not one free block."""
    with (disk / FILLER).open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass


def empty(disk: Path) -> None:
    """Give back what `fill` took."""
    (disk / FILLER).unlink(missing_ok=True)


def set_read_only(disk: Path, *, is_read_only: bool) -> None:
    """Let nobody write to a disk that nobody has open for writing, or let them again."""
    _mount("mount", "-o", f"remount,{'ro' if is_read_only else 'rw'}", str(disk))


def _mount(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@functools.cache
def cannot_mount() -> str:
    """Why no disk can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder) / "disk", 1):
                return ""
        except (OSError, subprocess.CalledProcessError):
            return "mounting a small file system needs root"
