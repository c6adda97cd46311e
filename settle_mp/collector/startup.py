"""How a collector starts: one a state folder, its ledger checked, before anything listens (rule L5)."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from settle_mp import statedir, transport
from settle_mp.collector import journals, lineage
from settle_mp.core.record import NO_LEDGER
from settle_mp.errors import SettingsError
from settle_mp.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.collector.ledger import Ledger
    from settle_mp.config import Settings

log = logging.getLogger("settle_mp")


class AlreadyRunningError(Exception):
    """Another collector has this state folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What a collector works on, locked for it alone."""

    dir: statedir.StateDir
    endpoints: transport.Endpoints
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
        AddressError: The sockets' address can't be used.
        SettingsError: The key is of another mode than the ledger's.
        LedgerError: The ledger can't be opened now.
        OSError: The folder can't be used.
    """
    state_dir = statedir.StateDir(settings.state_dir)
    endpoints = transport.endpoints(state_dir, settings.endpoint)
    state_dir.prepare(settings.group)
    lock = statedir.try_lock(state_dir.collector_lock, create=True, mode=statedir.file_mode(settings.group))
    if lock is None:
        msg = f"another collector runs on {settings.state_dir}"
        raise AlreadyRunningError(msg)
    try:
        ledger = lineage.open_or_replace(
            settings.state_dir,
            list(_bonds(state_dir)),
            ledger_bytes_max=settings.ledger_bytes_max,
            now_s=time.time(),
        )
        _bind_key(ledger, settings)
        put_aside = lineage.put_aside_ids(settings.state_dir)
    except BaseException:
        os.close(lock)
        raise
    return Opened(
        dir=state_dir, endpoints=endpoints, settings=settings, ledger=ledger, put_aside=put_aside, lock=lock
    )


def make_upstream(settings: Settings) -> Upstream | None:
    """The way to the upstream, or None without a key: then the collector collects without shipping.

    Raises:
        SettingsError: The key file can't be read, or the address is none.
    """
    key = settings.read_api_key()
    if key is None:
        log.warning(
            "no_api_key",
            extra={
                "reason": "SETTLESETTLE_API_KEY is not set",
                "bill": "events are collected and kept, nothing is shipped",
                "mend": "set the key and send SIGHUP, or restart",
            },
        )
        return None
    try:
        return Upstream(settings.base_url, key)
    except ValueError as error:
        raise SettingsError(
            "base_url", settings.source("base_url"), str(error), "an http or https address"
        ) from None


def _bind_key(ledger: Ledger, settings: Settings) -> None:
    key = settings.read_api_key()
    if key is None:
        return
    try:
        ledger.set_key_mode(key.mode)
    except ValueError:
        ledger.close()
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
