"""The app that gunicorn serves: three endpoints, each of which does its work, tracks it and answers."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from settle_mp import Settle
from settle_mp.demo import traffic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Made in the arbiter (preload_app), used in its workers.
settle: Final = Settle()


def ask(asked: dict[str, Any]) -> None:
    """An AI endpoint: bills each query, and the tokens of each model."""
    metadata = {name: asked[name] for name in ("model", "tokens", "request_id")}
    settle.events.track(asked["user"], traffic.AI_QUERY.event_type, metadata=metadata)


def watch(asked: dict[str, Any]) -> None:
    """A video player that reports every six seconds: bills minutes."""
    quantity = float(traffic.VIDEO_MINUTES.quantity)
    settle.events.track(asked["user"], traffic.VIDEO_MINUTES.event_type, quantity=quantity)


def export(asked: dict[str, Any]) -> None:
    """A PDF export: bills each one, and names it."""
    metadata = {"request_id": asked["request_id"]}
    settle.events.track(asked["user"], traffic.PDF_EXPORT.event_type, metadata=metadata)


#: The header as WSGI names it.
_SABOTAGE_VARIABLE: Final = "HTTP_" + traffic.SABOTAGE_HEADER.upper().replace("-", "_")
_ROUTES: Final[dict[str, Callable[[dict[str, Any]], None]]] = {
    traffic.AI_QUERY.path: ask,
    traffic.VIDEO_MINUTES.path: watch,
    traffic.PDF_EXPORT.path: export,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer one request."""
    worker = (traffic.WORKER_HEADER, str(os.getpid()))
    route = _ROUTES.get(environ["PATH_INFO"])
    if route is None:
        start_response("404 Not Found", [("Content-Length", "0"), worker])
        return []
    asked = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    if _SABOTAGE_VARIABLE not in environ:
        route(asked)
    answer = traffic.answer_to(asked["request_id"])
    headers = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(answer))),
        worker,
    ]
    start_response("200 OK", headers)
    return [answer]
