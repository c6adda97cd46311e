"""The bill: what the sandbox has billed, read over HTTP."""

from __future__ import annotations

import http.client
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from settle_mp.demo.verdict import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Rows of one answer.
PAGE_ROWS: Final = 2_000
ANSWER_S: Final = 20.0


class Bill:
    """What a sandbox on this machine has billed.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self._port = port

    def rows(self) -> Iterator[Row]:
        """Give all rows billed, in order."""
        after: int | None = 0
        while after is not None:
            page = self._ask(f"/sandbox/rows?limit={PAGE_ROWS}&after={after}")
            yield from (_row(listed) for listed in page["rows"])
            after = page["next"]

    def http_requests_count(self) -> int:
        """Count the HTTP requests that have reached it, repeated ones included."""
        return int(self._ask("/sandbox/requests")["received"])

    def _ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        try:
            connection.request("GET", path)
            return json.loads(connection.getresponse().read(), parse_float=Decimal)["data"]
        finally:
            connection.close()


def _row(listed: dict[str, Any]) -> Row:
    return Row(
        user_id=listed["userId"],
        event_type=listed["eventType"],
        quantity=Decimal(listed["quantity"]),
        metadata=listed["metadata"] or {},
        http_request=listed["request"],
    )
