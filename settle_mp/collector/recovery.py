"""What the loop does after an error of the ledger: rest, read everything again, go on (rule L1)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from settle_mp.collector.ledger import LedgerError

if TYPE_CHECKING:
    from settle_mp.collector.parts import Parts

log = logging.getLogger("settle_mp")

#: How long intake rests after the ledger failed, in seconds; couriers and journals have everything.
REST_S: Final = 2.0
#: How long the same failure is not logged again, in seconds.
TELL_AGAIN_S: Final = 60.0


class Recovery:
    """Keeps the loop from using memory that may be ahead of its ledger."""

    def __init__(self, parts: Parts) -> None:
        """Begin with a ledger that works."""
        self._parts = parts
        self._rests_until_s = 0.0
        self._must_reload = False
        self._must_reopen = False
        self._told: dict[str, float] = {}

    @property
    def is_resting(self) -> bool:
        """Whether nothing is taken in for now. What is in the ledger already is still shipped."""
        return self.left_s > 0

    @property
    def left_s(self) -> float:
        """How long the rest lasts."""
        return self._rests_until_s - time.monotonic()

    def note(self, error: LedgerError) -> None:
        """The ledger failed: what is in memory may not be used again before it was read anew."""
        self._rests_until_s = time.monotonic() + REST_S
        self._must_reload = True
        self._must_reopen = self._must_reopen or error.is_outcome_unknown or not error.is_full
        mend = "free space, or raise ledger_bytes_max" if error.is_full else "check the disk"
        self._tell("ledger_failed", str(error), mend)

    def is_ready(self) -> bool:
        """Whether memory and ledger agree; reads the ledger again where they may not."""
        if not self._must_reload:
            return True
        try:
            if self._must_reopen:
                self._parts.state.ledger.reopen()
            self._parts.reload()
        except LedgerError as error:
            self._rests_until_s = time.monotonic() + REST_S
            self._must_reopen = True
            self._tell("ledger_not_read", str(error), "check the disk; it is tried again by itself")
            return False
        self._must_reload = self._must_reopen = False
        return True

    def _tell(self, name: str, reason: str, mend: str) -> None:
        now_s = time.monotonic()
        if now_s >= self._told.get(name, 0.0):
            self._told[name] = now_s + TELL_AGAIN_S
            bill = "nothing is lost: journals keep what is not committed"
            log.error(name, extra={"reason": reason, "bill": bill, "mend": mend})
