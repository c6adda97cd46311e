"""A small product behind uWSGI: AI answers and PDF exports, each billed by use."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from settle_mp import Settle
from settle_mp.integrations import uwsgi as settle_mp_uwsgi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Opens nothing and starts nothing: safe here, in the process that uWSGI forks its workers from.
settle = Settle()
# Events are counted without it, too. It ships them at once, and names the workers for `settle-mp status`.
settle_mp_uwsgi.connect()


def ask(order: dict[str, Any]) -> dict[str, Any]:
    """Answer a question: one AI_QUERY, with what it cost us in its metadata."""
    question = str(order["question"])
    tokens = 40 + 2 * len(question.split())  # your model says how many it took
    settle.events.track(order["user"], "AI_QUERY", metadata={"model": "gpt-4", "tokens": tokens})
    return {"answer": f"A good question: {question}", "tokens": tokens}


def export(order: dict[str, Any]) -> dict[str, Any]:
    """Export a document: as many PDF_PAGE as it has pages."""
    pages = int(order["pages"])
    settle.events.track(order["user"], "PDF_PAGE", quantity=pages)
    return {"file": "report.pdf", "pages": pages}


ROUTES = {"/ask": ask, "/export": export}


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Serve `POST /ask`, `POST /export` and `GET /healthz`, all in JSON."""
    path = environ["PATH_INFO"]
    if path == "/healthz":
        return respond(start_response, "200 OK", {"ok": True, "worker": os.getpid()})
    if path not in ROUTES or environ["REQUEST_METHOD"] != "POST":
        return respond(start_response, "404 Not Found", {"error": "POST /ask or /export"})
    try:
        order = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))
        # track() refuses what it can't bill (no user, no pages) before anybody gets anything.
        return respond(start_response, "200 OK", ROUTES[path](order))
    except (KeyError, TypeError, ValueError) as error:
        return respond(start_response, "400 Bad Request", {"error": f"{type(error).__name__}: {error}"})


def respond(start_response: Callable[..., object], status: str, answer: dict[str, Any]) -> list[bytes]:
    """Answer in JSON."""
    body = json.dumps(answer).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
