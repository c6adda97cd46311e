"""How often an idle worker wakes: voluntary context switches of all its threads, while nothing is tracked.

python -m benchmarks.idle
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.track import start_collector
from settle_mp import Settle

IDLE_S = 20.0


def switches() -> dict[str, int]:
    """Voluntary context switches so far, by thread."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        status = (task / "status").read_text()
        found[task.name] = int(status.split("voluntary_ctxt_switches:")[1].split()[0])
    return found


def main() -> None:
    """Track a little, fall idle, count."""
    folder = tempfile.mkdtemp(prefix="smp-", dir="/tmp")
    collector = start_collector(folder)
    try:
        settle = Settle(state_dir=folder)
        for _ in range(100):
            settle.events.track("user", "AI_QUERY")
        while settle.events.pending_count:
            time.sleep(0.1)
        time.sleep(2.0)  # the courier gathers for a moment before it lies down
        before = switches()
        time.sleep(IDLE_S)
        after = switches()
    finally:
        collector.kill()
        collector.wait()
        shutil.rmtree(folder, ignore_errors=True)
    # The main thread's own sleep is one of them.
    count = sum(after[task] - before.get(task, 0) for task in after) - 1
    print(f"{count} wake-ups of {len(after)} threads in {IDLE_S:.0f} s: {count / IDLE_S:.2f} a second")


if __name__ == "__main__":
    main()
