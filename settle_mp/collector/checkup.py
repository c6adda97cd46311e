"""What must hold of a ledger's file before anything in it is believed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from settle_mp.collector import accounts, schema, sidefile
from settle_mp.collector.birth import COMPANIONS
from settle_mp.collector.ledger_error import LedgerDamagedError

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.collector.database import Database

#: A bad row of these does not spoil the ledger: the outbox holds that one batch back.
_FORGIVEN = (schema.BATCHES, schema.BODIES)

#: Where in the head of the file the versions for writing and for reading end, and the highest of either.
_VERSIONS_END: Final = 20
_FORMAT_MAX: Final = 2
_READ_BYTES: Final = 1024 * 1024


def check(database: Database) -> None:
    """Read the whole file.

    Raises:
        LedgerDamagedError: It is not as it was written.
    """
    found = database.value("PRAGMA quick_check(1)")
    if found != "ok":
        msg = f"SQLite finds {found}"
        raise LedgerDamagedError(msg)
    for table in schema.TABLES:
        if table not in _FORGIVEN and not database.is_sound(table):
            msg = f"a row of {table.name} fails its check"
            raise LedgerDamagedError(msg)
    missing = accounts.missing_rows(database)
    if missing:
        raise LedgerDamagedError(missing[0])


def is_there(path: Path) -> bool:
    """Whether there is such a file: `Path.exists` says no as well where that can't be told (Python 3.14).

    Raises:
        OSError: It can't be told.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return False
    return True


def refuse_unreadable(path: Path) -> None:
    """Read the whole file and its companions, as SQLite may not say that it could not.

    Raises:
        OSError: They can't be read.
    """
    for each in (path, *(path.with_name(path.name + suffix) for suffix in COMPANIONS)):
        if is_there(each):
            with each.open("rb", buffering=0) as file:
                while file.read(_READ_BYTES):
                    pass


def refuse_unwritable(path: Path) -> None:
    """Make sure that SQLite will not take the file for one of a later SQLite, which it would only read.

    Raises:
        LedgerDamagedError: The file format's versions are none that there are (sqlite.org/fileformat.html).
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_VERSIONS_END)
    if len(head) < _VERSIONS_END or max(head[_VERSIONS_END - 2 :]) > _FORMAT_MAX:
        raise LedgerDamagedError("it has no head of a database")


def refuse_lost(path: Path) -> None:
    """Make sure that a ledger that is not there never was.

    Raises:
        LedgerDamagedError: It was lost. A log that lay around would become part of the next one as well.
        OSError: That can't be told.
    """
    mark = sidefile.read_mark(path.parent)
    if mark is not None and mark.ledger not in sidefile.aside_ids(path.parent):
        msg = f"the file of ledger {mark.ledger.hex()} is gone"
        raise LedgerDamagedError(msg)
    if any(is_there(path.with_name(path.name + suffix)) for suffix in COMPANIONS):
        raise LedgerDamagedError("its file is gone, and its log is left")
