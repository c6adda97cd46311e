"""What builders and removers of journals left behind when they died: found, told apart, removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING, Final

from settle_mp import statedir
from settle_mp.core.record import PRODUCER_ID_BYTES

if TYPE_CHECKING:
    from pathlib import Path

#: How old a folder under construction must be to be taken for abandoned, in seconds.
ABANDONED_S: Final = 60.0


def producer_of(name: str) -> bytes | None:
    """The producer whose folder has this name; None for a copy under another spelling, or anything else."""
    try:
        producer = bytes.fromhex(name)
    except ValueError:
        return None
    return producer if len(producer) == PRODUCER_ID_BYTES and producer.hex() == name else None


def sweep(journals: Path) -> set[bytes]:
    """Remove what is left over, as far as it can be. Returns the producers whose folders are there.

    Raises:
        OSError: When the folders can't be listed, so that nothing is known of any.
    """
    try:
        names = os.listdir(journals)  # noqa: PTH208  names are wanted
    except FileNotFoundError:
        return set()  # workers and the next start make it again
    for name in names:
        if name.startswith(statedir.LEAVING_PREFIX):
            shutil.rmtree(journals / name, ignore_errors=True)
        elif name.startswith(statedir.BUILDING_PREFIX):
            with contextlib.suppress(OSError):
                _remove_abandoned(journals / name)
    return {producer for producer in map(producer_of, names) if producer is not None}


def _remove_abandoned(folder: Path) -> None:
    if time.time() - folder.stat().st_mtime < ABANDONED_S:
        return
    try:
        lock = statedir.try_lock(folder / statedir.LOCK_NAME)
    except FileNotFoundError:
        # Its builder died before it made one.
        statedir.remove_folder(folder)
        return
    if lock is None:
        return
    try:
        statedir.remove_folder(folder)
    finally:
        os.close(lock)
