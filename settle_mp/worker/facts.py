"""What a producer says of itself in its header: for `status`, `doctor` and whoever reads the logs."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from settle_mp.core.record import Identity
from settle_mp.worker import native, uwsgi


def identity(key_mode: str, label: str) -> Identity:
    """Describe this process; the journal that is made for it adds the producer's id."""
    return Identity(
        producer=b"",
        key_mode=key_mode,
        name=label or f"{_program()} pid {os.getpid()}",
        host=socket.gethostname(),
        born_s=time.time(),
        facts={
            "python": sys.version.split()[0],
            "pid": str(os.getpid()),
            "gevent": "patched" if native.is_patched() else "",
            "uwsgi": uwsgi.description(),
        },
    )


def _program() -> str:
    # Some hosts that embed Python leave argv empty.
    return Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
