"""What settle-mp costs a worker before its first event and after many: import time and resident memory.

python -m benchmarks.footprint

Import times are those of `python -X importtime`; memory is what Linux counts as resident (VmRSS) and as this
process's own (Private_Clean and Private_Dirty of /proc/self/smaps_rollup), so that the journal's pages count.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

from benchmarks.track import start_collector

RUNS = 21
MODULES = ("settle_mp", "zmq", "msgpack", "logging", "httpx")

WORKER = """
import json, pathlib, re, sys, time

def memory():
    rollup = pathlib.Path("/proc/self/smaps_rollup").read_text()
    own = sum(int(each) for each in re.findall(r"Private_(?:Clean|Dirty): +(\\d+)", rollup))
    return {"resident": int(re.search(r"Rss: +(\\d+)", rollup)[1]), "own": own}

found = {"python": memory()}
from settle_mp import Settle
found["import settle_mp"] = memory()
settle = Settle()
found["Settle()"] = memory()
settle.events.track("user", "AI_QUERY")
while settle.events.pending_count:
    time.sleep(0.05)
found["the first track(), shipped"] = memory()
for number in range(100_000):
    settle.events.track(f"user_{number % 100}", "AI_QUERY", metadata={"model": "gpt-4"})
while settle.events.pending_count:
    time.sleep(0.05)
found["100,000 more, shipped"] = memory()
print(json.dumps(found))
"""


def import_times() -> dict[str, float]:
    """Milliseconds to import settle_mp, and its parts, all that they import included."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import settle_mp"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {}
    for line in done.stderr.splitlines():
        match = re.match(r"import time: +\d+ \| +(\d+) \| +([\w.]+)$", line)
        if match is not None and match[2] in MODULES:
            found[match[2]] = int(match[1]) / 1000
    return found


def memory(state_dir: str) -> dict[str, dict[str, int]]:
    """Kilobytes of a worker at each step."""
    environ = {**os.environ, "SETTLE_MP_STATE_DIR": state_dir}
    done = subprocess.run(
        [sys.executable, "-c", WORKER], capture_output=True, text=True, check=True, env=environ
    )
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print both: the import as on a machine with nothing else to do, memory as medians."""
    times = [import_times() for _ in range(RUNS)]
    print(f"python -X importtime, the best of {RUNS} runs:")
    for name in MODULES:
        measured = [each[name] for each in times if name in each]
        print(f"  {name:12}" + (f"{min(measured):>8.1f} ms" if measured else "not imported"))
    folder = tempfile.mkdtemp(prefix="smp-", dir="/tmp")
    collector = start_collector(folder)
    try:
        runs = [memory(folder) for _ in range(3)]
    finally:
        collector.kill()
        collector.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{'memory after':30}{'resident':>12}{'its own':>12}")
    for step in runs[0]:
        resident, own = (statistics.median(run[step][name] for run in runs) for name in ("resident", "own"))
        print(f"  {step:28}{resident / 1024:>9.1f} MiB{own / 1024:>9.1f} MiB")


if __name__ == "__main__":
    main()
