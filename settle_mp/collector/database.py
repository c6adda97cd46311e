"""The ledger's file: one SQLite connection, its transactions, and the errors that leave it."""

from __future__ import annotations


class LedgerError(Exception):
    """The ledger could not do what was asked, and nothing of it happened.

    Attributes:
        is_full: The disk or `ledger_bytes_max` is full; the same call may work once something was settled.
        is_outcome_unknown: COMMIT itself failed. The file may hold the change or not, every further call
            is refused, and the caller must `reopen()` the ledger and load again what it holds.
    """

    def __init__(self, message: str, *, is_full: bool = False, is_outcome_unknown: bool = False) -> None:
        super().__init__(message)
        self.is_full = is_full
        self.is_outcome_unknown = is_outcome_unknown


class LedgerDamagedError(LedgerError):
    """The ledger's file can't be trusted: no database, a row that fails its check, older than it was."""
