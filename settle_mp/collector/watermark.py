"""The watermark: the highest seal of which anything may have been sent, outside the database.

SQLite opens a file whose log lost its end without a word, and a copy from yesterday as well. What was sent
since would then be sent again, under other keys.

Rule L6: the mark is on the disk before a batch of its seal is handed out; a ledger behind it is damaged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.collector import sidefile
from settle_mp.collector.ledger_error import LedgerDamagedError, ledger_error

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.collector.database import Database


class Watermark:
    """The mark of one ledger."""

    def __init__(self, folder: Path, database: Database, ledger_id: bytes) -> None:
        self._folder = folder
        self._database = database
        self._id = ledger_id
        self._sealed = 0
        self._written = -1
        self._is_rising = False

    def compare(self) -> None:
        """Compare the ledger with what was written of it.

        Raises:
            LedgerDamagedError: It is older than that, or another one.
        """
        self._sealed = self._read_sealed()
        asides = sidefile.aside_ids(self._folder)
        if self._id in asides:
            raise LedgerDamagedError("it was put aside before")
        mark = sidefile.read_mark(self._folder)
        if mark is None or mark.ledger in asides:
            return
        if mark.ledger != self._id:
            msg = f"it is not ledger {mark.ledger.hex()}, which this folder had"
            raise LedgerDamagedError(msg)
        if mark.seal_number > self._sealed:
            msg = f"it ends with seal {self._sealed}, and seal {mark.seal_number} had been written"
            raise LedgerDamagedError(msg)
        self._written = mark.seal_number

    def expect(self) -> None:
        """A seal is being written: look at its number once that is committed."""
        self._is_rising = True

    def renew(self) -> None:
        """Read the ledger's number again, after it was opened anew."""
        self._sealed = self._read_sealed()
        self.write()

    def write(self) -> None:
        """Write the mark where the ledger is above it.

        Raises:
            LedgerError: It could not be written.
        """
        if self._is_rising:
            self._is_rising = False
            self._sealed = self._read_sealed()
        if self._written >= self._sealed:
            return
        try:
            sidefile.write_mark(self._folder, sidefile.Mark(self._id, self._sealed))
        except OSError as error:
            raise ledger_error(error) from error
        self._written = self._sealed

    def _read_sealed(self) -> int:
        return int(self._database.meta("seal_number"))
