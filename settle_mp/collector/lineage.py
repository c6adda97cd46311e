"""Which ledger a state folder has, which ones it had, and when one can't be trusted (rules L3 and L6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from settle_mp.collector.ledger import Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Bond:
    """What a producer's header says: taken up to `position` by ledger `ledger`."""

    producer: bytes
    ledger: bytes
    position: int


def put_aside_ids(state_dir: Path) -> frozenset[bytes]:
    """The ids of the ledgers that this folder has put aside as damaged (rule L3)."""
    raise NotImplementedError


def put_aside(state_dir: Path, reason: str, now_s: float) -> str:
    """Move the ledger's files into quarantine and remember its id. Returns the name it has there."""
    raise NotImplementedError


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
    raise NotImplementedError
