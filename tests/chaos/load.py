"""A worker under load: four threads that track as fast as their dice allow, and count what returned.

Runs in a process that the keeper has forked. SIGUSR1 ends it with `os._exit`, in the middle of whatever the
first thread does; being told to stop by the tally ends it in good order.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.chaos import traffic
from tests.chaos.tally import Tally
from tests.chaos.traffic import THREADS, Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    Track = Callable[[str, str, float, "dict[str, object] | None"], None]

#: How a worker ends that was told to `os._exit`.
ABRUPT: Final = 9
#: The environment variable that says how long the end of a worker may take, in seconds.
CLOSE_VARIABLE: Final = "CHAOS_CLOSE_S"
#: Events between two pauses; now and then, or on demand, many, so that segments change.
BURST_MAX: Final = 16
STORM: Final = 500
STORM_ODDS: Final = 0.002
#: Seconds of a pause at most.
PAUSE_S_MAX: Final = 0.3


def run(*, tally: str, slot: int, life: int, seed: int, client: str) -> int:
    """Track until told to stop. Returns the exit code: 0 when every thread came to its end."""
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(ABRUPT))
    counts = Tally(Path(tally))
    track, close = _client(client)
    streams = [Stream(life, thread, slot) for thread in range(THREADS)]
    failures: list[BaseException] = []

    def work(stream: Stream) -> None:
        try:
            _track(stream, track, counts, random.Random(f"{seed}/{stream.number}"))  # noqa: S311
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=work, args=(stream,)) for stream in streams[1:]]
    for thread in threads:
        thread.start()
    work(streams[0])
    for thread in threads:
        thread.join()
    close()
    return 1 if failures else 0


def _track(stream: Stream, track: Track, counts: Tally, dice: random.Random) -> None:
    returned, index, n = counts.returned, stream.number, 0
    while not counts.is_stopped(stream.slot):
        is_storm = dice.random() < STORM_ODDS or counts.is_stormy(stream.slot)
        burst = STORM if is_storm else dice.randint(1, BURST_MAX)
        for _ in range(burst):
            track(*traffic.event(stream, n))
            n += 1
            returned[index] = n
        time.sleep(dice.random() * PAUSE_S_MAX)


def _client(name: str) -> tuple[Track, Callable[[], None]]:
    if name == "control":
        from tests.chaos.control import Buffer

        buffer = Buffer()
        return buffer.track, buffer.close
    from settle_mp import Settle

    settle = Settle()
    return settle.events.track, lambda: settle.close(float(os.environ.get(CLOSE_VARIABLE, "1")))
