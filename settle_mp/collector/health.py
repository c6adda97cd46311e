"""How the upstream does, as the collector sees it and `status` tells it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

log = logging.getLogger("settle_mp")


@dataclass(slots=True)
class Health:
    """What the last answers mean for the next tries.

    Attributes:
        state: "ok", "down" (tries fail), "paused" (something must be mended), or "no_key".
        last_error: Why the last try that failed did; None when none has since it was well.
        paused_until_s: When a pause ends by itself (Unix seconds).
    """

    state: str
    last_error: str | None = None
    paused_until_s: float = 0.0

    def become(self, state: str, last_error: str | None = None, paused_until_s: float = 0.0) -> None:
        """Take over what is known now, and log it when it is another state."""
        is_new = state != self.state
        self.state, self.last_error, self.paused_until_s = state, last_error, paused_until_s
        if is_new:
            self._log()

    def _log(self) -> None:
        if self.state == "ok":
            log.info("upstream_ok")
        elif self.state != "no_key":
            log.warning(
                "upstream_paused" if self.state == "paused" else "upstream_down",
                extra={
                    "reason": self.last_error,
                    "bill": "events are kept and billed when it is back",
                    "mend": "mend the setting, then wait or send SIGHUP"
                    if self.state == "paused"
                    else "none is needed here; it is tried again by itself",
                },
            )
