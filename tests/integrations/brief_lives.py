"""A process that forks many short lives, each of which tracks one unit and ends by os._exit; then it waits.

python -m tests.integrations.brief_lives COUNT
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from typing import Final

from settle_mp import Settle

#: How many live at a time.
CROWD: Final = 20


def main() -> None:
    """Track one unit, so that there is a live journal to inherit; then fork."""
    # Python 3.12 warns of forks beside our courier, which this is about.
    warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settle = Settle()
    settle.events.track("parent", "LIFE")
    count = int(sys.argv[1])
    for first in range(0, count, CROWD):
        children = [_live(settle, number) for number in range(first, min(first + CROWD, count))]
        for child in children:
            _, status = os.waitpid(child, 0)
            assert status == 0
    sys.stdout.write("all have lived\n")
    sys.stdout.flush()
    signal.pause()


def _live(settle: Settle, number: int) -> int:
    pid = os.fork()
    if pid == 0:
        settle.events.track(f"user_{number % 10}", "LIFE")
        os._exit(0)
    return pid


if __name__ == "__main__":
    main()
