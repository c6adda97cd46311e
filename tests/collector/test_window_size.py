"""How long windows stay open: their whole time, however many users are active in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from settle_mp import Settle
from tests.hosts import CLI, host
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from tests.hosts import Host

__all__ = ["host", "upstream"]

#: More than the rows of all requests that are sent at a time.
USERS_COUNT = 1_000


@pytest.mark.slow
def test_many_users_do_not_end_a_window_early(host: Host) -> None:
    """Events of the same user and interval are one row upstream, with a thousand users as with one."""
    collector = host.collector(SETTLE_MP_FLUSH_INTERVAL_S="600")
    with Settle(state_dir=host.state_dir) as settle:
        for _ in range(2):
            for number in range(USERS_COUNT):
                settle.events.track(f"user_{number}", "AI_QUERY")
            wait_until(lambda: settle.events.pending_count == 0, "the collector has committed everything")
        flush = host.run([*CLI, "flush"])
        assert flush.process.wait(60) == 0, flush.said
    collector.end()
    usage = host.upstream.usage()["AI_QUERY"]
    assert usage.quantity == 2 * USERS_COUNT
    assert usage.rows_count == USERS_COUNT
