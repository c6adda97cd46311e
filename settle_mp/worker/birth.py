"""How a journal's folder is born: whole and locked before its name can be seen.

Between creating a lock file and locking it the lock is free, which would read as death. So the folder is
built under a name that the collector takes for no journal, and renamed when all is in place. The collector
removes old building folders whose lock is free; a builder whose folder went begins again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp import statedir
from settle_mp.core.record import PRODUCER_ID_BYTES

if TYPE_CHECKING:
    from pathlib import Path

#: How often a folder is built again when it went while it was built.
BUILD_TRIES: Final = 10

#: Descriptors of locks whose journal is not finished, for the at-fork hook: a child that kept one would
#: keep its parent's lock.
unfinished: Final[set[int]] = set()


@dataclass(frozen=True, slots=True)
class Home:
    """A folder under construction, and its lock."""

    producer: bytes
    folder: Path
    lock: int


class HomeLostError(OSError):
    """The folder went while it was built; begin again."""


def make_home(journals: Path, mode: int) -> Home:
    """Make a folder under construction and lock it.

    Raises:
        HomeLostError: When it was taken away meanwhile.
        OSError: When the folder can't be written.
    """
    producer = os.urandom(PRODUCER_ID_BYTES)
    folder = journals / f"{statedir.BUILDING_PREFIX}{producer.hex()}"
    folder.mkdir(mode=0o700)
    if mode != statedir.file_mode(None):
        folder.chmod(0o2770)
    try:
        lock = statedir.try_lock(folder / statedir.LOCK_NAME, create=True, mode=mode)
    except FileNotFoundError as error:
        raise HomeLostError(str(folder)) from error
    if lock is None:
        raise HomeLostError(str(folder))
    unfinished.add(lock)
    return Home(producer, folder, lock)


def move_in(home: Home) -> Path:
    """Give a finished folder its real name, by which the collector finds it.

    Raises:
        HomeLostError: When it was taken away meanwhile.
    """
    whole = home.folder.with_name(home.producer.hex())
    if home.lock not in unfinished:
        # We are a child, forked by a signal handler in the midst of this; the folder is our parent's.
        raise HomeLostError(str(home.folder))
    try:
        home.folder.rename(whole)
    except FileNotFoundError as error:
        raise HomeLostError(str(home.folder)) from error
    unfinished.discard(home.lock)
    return whole


def abandon(home: Home) -> None:
    """Give a folder up that could not be finished, unless it is our parent's."""
    if home.lock not in unfinished:
        return
    unfinished.discard(home.lock)
    with contextlib.suppress(OSError):
        os.close(home.lock)
    with contextlib.suppress(OSError):
        statedir.remove_folder(home.folder)


def close_unfinished() -> None:
    """In a forked child: let go of the locks of journals that the parent was just building."""
    while unfinished:
        with contextlib.suppress(OSError):
            os.close(unfinished.pop())
