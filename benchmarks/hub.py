"""How long a gevent worker's hub is held up under load, by the same app with settle-mp and without.

    python -m benchmarks.hub

A real `gunicorn -k gevent` with one worker, and a collector beside it. In the worker four greenlets work and
track, and another one sleeps for 2 ms again and again: what it oversleeps is a stall of the hub, whoever
caused it: the app, the machine, or us. A courier that were a greenlet would show as stalls as long as its
poll, a second.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.track import start_collector

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS: Final = 7
LOAD_S: Final = 8.0
#: What is shown of the stalls.
MEASURES: Final = ("p50_ms", "p99_ms", "p999_ms", "longest_ms")


@contextlib.contextmanager
def server(state_dir: str, client: str) -> Iterator[int]:
    """Run gunicorn with one gevent worker; gives its port."""
    output = Path(state_dir) / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "-k", "gevent", "--bind=127.0.0.1:0", "--timeout=120"]
    environ = {**os.environ, "SETTLE_MP_STATE_DIR": state_dir, "HUB_CLIENT": client}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--no-control-socket", "benchmarks.hub_app:app"], stderr=file, env=environ
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", output.read_text())):
            assert process.poll() is None, output.read_text()
            time.sleep(0.05)
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()


def measure(state_dir: str, client: str) -> dict[str, Any]:
    """Put the worker under load; returns how many events it tracked, and its hub's stalls."""
    with (
        server(state_dir, client) as port,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection,
    ):
        connection.request("GET", f"/{LOAD_S}")
        report: dict[str, Any] = json.loads(connection.getresponse().read())
    return report


def main() -> None:
    """Measure both, turn about, and print the medians of all rounds."""
    folder = tempfile.mkdtemp(prefix="smp-", dir="/tmp")
    collector = start_collector(folder)
    found: dict[str, list[dict[str, Any]]] = {"without": [], "settle-mp": []}
    try:
        for _ in range(ROUNDS):
            for client, reports in found.items():
                reports.append(measure(folder, client))
    finally:
        collector.kill()
        collector.wait()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"stalls of the hub, medians of {ROUNDS} rounds of {LOAD_S:.0f} s")
    print(f"{'':12}{'events/s':>10}{'p50':>11}{'p99':>11}{'p99.9':>11}{'longest':>11}{'longest of all':>18}")
    for client, reports in found.items():
        events = statistics.median(each["events"] for each in reports) / LOAD_S
        cells = [statistics.median(each[name] for each in reports) for name in MEASURES]
        cells.append(max(each["longest_ms"] for each in reports))
        print(f"{client:12}{events:>10,.0f}" + "".join(f"{cell:>8.1f} ms" for cell in cells))


if __name__ == "__main__":
    main()
