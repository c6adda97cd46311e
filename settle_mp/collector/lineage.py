"""Which ledger a state folder has, which ones it had, and what to do when one can't be trusted.

Rule L3: a ledger that is put aside keeps its id in a side file, so that journals bound to it go on where it
stood; what only it knew is named as a residue of the next one.
Rule L6: a ledger that is behind a journal's header went back in time, and is damaged.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

from settle_mp.collector import sidefile
from settle_mp.collector.birth import COMPANIONS
from settle_mp.collector.checkup import is_there, refuse_unreadable
from settle_mp.collector.ledger import LEDGER_NAME, Ledger
from settle_mp.collector.ledger_error import LedgerDamagedError, LedgerError, ledger_error
from settle_mp.notices import notice
from settle_mp.statedir import StateDir, make_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log: Final = logging.getLogger("settle_mp")

_UNREADABLE: Final = "what it held can't be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """What a producer's header says: taken up to `position` by ledger `ledger`."""

    producer: bytes
    ledger: bytes
    position: int


def put_aside_ids(state_dir: Path) -> frozenset[bytes]:
    """The ids of the ledgers that this folder has put aside as damaged (rule L3)."""
    return sidefile.aside_ids(StateDir(state_dir).ledger)


def put_aside(state_dir: Path, reason: str, now_s: float) -> str:
    """Move the ledger's files into quarantine and remember its id.

    A death in the middle is made good by the next call: until the database itself is moved, its id is known
    as put aside, and nothing opens it.

    Returns:
        The name that it has in the quarantine.

    Raises:
        LedgerError: It can't be moved.
    """
    home = StateDir(state_dir)
    try:
        make_folder(home.quarantine)
        aside = _remember(home, reason, now_s)
        # The database last: without its log it would look like an older ledger that is sound.
        for suffix in (*COMPANIONS, ""):
            source = home.ledger / (LEDGER_NAME + suffix)
            if is_there(source):
                source.rename(home.quarantine / (aside.name + suffix))
        sidefile.sync_folder(home.quarantine)
        sidefile.sync_folder(home.ledger)
    except OSError as error:
        raise ledger_error(error) from error
    return aside.name


def open_or_replace(state_dir: Path, bonds: Iterable[Bond], *, ledger_bytes_max: int, now_s: float) -> Ledger:
    """Open the folder's ledger; put a damaged one aside, and go on with a new one that names the loss.

    Args:
        state_dir: The state folder; the ledger is in its `ledger/`.
        bonds: What the headers of the visible journals say (rule L6).
        ledger_bytes_max: See `Ledger.open`.
        now_s: Unix seconds.

    Raises:
        LedgerError: The ledger can't be opened now, and is not damaged.
    """
    folder = StateDir(state_dir).ledger
    try:
        make_folder(folder)
    except OSError as error:
        raise ledger_error(error) from error
    try:
        ledger = _open(folder, bonds, ledger_bytes_max=ledger_bytes_max, now_s=now_s)
    except LedgerDamagedError as error:
        name = put_aside(state_dir, str(error), now_s)
        mend = f"look at quarantine/{name}; then `settle-mp residue acknowledge`"
        extra = notice("ledger_put_aside", str(error), mend=mend)
        log.error("ledger_put_aside", extra=extra)  # noqa: TRY400  the traceback says no more than the reason
        ledger = Ledger.open(folder, ledger_bytes_max=ledger_bytes_max, now_s=now_s)
    try:
        _tell(ledger, folder, now_s)
    except BaseException:
        ledger.close()
        raise
    return ledger


def _open(folder: Path, bonds: Iterable[Bond], *, ledger_bytes_max: int, now_s: float) -> Ledger:
    """Open it; damage is only what is found twice, and all can be read in between."""
    bonds = list(bonds)
    try:
        return _open_once(folder, bonds, ledger_bytes_max=ledger_bytes_max, now_s=now_s)
    except LedgerDamagedError:
        try:
            refuse_unreadable(folder / LEDGER_NAME)
        except OSError as error:
            raise ledger_error(error) from error
    return _open_once(folder, bonds, ledger_bytes_max=ledger_bytes_max, now_s=now_s)


def _open_once(folder: Path, bonds: list[Bond], *, ledger_bytes_max: int, now_s: float) -> Ledger:
    ledger = Ledger.open(folder, ledger_bytes_max=ledger_bytes_max, now_s=now_s)
    try:
        _refuse_behind(ledger, bonds)
    except LedgerError:
        ledger.close()
        raise
    return ledger


def _refuse_behind(ledger: Ledger, bonds: Iterable[Bond]) -> None:
    rows = ledger.producers()
    for bond in bonds:
        row = rows.get(bond.producer)
        position = row.position if row else 0
        if bond.ledger == ledger.id and bond.position > position:
            msg = (
                f"it ends at position {position} of producer {bond.producer.hex()}, and had taken all up to "
                f"{bond.position}"
            )
            raise LedgerDamagedError(msg)


def _remember(home: StateDir, reason: str, now_s: float) -> sidefile.Aside:
    asides = sidefile.read_asides(home.ledger)
    ledger_id, held = _glimpse(home.ledger)
    mark = sidefile.read_mark(home.ledger)
    ids = {each.hex() for each in (ledger_id, mark.ledger if mark else None) if each is not None}
    for each in asides:
        # Begun before a death: its log may lie in the quarantine already, under that name.
        if not each.is_told and ids & set(each.ids) and not (home.quarantine / each.name).exists():
            return each
    known = {each for aside in asides for each in aside.ids}
    aside = sidefile.Aside(
        ids=tuple(sorted(ids - known)),
        name=_free_name(home.quarantine, now_s),
        reason=reason,
        held=held,
        at_s=now_s,
    )
    sidefile.write_asides(home.ledger, [*asides, aside])
    return aside


def _glimpse(folder: Path) -> tuple[bytes | None, str]:
    """The id of a ledger that can't be trusted, and what it held by its own account."""
    try:
        ledger = Ledger.open_read_only(folder)
    except (LedgerError, ValueError):
        return None, _UNREADABLE
    try:
        totals = ledger.totals()
        held = ", ".join(f"{totals[name]} {name}" for name in ("pending", "in_doubt", "dead_lettered"))
    except (LedgerError, KeyError, ValueError, ArithmeticError):
        return ledger.id, _UNREADABLE
    else:
        return ledger.id, f"it held, by its own account, {held}"
    finally:
        ledger.close()


def _free_name(quarantine: Path, now_s: float) -> str:
    moment = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    taken = set(os.listdir(quarantine))  # noqa: PTH208  names are what is wanted
    number, name = 1, f"ledger-{moment}.db"
    while name in taken:
        number, name = number + 1, f"ledger-{moment}-{number + 1}.db"
    return name


def _tell(ledger: Ledger, folder: Path, now_s: float) -> None:
    """Name each ledger that was put aside as a residue, once; also after a death between the two files."""
    asides = sidefile.read_asides(folder)
    untold = [aside for aside in asides if not aside.is_told]
    if not untold:
        return
    for aside in untold:
        text = f"ledger {'/'.join(aside.ids) or '?'} was put aside as quarantine/{aside.name}: {aside.reason}"
        ledger.add_residue(f"ledger {aside.name}", f"{text}; {aside.held}", now_s)
    try:
        sidefile.write_asides(folder, [replace(aside, is_told=True) for aside in asides])
    except OSError as error:
        raise ledger_error(error) from error
