"""How the upstream does, as `status` and the log tell it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger("settle_mp")


@dataclass(slots=True)
class Health:
    """How the upstream does, as `status` tells it.

    Attributes:
        state: "ok", "down" (tries fail), "paused" (something must be mended), or "no_key".
        last_error: Why the last try that failed did; None when none has since it was well.
    """

    state: str
    last_error: str | None = None
    paused_until_s: float = 0.0


def log_health(health: Health) -> None:
    """Say that it has changed."""
    if health.state == "ok":
        log.info("upstream_ok")
        return
    log.warning(
        "upstream_paused" if health.state == "paused" else "upstream_down",
        extra={
            "reason": health.last_error,
            "bill": "events are kept and billed when it is back",
            "mend": "mend the setting, then wait or send SIGHUP"
            if health.state == "paused"
            else "none is needed here; it is tried again by itself",
        },
    )
