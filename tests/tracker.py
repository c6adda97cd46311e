"""A worker process that does as it is told: `python -m tests.tracker [--silent] [--few-descriptors]`.

Each line on its standard input is a command in JSON: `["track", 3, "ada"]` calls `Tracker.track(3, "ada")`,
and the line that it answers with is the result. With --silent its courier thread never runs, as where a
server allows no threads.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

from settle_mp import Settle
from settle_mp.worker import native


class Tracker:
    """The commands."""

    def __init__(self) -> None:
        self.events = Settle().events
        self.tracked_count = 0

    def track(
        self,
        count: int,
        user: str = "ada",
        event_type: str = "AI_QUERY",
        quantity: float = 1,
        metadata: dict[str, Any] | None = None,
    ) -> int:
        """Track the same event so often."""
        for _ in range(count):
            self.events.track(user, event_type, quantity, metadata)
        self.tracked_count += count
        return self.tracked_count

    def spread(self, count: int, prefix: str) -> int:
        """Track one event for each of so many users."""
        for number in range(count):
            self.events.track(f"{prefix}{number}", "AI_QUERY")
        self.tracked_count += count
        return self.tracked_count

    def burst(self, seconds: float) -> int:
        """Track as fast as it goes."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.track(50)
        return self.tracked_count

    def flush(self, seconds: float) -> list[Any]:
        """Flush, and say whether it was truthy, the counts, and the reason."""
        report = self.events.flush(timeout=seconds)
        return [bool(report), report.confirmed_count, report.unconfirmed_count, report.reason]

    def pending(self) -> int:
        """How many events the collector has not committed."""
        return self.events.pending_count

    def close(self, seconds: float) -> bool:
        """End the courier."""
        self.events._producer.close(seconds)
        return True

    def exit(self) -> None:
        """End without any farewell, as a killed process does."""
        os._exit(0)


def main() -> None:
    """Obey until standard input ends."""
    if "--silent" in sys.argv:
        native.start_thread = _never  # type: ignore[assignment]
    if "--few-descriptors" in sys.argv:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
    tracker = Tracker()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        sys.stdout.write(json.dumps(getattr(tracker, name)(*arguments)) + "\n")
        sys.stdout.flush()


def _never(_: object) -> None:
    """A thread that gets no turn."""


if __name__ == "__main__":
    main()
