"""The ledger's bound: up to where it takes in, its own and a lower one while the disk is full.

What empties it may go above either for a while.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from settle_mp.collector.ledger_error import LedgerError

if TYPE_CHECKING:
    from settle_mp.collector.database import Database
    from settle_mp.collector.reserve import Reserve

#: What the ledger may hold to take in more while the reserve is lent: that much more of its file, and a log
#: until it is written back, fit into the reserve together.
LENT_BYTES_MAX: Final = 4 * 1024 * 1024


class Bound:
    """The bound of one ledger."""

    def __init__(self, database: Database, reserve: Reserve, ledger_bytes_max: int) -> None:
        self._database = database
        self._reserve = reserve
        self._ledger_bytes_max = ledger_bytes_max

    def refuse_when_full(self) -> None:
        """Keep intake below the bound.

        How much is to be taken in is of no weight: what is more than a small bound would never come in.

        Raises:
            LedgerError: With `is_full`.
        """
        bytes_max, bound = self._ledger_bytes_max, "ledger_bytes_max is"
        if self._reserve.is_lent:
            self._reserve.keep()
        if self._reserve.is_lent and bytes_max > LENT_BYTES_MAX:
            # What came in now would take the room of what is to go out.
            bytes_max, bound = LENT_BYTES_MAX, "while the disk is full it takes in below"
        if self._database.used_bytes() < bytes_max:
            return
        # Commits cut the log back, and there are none while intake is refused.
        self._database.cut_log()
        used_bytes = self._database.used_bytes()
        if used_bytes >= bytes_max:
            msg = f"the ledger holds {used_bytes} bytes; {bound} {bytes_max}"
            raise LedgerError(msg, is_full=True)
