"""A Celery app whose task tracks one unit, and its module one at import when told to."""

from __future__ import annotations

import os

from celery import Celery

from settle_mp import Settle
from settle_mp.integrations import celery as settle_mp_celery
from tests.brokers import configure

app = Celery("shop")
configure(app)

if "NO_HOOKS" not in os.environ:
    settle_mp_celery.connect()
if "RUN_COLLECTOR" in os.environ:
    settle_mp_celery.run_collector(drain_timeout=float(os.environ["RUN_COLLECTOR"]))

settle = Settle()

for _ in range(int(os.environ.get("TRACK_AT_IMPORT", "0"))):
    settle.events.track("importer", "IMPORTED")


@app.task(name="track", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
def track(number: int) -> None:
    """Track one unit."""
    settle.events.track(f"user_{number % 50}", "TASK")
