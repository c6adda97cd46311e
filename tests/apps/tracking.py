"""What an app under test tracks with, and what it writes down of it for the oracle.

    track = connect()
    track("import")
    start_thread(track)           # tracks every few ms, until its process ends

The client is ours, the vendor's SDK, which buffers in memory (the control), or none at all, as the
environment says. Nothing in here may be what makes a host safe: no lock, and a file opened for each line.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import warnings
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp import Settle
    from tests.hosts.row import Client

#: The environment of an app under test.
CLIENT: Final = "HOST_CLIENT"
ORACLE: Final = "HOST_ORACLE"
VARIANT: Final = "HOST_VARIANT"

#: How often the background thread tracks, in seconds.
THREAD_S: Final = 0.02

_thread_pids: set[int] = set()


def connect(settle: Settle[str] | None = None) -> Callable[[str], None]:
    """Make a client of the kind that is asked for; ours may be made already. Returns `track(phase)`."""
    client: Client = os.environ[CLIENT]  # type: ignore[assignment]
    if client == "none":
        return _nothing
    track = _ours(settle) if client == "ours" else _control()

    def track_and_note(phase: str) -> None:
        name = os.urandom(8).hex()
        quantity = 1 + int(name[0], 16) % 3
        write(f"+ {name} {phase} {quantity}")
        track(f"user_{name[1]}", phase.upper(), quantity=quantity, metadata={"id": name})
        write(f"= {name}")

    return track_and_note


def has_hooks() -> bool:
    """Whether the app is to use our integration for its host."""
    return os.environ.get(VARIANT) == "hooks"


def _nothing(_: str) -> None:
    """Be the same app without us."""


def _ours(settle: Settle[str] | None) -> Callable[..., None]:
    from settle_mp import Settle

    log = logging.getLogger("settle_mp")
    if not log.handlers:
        log.addHandler(_Complaints(logging.WARNING))
    return (settle or Settle()).events.track


def _control() -> Callable[..., None]:
    import settlesettle

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of each test key
        client = settlesettle.SettleSettle(base_url=os.environ["SETTLESETTLE_BASE_URL"])
    track: Callable[..., None] = client.events.track
    return track


class _Complaints(logging.Handler):
    """Hands on what settle_mp logs: on a machine that is well it has nothing to say."""

    def emit(self, record: logging.LogRecord) -> None:
        write(f"! {record.getMessage()} {getattr(record, 'reason', '')}")


def write(line: str) -> None:
    """Append one line, whole, whatever other processes do."""
    descriptor = os.open(os.environ[ORACLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def start_thread(track: Callable[[str], None]) -> None:
    """Track from a daemon thread from now on, unless this process has one; returns when it has begun."""
    if os.getpid() in _thread_pids:
        return
    _thread_pids.add(os.getpid())
    has_begun = threading.Event()

    def run() -> None:
        while True:
            track("thread")
            has_begun.set()
            time.sleep(THREAD_S)

    threading.Thread(target=run, name="app", daemon=True).start()
    has_begun.wait()


def hold_main_thread(seconds: float) -> None:
    """Sleep, and let no greenlet run meanwhile."""
    gevent = sys.modules.get("gevent.monkey")
    sleep: Callable[[float], None] = gevent.get_original("time", "sleep") if gevent else time.sleep
    sleep(seconds)
