"""A WSGI app that tracks one unit for each request, and some at import when told to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from settle_mp import Settle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

settle = Settle()

for _ in range(int(os.environ.get("TRACK_AT_IMPORT", "0"))):
    settle.events.track("importer", "IMPORTED")


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer 200 once the unit is tracked."""
    number = int(environ["PATH_INFO"].strip("/"))
    metadata = {"plan": "pro"} if number % 3 else None
    settle.events.track(f"user_{number % 50}", "REQUEST", metadata=metadata)
    start_response("200 OK", [("Content-Length", "0")])
    return []
