"""What 10,000 `track()` calls of 100 tasks do to their event loop: its longest delay, with us and without.

A ticker asks the loop for a turn every millisecond and notes how late it comes. Meanwhile 100 tasks call
`track()` 100 times each, giving up their turn after each call, as a server's handlers do. The same tasks with
a function that does nothing are the floor: the loop, the tasks and what else the machine does. A busy machine
stalls both, so what the loop's own thread worked between two ticks is noted beside it. Rounds take turns,
each in a process of its own, for asyncio's own loop and for uvloop.

    python -m benchmarks.loop
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from benchmarks.track import start_collector

if TYPE_CHECKING:
    from collections.abc import Callable

TASKS, CALLS_EACH = 100, 100
ROUNDS = 7
TICK_S = 0.001


async def longest_s(track: Callable[[str, str], None]) -> tuple[float, float, float]:
    """The longest delay of the ticker, the longest work between two ticks, and that for all calls."""
    delays: list[float] = []
    works: list[float] = []
    is_over = asyncio.Event()

    async def tick() -> None:
        while not is_over.is_set():
            due_s, worked_s = time.perf_counter() + TICK_S, time.thread_time()
            await asyncio.sleep(TICK_S)
            delays.append(time.perf_counter() - due_s)
            works.append(time.thread_time() - worked_s)

    async def handle(number: int) -> None:
        user = f"user_{number}"
        for _ in range(CALLS_EACH):
            track(user, "AI_QUERY")
            await asyncio.sleep(0)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(10 * TICK_S)
    delays.clear()
    works.clear()
    start_s = time.thread_time()
    await asyncio.gather(*map(handle, range(TASKS)))
    worked_s = time.thread_time() - start_s
    is_over.set()
    await ticker
    return max(delays), max(works), worked_s


def run(which: str, loop: str) -> tuple[float, float, float]:
    """One round: with a collector that commits on the other core, or without anything of ours."""
    main: Any = asyncio.run
    if loop == "uvloop":
        import uvloop

        main = uvloop.run
    if which == "without":
        return main(longest_s(lambda _, __: None))  # type: ignore[no-any-return]
    from settle_mp import AsyncSettle

    folder = tempfile.mkdtemp(prefix="smp-", dir="/tmp")
    collector = start_collector(folder)
    try:
        track = AsyncSettle(state_dir=folder).events.track
        # The first call begins the process's journal and courier; a server's first request does.
        track("user", "AI_QUERY")
        return main(longest_s(track))  # type: ignore[no-any-return]
    finally:
        collector.kill()
        collector.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Print each round, then medians."""
    loops = ["asyncio", *(["uvloop"] if importlib.util.find_spec("uvloop") else [])]
    for loop in loops:
        results: dict[str, list[list[float]]] = {"without": [], "with": []}
        for _ in range(ROUNDS):
            for which, rounds in results.items():
                command = [sys.executable, "-m", "benchmarks.loop", which, loop]
                output = subprocess.run(command, check=True, capture_output=True).stdout
                rounds.append(json.loads(output))
                print(f"{loop:<8} {which:<8} {spelled(rounds[-1])}", flush=True)
        for which, rounds in results.items():
            medians = [statistics.median(each[at] for each in rounds) for at in range(3)]
            print(f"median   {loop:<8} {which:<8} {spelled(medians)}")


def spelled(figures: list[float]) -> str:
    """The three figures of a round, in milliseconds."""
    delay_ms, work_ms, all_ms = (figure * 1000 for figure in figures)
    return f"longest delay {delay_ms:6.2f} ms, longest work {work_ms:5.2f} ms, all work {all_ms:6.1f} ms"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run(*sys.argv[1:])))
    else:
        main()
