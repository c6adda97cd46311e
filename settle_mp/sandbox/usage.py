"""Usage: rows that were applied, their totals, and how both are read.

Rule 1: totals are written in the transaction that writes the rows.
Rule 2: quantities leave as the exact decimal strings that they are stored as.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
from typing import TYPE_CHECKING, Any, Final

from settle_mp.sandbox import exact
from settle_mp.sandbox.rows import metadata_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from settle_mp.sandbox.rows import Row
    from settle_mp.sandbox.store import Store

#: Rows on one page at most.
PAGE_ROWS_MAX: Final = 5_000

_ADD_TYPE: Final = """INSERT INTO types VALUES (?, ?, ?, 1) ON CONFLICT (event_type) DO UPDATE
    SET quantity = exact_add(quantity, excluded.quantity), rows = rows + excluded.rows,
    requests = requests + 1"""
_PAGE: Final = """SELECT id, user_id, event_type, quantity, request_id, position FROM rows
    WHERE id > ? AND ? IN (event_type, '') AND ? IN (user_id, '') ORDER BY id LIMIT ?"""
_LATEST: Final = """SELECT received_at, user_id, event_type, quantity, position, body FROM rows
    JOIN requests ON requests.id = request_id ORDER BY rows.id DESC LIMIT ?"""


def apply_rows(db: sqlite3.Connection, rows: Sequence[Row], body: bytes, key: str | None) -> None:
    """Write rows, the body they came in and totals; within the caller's transaction."""
    request_id = db.execute(
        "INSERT INTO requests (key, received_at, body) VALUES (?, ?, ?)", (key, _now(), body)
    ).lastrowid
    db.executemany(
        "INSERT INTO rows (request_id, position, user_id, event_type, quantity) VALUES (?, ?, ?, ?, ?)",
        [(request_id, position, *row) for position, row in enumerate(rows)],
    )
    by_type: dict[str, list[str]] = {}
    for row in rows:
        by_type.setdefault(row.event_type, []).append(row.quantity)
    db.executemany(_ADD_TYPE, [(name, _total(each), len(each)) for name, each in by_type.items()])


def _total(quantities: list[str]) -> str:
    return functools.reduce(exact.add, quantities)


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds")


def summary(store: Store, user_id: str) -> list[dict[str, Any]]:
    """One user's usage as the upstream gives it: quantities as JSON numbers."""
    quantities: dict[str, list[str]] = {}
    for name, quantity in store.read("SELECT event_type, quantity FROM rows WHERE user_id = ?", (user_id,)):
        quantities.setdefault(str(name), []).append(str(quantity))
    return [
        {"eventType": name, "totalQuantity": exact.loads(_total(each).encode()), "count": len(each)}
        for name, each in sorted(quantities.items())
    ]


def by_type(store: Store) -> dict[str, dict[str, Any]]:
    """All usage by event type: quantity (exact), rows, and the requests that brought any."""
    found = store.read("SELECT event_type, quantity, rows, requests FROM types ORDER BY event_type")
    return {
        name: {"quantity": quantity, "rows": rows, "requests": requests}
        for name, quantity, rows, requests in found
    }


def totals(store: Store) -> dict[str, Any]:
    """Everything applied: rows, and requests that applied any."""
    ((rows, requests),) = store.read(
        "SELECT (SELECT coalesce(max(id), 0) FROM rows), (SELECT coalesce(max(id), 0) FROM requests)"
    )
    return {"rows": rows, "requests": requests}


def latest_rows(store: Store, count: int) -> list[tuple[object, ...]]:
    """The last rows applied, newest first: time, user, type, quantity, metadata as JSON text."""
    return [(*row[:4], metadata_of(bytes(row[5]))[row[4]]) for row in store.read(_LATEST, (count,))]


def page_of_rows(
    store: Store, *, after: int, limit: int, event_type: str | None, user_id: str | None
) -> bytes:
    """A page of applied rows as JSON: `{"rows": […], "next": id of the last, or null at the end}`."""
    found = store.read(_PAGE, (after, event_type or "", user_id or "", limit))
    requests = {number: _request(store, number) for number in {row[4] for row in found}}
    listed = ",".join(_row_json(row, *requests[row[4]]) for row in found)
    following = found[-1][0] if len(found) == limit else None
    return f'{{"rows":[{listed}],"next":{json.dumps(following)}}}'.encode()


def _request(store: Store, number: int) -> tuple[str | None, str, list[str]]:
    ((key, received_at, body),) = store.read(
        "SELECT key, received_at, body FROM requests WHERE id = ?", (number,)
    )
    return key, received_at, metadata_of(body)


def _row_json(row: tuple[Any, ...], key: str | None, received_at: str, metadata: list[str]) -> str:
    number, user_id, event_type, quantity, request_id, position = row
    head = json.dumps(
        {
            "id": number,
            "userId": user_id,
            "eventType": event_type,
            "quantity": quantity,
            "request": request_id,
            "idempotencyKey": key,
            "receivedAt": received_at,
        }
    )
    # Metadata are joined in as text, so that their numbers stay as exact as they came.
    return f'{head[:-1]}, "metadata": {metadata[position]}}}'
