"""What one `track()` costs its caller, next to dogstatsd's aggregating client in the same run.

Rounds take turns, each in a process of its own: the machine drifts, and both have a thread that would
disturb the other. Each call is timed by itself; the clock's own cost is measured and taken off.

    python -m benchmarks.track
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = 200_000
ROUNDS = 7
#: Different users in turn, as a server has them.
USERS = [f"user_{number}" for number in range(500)]


def time_calls(call: Callable[[str], object]) -> tuple[float, float]:
    """p50 and p99 of a call, in microseconds, the clock's own cost taken off."""
    clock = time.perf_counter_ns
    users = (USERS * (CALLS // len(USERS) + 1))[:CALLS]
    # Written beforehand: a growing list would add page faults of its own to one call in a hundred.
    empty, taken = array("q", [1]) * CALLS, array("q", [1]) * CALLS
    for number in range(CALLS):
        start = clock()
        empty[number] = clock() - start
    for number, user in enumerate(users):
        start = clock()
        call(user)
        taken[number] = clock() - start
    times, own = sorted(taken), statistics.median(empty)
    return (times[CALLS // 2] - own) / 1000, (times[CALLS * 99 // 100] - own) / 1000


def run_settle() -> tuple[float, float]:
    """`track()` with a collector that commits on the other core."""
    from settle_mp import Settle

    folder = tempfile.mkdtemp(prefix="smp-", dir="/tmp")
    collector = start_collector(folder)
    try:
        track = Settle(state_dir=folder).events.track
        track("user", "AI_QUERY")
        return time_calls(lambda user: track(user, "AI_QUERY"))
    finally:
        collector.kill()
        collector.wait()
        shutil.rmtree(folder, ignore_errors=True)


def run_dogstatsd() -> tuple[float, float]:
    """A counter with the user as its tag, aggregated in the process, flushed to a socket that listens."""
    from datadog.dogstatsd import DogStatsd

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as agent:
        agent.bind(("127.0.0.1", 0))
        client = DogStatsd(
            host="127.0.0.1", port=agent.getsockname()[1], disable_telemetry=True, disable_aggregation=False
        )
        tags = {user: [f"user:{user}"] for user in USERS}
        increment = client.increment
        return time_calls(lambda user: increment("AI_QUERY", 1, tags[user]))


RUNS = {"settle-mp": run_settle, "dogstatsd": run_dogstatsd}


def start_collector(folder: str) -> subprocess.Popen[bytes]:
    """A collector on a state folder, listening when this returns; it has no key and ships nothing."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("SETTLE")}
    command = [str(Path(sys.executable).with_name("settle-mp")), "--log-level", "error", "collector"]
    process = subprocess.Popen([*command, "--state-dir", folder], env=environ)
    deadline_s = time.monotonic() + 20
    while not (Path(folder) / "control").exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            sys.exit("the collector did not start")
        time.sleep(0.05)
    return process


def main() -> None:
    """Print each round, then medians and ratios."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
    for number in range(ROUNDS):
        for name in RUNS:
            output = subprocess.run(
                [sys.executable, "-m", "benchmarks.track", name], check=True, capture_output=True
            ).stdout
            p50, p99 = json.loads(output)
            results[name].append((p50, p99))
            print(f"round {number + 1}  {name:<10} p50 {p50:6.2f} us   p99 {p99:6.2f} us", flush=True)
    medians = {
        name: [statistics.median(each[which] for each in rounds) for which in (0, 1)]
        for name, rounds in results.items()
    }
    for name, (p50, p99) in medians.items():
        print(f"median   {name:<10} p50 {p50:6.2f} us   p99 {p99:6.2f} us")
    ratios = [ours / theirs for ours, theirs in zip(*medians.values(), strict=True)]
    print(f"settle-mp / dogstatsd: p50 {ratios[0]:.2f}, p99 {ratios[1]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(RUNS[sys.argv[1]]()))
    else:
        main()
