"""How the upstream does, as the collector sees it and `status` tells it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from settle_mp.notices import notice

log: Final = logging.getLogger("settle_mp")


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
            name = "upstream_paused" if self.state == "paused" else "upstream_down"
            log.warning(name, extra=notice(name, self.last_error or "no reason is known"))
