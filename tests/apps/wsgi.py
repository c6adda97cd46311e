"""A WSGI app that tracks in every phase."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.apps.phases import FOR_EVER_S, begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def app(environ: dict[str, str], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Answer 200 once the request's event is tracked."""
    if begin(environ["PATH_INFO"]):
        time.sleep(FOR_EVER_S)
    start_response("200 OK", [("Content-Length", "0")])
    return []
