"""The control: a client as they are commonly written, with a buffer in memory. It is known to lose.

It goes through the same kills under the same load, and the oracle must catch it: an oracle that could not
see this loss would see none.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import uuid
from typing import Any, Final
from urllib.parse import urlsplit

#: Seconds between two sendings, and rows of one.
INTERVAL_S: Final = 0.1
ROWS_MAX: Final = 500


class Buffer:
    """Keeps rows in a list, and sends them from a thread of its own."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def track(
        self, user_id: str, event_type: str, quantity: float = 1, metadata: dict[str, object] | None = None
    ) -> None:
        """Take one event."""
        row = {"userId": user_id, "eventType": event_type, "quantity": quantity, "metadata": metadata}
        with self._lock:
            self._rows.append(row)

    def close(self) -> None:
        """Send what is left."""
        self._is_closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closed.wait(INTERVAL_S):
            self._send()
        self._send()

    def _send(self) -> None:
        while True:
            with self._lock:
                rows, self._rows = self._rows[:ROWS_MAX], self._rows[ROWS_MAX:]
            if not rows:
                return
            body = json.dumps({"events": rows})
            address = urlsplit(os.environ["SETTLESETTLE_BASE_URL"])
            connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
            headers = {
                "X-API-Key": os.environ["SETTLESETTLE_API_KEY"],
                "Content-Type": "application/json",
                "Idempotency-Key": f'"{uuid.uuid4()}"',
            }
            connection.request("POST", "/v1/events/batch", body, headers)
            assert connection.getresponse().status == 200
            connection.close()
