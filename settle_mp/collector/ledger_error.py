"""The errors of the ledger, and which of SQLite's and the system's become which.

Rule: damaged is only what no other moment and no other machine could read; whatever may pass leaves the file
where it is.
"""

from __future__ import annotations

import sqlite3
from errno import EDQUOT, ENOSPC
from typing import Final

# What SQLite says when the machine is at fault and not the file.
_OUTER_CAUSES: Final = (
    "unable to open",
    "locked",
    "locking protocol",
    "disk I/O",
    "is full",
    "memory",
    "readonly",
    "interrupted",
)
_FULL: Final = "database or disk is full"


#: What a statement can raise. Python fails to decode the messages of a damaged file that quote it.
SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)


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
    """The ledger's file can't be trusted: no database, a row that fails its check, older than it was.

    Or it could not be read just now: SQLite says "malformed" of an EIO as well (SQLITE_IOERR_CORRUPTFS, which
    its statements make SQLITE_CORRUPT). So damage is only what is found twice.
    """


def ledger_error(error: Exception) -> LedgerError:
    """What SQLite or the system raised, as the ledger's own error."""
    if isinstance(error, LedgerError):
        return error
    if isinstance(error, OSError):
        return LedgerError(str(error), is_full=error.errno in {ENOSPC, EDQUOT})
    text = str(error)
    # Either message quotes what is in the file, which is the user's data.
    if isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in text:
        return LedgerDamagedError("a text in it is not UTF-8")
    if type(error) is sqlite3.DatabaseError:
        return LedgerDamagedError(text)
    return LedgerError(text, is_full=_FULL in text)


def opening_error(error: Exception) -> LedgerError:
    """The same while a file is opened, when also what is no SQL of ours means that it is no ledger."""
    text = str(error)
    if isinstance(error, OSError) or any(cause in text for cause in _OUTER_CAUSES):
        return ledger_error(error)
    return LedgerDamagedError("a text in it is not UTF-8" if isinstance(error, UnicodeDecodeError) else text)
