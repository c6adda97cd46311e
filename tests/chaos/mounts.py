"""Mounts: a small file system in memory over a folder, so that it can be full, and a folder read-only."""

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


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody open, make, rename or remove anything below a folder for writing; what is open stays so."""
    with tempfile.TemporaryDirectory() as view:
        # Made elsewhere: where somebody writes already, a mount can't be made read-only.
        _mount("mount", "--bind", str(folder), view)
        try:
            _mount("mount", "-o", "remount,bind,ro", view)
            _mount("mount", "--bind", view, str(folder))
        finally:
            _mount("umount", view)
    try:
        yield
    finally:
        _mount("umount", "--lazy", str(folder))


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
