"""A script of the user's that tracks and then serves: `python -m tests.apps.serve SERVER PORT`."""

from __future__ import annotations

import atexit
import sys
from typing import Final

from tests.apps.tracking import connect

APP: Final = "tests.apps.workers:app"
WORKERS: Final = 2


def with_uvicorn(port: int) -> None:
    """As `uvicorn --workers 2` does."""
    import uvicorn

    uvicorn.run(APP, port=port, workers=WORKERS, lifespan="on")


def with_granian(port: int) -> None:
    """As `granian --workers 2` does."""
    from granian import Granian
    from granian.constants import Interfaces

    Granian(APP, port=port, workers=WORKERS, interface=Interfaces.ASGI).serve()


# The workers import this file, too, under another name.
if __name__ == "__main__":
    track = connect()
    track("parent")
    atexit.register(track, "shutdown")
    {"uvicorn": with_uvicorn, "granian": with_granian}[sys.argv[1]](int(sys.argv[2]))
