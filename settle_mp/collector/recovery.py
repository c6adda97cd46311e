"""What the loop does after an error of the ledger: rest, read everything again, go on (rule L1)."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from settle_mp.collector.ledger import LedgerDamagedError, LedgerError
from settle_mp.notices import Teller

if TYPE_CHECKING:
    from settle_mp.collector.parts import Parts

log: Final = logging.getLogger("settle_mp")

#: How long everything rests after an error of the ledger, in seconds; after one that says that it is full,
#: only what takes in: couriers and journals hold, and what is shipped makes room.
REST_S: Final = 2.0
#: How long it rests at most, in seconds: the rest doubles while errors follow each other, since reading a
#: large ledger again takes long.
REST_S_MAX: Final = 30.0


class Recovery:
    """Keeps the loop from using memory that may be ahead of its ledger."""

    def __init__(self, parts: Parts) -> None:
        """Begin with a ledger that works."""
        self._parts = parts
        self._rests_until_s = self._intake_rests_until_s = float("-inf")
        self._rest_s = REST_S
        #: Whether memory and ledger may differ.
        self.must_reload: bool = False
        self._is_suspect = False
        self._teller = Teller(log)

    @property
    def is_open(self) -> bool:
        """Whether something may be taken in; to be asked once `is_ready` has said yes."""
        return time.monotonic() >= self._intake_rests_until_s

    @property
    def intake_left_s(self) -> float:
        """How long intake rests; 0 or less when it does not."""
        return self._intake_rests_until_s - time.monotonic()

    @property
    def left_s(self) -> float:
        """How long everything rests; 0 or less when it does not."""
        return self._rests_until_s - time.monotonic()

    def note(self, error: LedgerError, *, is_intake: bool) -> None:
        """The ledger failed: what is in memory may not be used again before it was read anew.

        Args:
            error: What it said.
            is_intake: Whether it was to take something in.
        """
        self._is_suspect = self._is_suspect or isinstance(error, LedgerDamagedError)
        mend = "see whether the disk can be read and written"
        if error.is_full:
            mend = "free space, or raise ledger_bytes_max and restart"
        self._parts.trouble = f"the ledger takes nothing in: {error}; {mend}"
        self._teller.tell("ledger_failed", str(error), level=logging.ERROR, mend=mend)
        self._intake_rests_until_s = time.monotonic() + self._rest_s
        self._rest_s = min(2 * self._rest_s, REST_S_MAX)
        if not (is_intake and error.is_full):
            self._rests_until_s = self._intake_rests_until_s
        if is_intake and error.is_full and error.__cause__ is None:
            # Its own bound: SQLite was not even asked, and reading a full ledger again takes long.
            self._parts.let_go()
        else:
            self.must_reload = True

    def end(self) -> None:
        """Something was taken in again."""
        self._rest_s = REST_S

    def is_ready(self) -> bool:
        """Whether memory and ledger agree; reads the ledger again where they may not.

        Raises:
            LedgerDamagedError: It can't be trusted any more: that was found twice.
        """
        if self.left_s > 0:
            return False
        if not self.must_reload:
            return True
        try:
            self._parts.state.ledger.reopen(is_checked=self._is_suspect)
            self._parts.reload()
        except LedgerError as error:
            is_damaged = isinstance(error, LedgerDamagedError)
            if is_damaged and self._is_suspect:
                raise
            self._is_suspect = self._is_suspect or is_damaged
            self._rests_until_s = time.monotonic() + self._rest_s
            self._teller.tell("ledger_not_read", str(error), level=logging.ERROR)
            return False
        self.must_reload = self._is_suspect = False
        return True
