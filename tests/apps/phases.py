"""What both web apps do: track in every phase, and be slow or hang when asked to."""

from __future__ import annotations

import atexit
import os
import signal
from typing import TYPE_CHECKING, Final

from tests.apps.tracking import connect, hold_main_thread, start_thread, write

if TYPE_CHECKING:
    from types import FrameType

#: Longer than any patience here: who asks for it is killed.
FOR_EVER_S: Final = 600.0
#: A signal whose handler keeps the main thread, which beats for a worker: a host takes that for a hang.
_HANG: Final = signal.SIGURG


def _hang(_signal: int, _frame: FrameType | None) -> None:
    write("~ hangs")
    hold_main_thread(FOR_EVER_S)


track = connect()
track("import")
atexit.register(track, "shutdown")
signal.signal(_HANG, _hang)


def begin(path: str) -> bool:
    """Track what a request is for. Returns whether its answer should take for ever."""
    start_thread(track)
    track("request")
    if path == "/hang":
        os.kill(os.getpid(), _HANG)
    if path == "/slow":
        write("~ is slow")
    return path == "/slow"
