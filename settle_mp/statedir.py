"""The state folder: its paths, its rights, and the locks that prove who lives.

    <state_dir>/            0700 (0770 and the group's, with `group`)
        collector.lock      held for life by the one collector; never unlinked
        frames, control     the collector's sockets
        journals/<id>/      one folder a producer: lock, header, segments
        ledger/             the collector's SQLite file and its side files
        quarantine/         what was found damaged and put aside

A lock is `flock` on a file held open for life: the kernel frees it at any death, so a free lock is the
proof of one, across containers as well, with no process ids.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Names of journal folders begin so while they are built, and when they are about to be removed.
BUILDING_PREFIX: Final = ".new-"
LEAVING_PREFIX: Final = ".old-"

#: The rights of a file that is this user's alone.
PRIVATE_MODE: Final = 0o600

LOCK_NAME: Final = "lock"
HEADER_NAME: Final = "header"
SEGMENT_SUFFIX: Final = ".seg"
#: Ends the name of a segment's file until it is whole; readers ignore it.
UNBORN_SUFFIX: Final = ".new"
_SEGMENT_NAME: Final = re.compile(r"([0-9a-f]{16})-([0-9a-f]{1,8})-[0-9a-f]+\.seg")


@dataclass(frozen=True, slots=True)
class StateDir:
    """Where everything is. Making one touches nothing."""

    root: Path

    @property
    def journals(self) -> Path:
        """The producers' folders."""
        return self.root / "journals"

    @property
    def ledger(self) -> Path:
        """The collector's own folder."""
        return self.root / "ledger"

    @property
    def quarantine(self) -> Path:
        """What was damaged, each under a name with the time."""
        return self.root / "quarantine"

    @property
    def collector_lock(self) -> Path:
        """Held by the one collector."""
        return self.root / "collector.lock"

    @property
    def frames_socket(self) -> Path:
        """Where couriers push frames."""
        return self.root / "frames"

    @property
    def control_socket(self) -> Path:
        """Where couriers and commands talk to the collector."""
        return self.root / "control"

    def prepare(self, group: str | None = None) -> None:
        """Make the folders that are missing, closed to everybody else.

        Raises:
            OSError: When a folder can't be made.
        """
        for folder in (self.root, self.journals):
            make_folder(folder, group)


def make_folder(folder: Path, group: str | None = None) -> None:
    """Make a folder for this user alone, or for a group as well; parents as they come.

    An existing folder keeps its rights: an operator may have set them.

    Raises:
        OSError: When it can't be made, or something else stands there.
    """
    if folder.is_dir():
        return
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from None
        return
    if group is not None:
        shutil.chown(folder, group=group)
        # The group's bit makes new files the group's; the mode is set again past the umask.
        folder.chmod(0o2770)


def group_id(group: str | None) -> int | None:
    """The number of the group whose members share the state folder.

    Raises:
        LookupError: There is no such group on this host.
    """
    import grp  # not for workers that need no group

    return None if group is None else grp.getgrnam(group).gr_gid


def file_mode(group: str | None) -> int:
    """The rights of a file in the state folder."""
    return PRIVATE_MODE if group is None else 0o660


def open_new(path: Path, mode: int) -> int:
    """Make a file that must not exist yet, and open it for reading and writing.

    Raises:
        OSError: When it can't be made.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    if mode != PRIVATE_MODE:
        os.fchmod(descriptor, mode)  # past the umask, which commonly takes the group's right to write
    return descriptor


def try_lock(path: Path, *, create: bool = False, mode: int = PRIVATE_MODE) -> int | None:
    """Take a lock file without waiting; the lock lasts until the returned descriptor is closed.

    Returns:
        The descriptor, or None when another process holds the lock, or the file was replaced or removed
        between opening and locking (a lock on a file that no path leads to protects nothing).

    Raises:
        FileNotFoundError: When there is no such file and `create` is false.
    """
    descriptor = _open_lock(path, os.O_CREAT if create else 0, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = is_same_file(descriptor, path)
        if is_ours and create:
            _share(descriptor, mode)
    except BlockingIOError:
        is_ours = False
    except BaseException:
        os.close(descriptor)
        raise
    if not is_ours:
        os.close(descriptor)
        return None
    return descriptor


def _open_lock(path: Path, flags: int, mode: int) -> int:
    flags |= os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, os.O_RDWR | flags, mode)
    except OSError as error:
        # A lock takes no right to write: where nobody may, it says who lives all the same.
        if error.errno != errno.EROFS or not path.exists():
            raise
    return os.open(path, os.O_RDONLY | flags & ~os.O_CREAT)


def _share(descriptor: int, mode: int) -> None:
    """Give a file of ours the rights that the umask took from it."""
    found = os.fstat(descriptor)
    if mode != PRIVATE_MODE and stat.S_IMODE(found.st_mode) != mode and found.st_uid == os.geteuid():
        os.fchmod(descriptor, mode)


def is_same_file(descriptor: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    mine = os.fstat(descriptor)
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


def is_locked(path: Path) -> bool:
    """Whether some process holds a lock file. It is taken and freed again when nobody does."""
    try:
        descriptor = try_lock(path)
    except FileNotFoundError:
        return False
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def segment_name(base: int, size: int, nonce: str) -> str:
    """The file name of a segment of `size` bytes that begins at position `base`; sorts by position."""
    return f"{base:016x}-{size:x}-{nonce}{SEGMENT_SUFFIX}"


def parse_segment_name(name: str) -> tuple[int, int] | None:
    """Base and size in a segment's file name, or None for any other file."""
    match = _SEGMENT_NAME.fullmatch(name)
    return None if match is None else (int(match[1], 16), int(match[2], 16))


def remove_folder(folder: Path) -> None:
    """Remove a journal's folder; a death in the middle leaves only a name that the next start removes.

    Raises:
        OSError: When it can't be removed.
    """
    leaving = folder.with_name(LEAVING_PREFIX + folder.name.removeprefix(LEAVING_PREFIX))
    with contextlib.suppress(FileNotFoundError):
        folder.rename(leaving)
        shutil.rmtree(leaving)


def producer_folders(journals: Path) -> Iterator[Path]:
    """The folders of whole journals, in no order."""
    try:
        names = os.listdir(journals)  # noqa: PTH208  names are wanted, and this is the fastest way to them
    except FileNotFoundError:
        return
    for name in names:
        if not name.startswith("."):
            yield journals / name
