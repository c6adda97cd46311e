"""How a collector starts: one a state folder, its ledger checked, before anything listens (rule L5)."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp import endpoints, journals, keys, statedir, transport
from settle_mp.collector import lineage
from settle_mp.core.record import NO_LEDGER
from settle_mp.errors import SettingsError
from settle_mp.notices import notice
from settle_mp.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.collector.ledger import Ledger
    from settle_mp.config import Settings

log: Final = logging.getLogger("settle_mp")

#: Objects made before Python looks for cycles, and how often it looks through older ones.
GARBAGE_THRESHOLDS: Final = (100_000, 50, 100)

#: How long a lock is tried for, in seconds: commands hold it for a moment to see whether a collector runs.
LOCK_S: Final = 0.5
#: The pause between two tries, in seconds.
LOCK_PAUSE_S: Final = 0.02


class AlreadyRunningError(Exception):
    """Another collector has this state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a collector works on, locked for it alone."""

    dir: statedir.StateDir
    endpoints: endpoints.Endpoints
    settings: Settings
    ledger: Ledger
    put_aside: frozenset[bytes]
    lock: int

    def close(self) -> None:
        """Close the ledger, then free the lock."""
        self.ledger.close()
        os.close(self.lock)


def open_collector(settings: Settings) -> Opened:
    """Take the state folder and open its ledger.

    Raises:
        AlreadyRunningError: Another collector runs on it.
        AddressError: Something else stands where the sockets belong.
        SettingsError: The folder or address can't be used, or the key is of another mode than the ledger's.
        LedgerError: The ledger can't be opened now.
        OSError: A file in the folder can't be used.
    """
    state_dir, addresses = _prepare(settings)
    lock = _lock(state_dir, statedir.file_mode(settings.group))
    try:
        # Before anything is touched: who replaced the lock's file has not ended who held it.
        for address in (addresses.frames, addresses.control):
            transport.refuse_taken(address)
        ledger = _open_ledger(state_dir, settings)
        put_aside = lineage.put_aside_ids(settings.state_dir)
    except transport.InUseError as error:
        os.close(lock)
        raise AlreadyRunningError(str(error)) from None
    except BaseException:
        os.close(lock)
        raise
    return Opened(
        dir=state_dir, endpoints=addresses, settings=settings, ledger=ledger, put_aside=put_aside, lock=lock
    )


def _prepare(settings: Settings) -> tuple[statedir.StateDir, endpoints.Endpoints]:
    state_dir = statedir.StateDir(settings.state_dir)
    try:
        addresses = endpoints.of_collector(settings)
    except transport.AddressError as error:
        raise endpoints.settings_error(settings, error) from None
    try:
        state_dir.prepare(settings.group)
    except LookupError as error:
        problem = f"{settings.group} is not usable ({error})"
        raise SettingsError("group", settings.source("group"), problem, "a group of this system") from None
    except OSError as error:
        problem = f"{settings.state_dir} can't be used ({error.strerror})"
        allowed = "a folder that this user can write"
        raise SettingsError("state_dir", settings.source("state_dir"), problem, allowed) from None
    return state_dir, addresses


def admitted(settings: Settings) -> frozenset[str]:
    """The public keys of those who may come in over tcp.

    Raises:
        SettingsError: They can't be read.
    """
    try:
        return keys.admitted(keys.folder_of(settings.state_dir, settings.keys_dir))
    except keys.KeysError as error:
        raise endpoints.settings_error(settings, error) from None


def _lock(state_dir: statedir.StateDir, mode: int) -> int:
    deadline_s = time.monotonic() + LOCK_S
    while True:
        lock = statedir.try_lock(state_dir.collector_lock, create=True, mode=mode)
        if lock is not None:
            return lock
        if time.monotonic() >= deadline_s:
            msg = f"another collector runs on {state_dir.root}"
            raise AlreadyRunningError(msg)
        time.sleep(LOCK_PAUSE_S)


def _open_ledger(state_dir: statedir.StateDir, settings: Settings) -> Ledger:
    ledger = lineage.open_or_replace(
        settings.state_dir,
        list(_bonds(state_dir)),
        ledger_bytes_max=settings.ledger_bytes_max,
        now_s=time.time(),
    )
    try:
        bind_key(ledger, settings)
    except BaseException:
        ledger.close()
        raise
    return ledger


def spare_garbage_collection() -> None:
    """Have Python look for cycles seldom: the sums of many keys hold none, and cost a look each time."""
    gc.set_threshold(*GARBAGE_THRESHOLDS)


def make_upstream(settings: Settings) -> Upstream | None:
    """The way to the upstream, or None without a key: then the collector collects without shipping.

    Raises:
        SettingsError: The key file can't be read, or the address is none.
    """
    key = settings.read_api_key()
    if key is None:
        log.warning("no_api_key", extra=notice("no_api_key", "SETTLESETTLE_API_KEY is not set"))
        return None
    try:
        return Upstream(settings.base_url, key)
    except ValueError as error:
        raise SettingsError(
            "base_url", settings.source("base_url"), str(error), "an http or https address"
        ) from None


def bind_key(ledger: Ledger, settings: Settings) -> None:
    """Hold the ledger to the mode of the key, if there is one (rule C2).

    Raises:
        SettingsError: The ledger has events of the other mode.
        LedgerError: The ledger can't be written.
    """
    key = settings.read_api_key()
    if key is None or not key.mode:
        return
    try:
        ledger.set_key_mode(key.mode)
    except ValueError:
        raise SettingsError(
            "api_key",
            settings.source("api_key"),
            f"it is a {key.mode} key",
            f"a {ledger.key_mode} key, as this state folder's ledger has; or another state_dir",
        ) from None


def _bonds(state_dir: statedir.StateDir) -> Iterator[lineage.Bond]:
    """What the headers of all visible journals say of ledgers."""
    for folder in statedir.producer_folders(state_dir.journals):
        with contextlib.suppress(OSError, ValueError):
            bond = journals.read_header(folder).bond
            if bond.ledger != NO_LEDGER:
                yield lineage.Bond(
                    producer=bytes.fromhex(folder.name), ledger=bond.ledger, position=bond.position
                )
