"""What a producer says of itself in its header: for `status`, `doctor` and whoever reads the logs.

Found out once, when its journal is born. At most twelve facts, each of 80 bytes.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq

from settle_mp.core.record import Identity
from settle_mp.version import __version__
from settle_mp.worker import native, uwsgi

if TYPE_CHECKING:
    from settle_mp.config import Settings

#: What may run us, by the module that then is loaded.
_SERVERS: Final = ("gunicorn", "celery", "uwsgi", "uvicorn", "granian", "hypercorn")
#: Not empty once a journal was made before anything was patched, here or in a parent before its fork.
_unpatched_before: Final[list[int]] = []


def identity(key_mode: str, label: str, settings: Settings | None = None) -> Identity:
    """Describe this process; the journal that is made for it adds the producer's id."""
    return Identity(
        producer=b"",
        key_mode=key_mode,
        name=label or f"{_program()} pid {os.getpid()}",
        host=socket.gethostname(),
        born_s=time.time(),
        facts={
            "version": __version__,
            "python": sys.version.split()[0],
            "pid": str(os.getpid()),
            "user": str(os.geteuid()),
            "server": " ".join(name for name in _SERVERS if name in sys.modules),
            "gevent": _gevent(),
            "uwsgi": uwsgi.description(),
            "zmq": _context_of_parent(),
            "descriptors": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
            "state_dir": "" if settings is None else str(settings.state_dir),
            "endpoint": "" if settings is None else settings.endpoint or "",
        },
    )


def _program() -> str:
    # Some hosts that embed Python leave argv empty.
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"


def _gevent() -> str:
    """Whether threads are greenlets: "patched", "late" when that came after the first use, "" when not."""
    if not native.is_patched():
        _unpatched_before[:] = [1]
        return ""
    return "late" if _unpatched_before else "patched"


def _context_of_parent() -> str:
    """Whether the application's shared ZeroMQ context is its parent's: sockets of it lose or hang here."""
    context, pid = getattr(zmq.Context, "_instance", None), getattr(zmq.Context, "_instance_pid", None)
    is_parents = context is not None and pid not in (None, os.getpid()) and not context.closed
    return "context made before the fork" if is_parents else ""
