"""How a journal's folder is born: whole and locked before its name can be seen.

Between creating a lock file and locking it the lock is free, which would read as death. So the folder is
built under a name that the collector takes for no journal, and renamed when all is in place. The collector
removes old building folders whose lock is free; a builder whose folder went begins again.

This module also owns the locks of all journals of this process, from the moment they are opened: a forked
child lets go of every one of them, or they would outlive the parent. A child forked by a signal handler in
the middle of any function here goes on in that function, on its parent's folder: it must not touch it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from settle_mp import statedir
from settle_mp.core.record import PRODUCER_ID_BYTES
from settle_mp.worker.foreign import suppressed

#: How often a folder is built again when it went while it was built.
BUILD_TRIES: Final = 10


@dataclass(slots=True)
class _Locks:
    """One process's locks by producer; None while the descriptor is not known yet."""

    pid: int = field(default_factory=os.getpid)
    held: dict[bytes, int | None] = field(default_factory=dict)


#: A list of one: a forked child has locks of its own, and code that it was forked in still sees its parent's.
_locks: Final = [_Locks()]


@dataclass(frozen=True, slots=True)
class Home:
    """A folder under construction; its lock is held."""

    producer: bytes
    folder: Path


class HomeLostError(OSError):
    """The folder went while it was built, or is another process's; begin again."""


def make_home(journals: Path, mode: int) -> Home:
    """Make a folder under construction and lock it.

    Raises:
        HomeLostError: When it was taken away meanwhile.
        OSError: When the folder can't be written.
    """
    forget_parent()
    mine = _locks[0]
    producer = os.urandom(PRODUCER_ID_BYTES)
    home = Home(producer, journals / f"{statedir.BUILDING_PREFIX}{producer.hex()}")
    mine.held[producer] = None
    try:
        _make_folder(home)
        if mode != statedir.PRIVATE_MODE:
            home.folder.chmod(0o2770)
        mine.held[producer] = _lock(home, mode)
        _check_mine(mine, home)
    except BaseException:
        abandon(home)
        raise
    return home


def _make_folder(home: Home) -> None:
    try:
        home.folder.mkdir(mode=0o700)
    except FileExistsError as error:  # nobody else has this id but a child that goes on in here as well
        raise HomeLostError(str(home.folder)) from error


def _lock(home: Home, mode: int) -> int:
    try:
        lock = statedir.try_lock(home.folder / statedir.LOCK_NAME, create=True, mode=mode)
    except FileNotFoundError as error:
        raise HomeLostError(str(home.folder)) from error
    if lock is None:
        raise HomeLostError(str(home.folder))
    return lock


def _check_mine(mine: _Locks, home: Home) -> None:
    if mine is not _locks[0]:
        # We are a child, forked in the midst of this.
        _close(mine.held.pop(home.producer, None))
        raise HomeLostError(str(home.folder))


def move_in(home: Home) -> Path:
    """Give a finished folder its real name, by which the collector finds it.

    Raises:
        HomeLostError: When it was taken away meanwhile.
    """
    whole = home.folder.with_name(home.producer.hex())
    if home.producer not in _locks[0].held:
        # We are a child, forked in the midst of this; the folder is our parent's.
        raise HomeLostError(str(home.folder))
    try:
        home.folder.rename(whole)
    except FileNotFoundError as error:
        raise HomeLostError(str(home.folder)) from error
    return whole


def abandon(home: Home) -> None:
    """Give a folder up that could not be finished, unless it is our parent's."""
    if home.producer in _locks[0].held:
        release(home.producer)
        with suppressed(OSError):
            statedir.remove_folder(home.folder)


def inherit(folder: Path) -> bool:
    """Take the lock of a journal whose producer is dead; `release` lets go of it.

    Returns:
        Whether it is ours now; else the producer lives, or another heir is at it.

    Raises:
        OSError: When it can't be tried.
    """
    forget_parent()
    mine, producer = _locks[0], bytes.fromhex(folder.name)
    if producer in mine.held:
        return False
    mine.held[producer] = None
    try:
        lock = statedir.try_lock(folder / statedir.LOCK_NAME)
    except BaseException:
        del mine.held[producer]
        raise
    if lock is None:
        del mine.held[producer]
        return False
    mine.held[producer] = lock
    return True


def release(producer: bytes) -> None:
    """Let go of a journal's lock, if this process holds it: the collector takes over what is left."""
    _close(_locks[0].held.pop(producer, None))


def forget_parent() -> None:
    """In a forked child: let go of all locks that are the parent's. May be called any time, and again."""
    parents = _locks[0]
    if parents.pid == os.getpid():
        return
    _locks[0] = _Locks()
    for producer, lock in list(parents.held.items()):
        if lock is None:
            _neutralize(producer)
        else:
            _close(parents.held.pop(producer, None))


def _neutralize(producer: bytes) -> None:
    """Let go of a lock that code on our own stack has just opened and still takes for its own.

    That code may go on and close the descriptor, so its number must not become another file's.
    """
    suffix = f"{producer.hex()}/{statedir.LOCK_NAME}"
    with contextlib.suppress(OSError):
        for link in list(Path("/proc/self/fd").iterdir()):
            with contextlib.suppress(OSError):
                if str(link.readlink()).endswith(suffix):
                    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                    os.dup2(nothing, int(link.name), inheritable=False)
                    os.close(nothing)


def _close(lock: int | None) -> None:
    if lock is not None:
        with contextlib.suppress(OSError):
            os.close(lock)
