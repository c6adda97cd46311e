"""The app of `benchmarks.hub`: greenlets that work and track, or only work, and one that measures stalls."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

import gevent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Events of one piece of work, and how long a greenlet waits behind it, as for a database.
EVENTS = 20
WORK_S = 0.004
WORKERS = 4
TICK_S = 0.002

if os.environ["HUB_CLIENT"] == "without":

    def track(*_: object, **__: object) -> None:
        """Do nothing."""
else:
    from settle_mp import Settle

    track = Settle().events.track


def work(done: list[int]) -> None:
    """Track, wait, and again."""
    while True:
        for number in range(EVENTS):
            track(f"user_{number}", "AI_QUERY", metadata={"model": "gpt-4", "tokens": number})
        done[0] += EVENTS
        gevent.sleep(WORK_S)


def tick(stalls: list[float]) -> None:
    """Sleep again and again, and note by how much too long."""
    while True:
        before_s = time.perf_counter()
        gevent.sleep(TICK_S)
        stalls.append(time.perf_counter() - before_s - TICK_S)


def load(seconds: float) -> bytes:
    """Be under load for so long, and say what was measured."""
    stalls: list[float] = []
    done = [0]
    greenlets = [gevent.spawn(work, done) for _ in range(WORKERS)]
    gevent.sleep(1.0)  # the first events open the journal and connect
    done[0] = 0
    greenlets.append(gevent.spawn(tick, stalls))
    gevent.sleep(seconds)
    gevent.killall(greenlets)
    stalls.sort()
    at = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999, "longest_ms": 1.0}
    found = {name: 1000 * stalls[min(int(len(stalls) * part), len(stalls) - 1)] for name, part in at.items()}
    return json.dumps({"events": done[0], **found}).encode()


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer /SECONDS with what was measured meanwhile."""
    body = load(float(environ["PATH_INFO"].strip("/")))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
