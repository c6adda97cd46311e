"""All rows of all hosts. A host's module has its rows in ROWS; here they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.hosts import asgi, celery, django, gunicorn, processes, uwsgi

if TYPE_CHECKING:
    from tests.hosts.row import Row

ROWS: Final[list[Row]] = [
    *gunicorn.ROWS,
    *celery.ROWS,
    *asgi.ROWS,
    *django.ROWS,
    *processes.ROWS,
    *uwsgi.ROWS,
]

#: Packages whose versions stand in the table, by host.
PACKAGES: Final[dict[str, tuple[str, ...]]] = {
    "gunicorn": ("gunicorn", "gevent", "uvicorn", "uvicorn-worker"),
    "Celery": ("celery", "kombu", "billiard", "redis", "gevent"),
    "Django": ("django", "gunicorn"),
    "ASGI servers": ("uvicorn", "granian"),
    "uWSGI": ("pyuwsgi",),
}

HOSTS: Final[tuple[str, ...]] = tuple(dict.fromkeys(row.host for row in ROWS))
