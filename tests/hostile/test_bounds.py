"""Bounds: many keys in one window (`HOSTILE_KEYS=1000000` for a million), and the largest events."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from settle_mp.core.event import EVENT_TYPE_CHARS_MAX, USER_ID_CHARS_MAX
from settle_mp.core.metadata import METADATA_BYTES_MAX
from tests.collectors import worker
from tests.hostile.test_strangers import resident_bytes
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.uname().sysname != "Linux", reason="looks into /proc")]

KEYS = int(os.environ.get("HOSTILE_KEYS", "20000"))
#: What a key may cost while its window is open, in bytes of the collector's memory and of its ledger; the
#: docs name these figures.
KEY_MEMORY_BYTES_MAX = 600
KEY_LEDGER_BYTES_MAX = 150
#: What the collector takes for itself.
OWN_BYTES = 64 * 1024 * 1024
#: The most that SQLite's log and the reserve may add.
LOG_BYTES = 40 * 1024 * 1024


def files_bytes(folder: Path) -> int:
    """What a folder's files take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_many_keys_in_one_window(host: Host) -> None:
    """With the upstream away each user's sum stays open: memory and ledger grow as it is stated."""
    host.upstream.stop()
    collector = host.collector(SETTLE_MP_BATCH_ROWS_MAX="1000")
    with worker(host) as ada:
        ada.ask("spread", KEYS, "user-").wait()
        wait_until(lambda: ada.pending_count == 0, "all of it is committed", 300.0)
        memory, ledger = resident_bytes(collector.pid), files_bytes(host.state_dir / "ledger")
    each = f"{memory / KEYS:.0f} bytes of memory each, {ledger / KEYS:.0f} of ledger"
    sys.stdout.write(f"{KEYS:,} keys: {each}\n")
    assert memory < OWN_BYTES + KEYS * KEY_MEMORY_BYTES_MAX
    assert ledger < LOG_BYTES + KEYS * KEY_LEDGER_BYTES_MAX
    host.upstream.start()
    host.upstream.wait_quantity(KEYS, timeout_s=60.0 + KEYS / 1_000)
    host.settle(KEYS)


def test_the_largest_events(host: Host) -> None:
    """Names of four-byte characters at their limits and metadata to the last byte: each is billed once."""
    wide = "\U0001f600"
    # A map of one key of one character: a byte for the map, two for the key, three for the text's length.
    metadata = {"m": "x" * (METADATA_BYTES_MAX - 6)}
    widest = wide * EVENT_TYPE_CHARS_MAX
    host.collector()
    with worker(host) as ada:
        for number in range(40):
            ada.track(10, f"{number:04}".ljust(USER_ID_CHARS_MAX, wide), widest, 10**12, metadata)
        ada.track(1, "ada", "AI_QUERY", 1, metadata)
        assert ada.flush().is_ok
    assert host.upstream.quantity(widest) == 400 * 10**12
    assert {len(row.user_id) for row in host.upstream.rows(widest)} == {USER_ID_CHARS_MAX}
