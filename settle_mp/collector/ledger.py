"""The ledger: all that the collector answers for, in one SQLite file that one thread owns.

Rule L1: every change is one transaction; on any error nothing of it happened.
Rule L2: frames are stored as they came, and past a bound replaced by the sums of their windows.
Rule L6: the highest seal's number is in a side file before anything of that seal is sent.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from settle_mp.collector.database import LedgerDamagedError, LedgerError
from settle_mp.collector.frames import Intake, StoredFrame, StoredSum
from settle_mp.collector.outbox import Outbox
from settle_mp.collector.roster import NewProducer, ProducerRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from settle_mp.core.books import Amount
    from settle_mp.core.ticket import Reach, Trouble
    from settle_mp.core.window import Draft, Windows

__all__ = [
    "Intake",
    "Ledger",
    "LedgerDamagedError",
    "LedgerError",
    "NewProducer",
    "Outbox",
    "ProducerRow",
    "SealedSeal",
    "StoredFrame",
    "StoredSum",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSeal:
    """What a sealing made: its number, and the ids of its batches (none when nothing was open)."""

    number: int
    batches: tuple[int, ...]


class Ledger:
    """The ledger of one state folder. Made by `open`; used by one thread.

    Every method raises LedgerError when it can't be done, and then nothing of it happened; after
    `is_outcome_unknown` the caller must `reopen()`. After any LedgerError the caller drops what it
    remembers of the ledger and reads it again (rule L1).
    """

    id: bytes
    key_mode: str
    outbox: Outbox

    @classmethod
    def open(cls, folder: Path, *, ledger_bytes_max: int, now_s: float) -> Ledger:
        """Open the ledger in `<state dir>/ledger`, or make one where none ever was.

        Raises:
            LedgerDamagedError: The file can't be trusted; `lineage.open_or_replace` puts it aside.
            LedgerError: It can't be opened now (rights, space, made by another version); it stays as it is.
        """
        raise NotImplementedError

    @classmethod
    def open_read_only(cls, folder: Path) -> Ledger:
        """Open it for `status`: one snapshot, no checks, whether a collector runs or not."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the file; what was committed stays. May be called again."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Close and open the same file again, after COMMIT failed."""
        raise NotImplementedError

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group calls into one transaction and one fsync; an error in any of them undoes them all."""
        yield

    def set_key_mode(self, key_mode: str) -> None:
        """Bind the ledger to `test` or `live` keys, once.

        Raises:
            ValueError: If it is bound to another mode.
        """
        raise NotImplementedError

    # --- Producers ---

    def producers(self) -> dict[bytes, ProducerRow]:
        """All producers that are not forgotten."""
        raise NotImplementedError

    def introduce(self, producers: Iterable[NewProducer], now_s: float) -> None:
        """Make rows for producers heard of for the first time; known ones stay as they are."""
        raise NotImplementedError

    def mark_gone(self, producers: Iterable[bytes], now_s: float) -> None:
        """Their folders went, or they said goodbye; a later commit or introduction takes it back."""
        raise NotImplementedError

    def record_dropped(self, dropped: Mapping[bytes, Amount]) -> None:
        """Take over the cumulative drops of known producers' headers."""
        raise NotImplementedError

    def forget(self, *, gone_before_s: float) -> list[bytes]:
        """Merge producers that are sealed to their end and went before then into one row (L4).

        Returns:
            Who was forgotten.
        """
        raise NotImplementedError

    def departed(self) -> tuple[int, Amount, Amount]:
        """How many producers were forgotten, what they committed, what they dropped."""
        raise NotImplementedError

    def troubles(self) -> dict[bytes, Trouble]:
        """What producers must be told at their next flush."""
        raise NotImplementedError

    def put_troubles(self, troubles: Mapping[bytes, Trouble]) -> None:
        """Set what these producers must be told."""
        raise NotImplementedError

    def take_trouble(self, producer: bytes) -> None:
        """The producer was told."""
        raise NotImplementedError

    # --- Events ---

    def commit(self, intakes: Sequence[Intake], now_s: float) -> None:
        """Commit runs of records and their producers' positions in one transaction.

        Raises:
            LedgerError: `is_full` at `ledger_bytes_max` or when the disk is; also when a run does not begin
                at its producer's position, which means that the caller's memory ran ahead.
        """
        raise NotImplementedError

    def stored(self) -> Iterator[StoredFrame | StoredSum]:
        """What is committed and not sealed, sums first, then frames in the order in which they came."""
        raise NotImplementedError

    @property
    def raw_bytes(self) -> int:
        """Bytes of the stored frames' bodies: what the next compaction would replace."""
        raise NotImplementedError

    def compact(self, windows: Windows, now_s: float) -> None:
        """Replace the frames by the sums of their windows (L2); other hours' sums are left alone.

        Raises:
            LedgerError: Also when the windows do not hold what the frames and sums hold.
        """
        raise NotImplementedError

    def seal(self, drafts: Sequence[Draft], reaches: Mapping[bytes, Reach], now_s: float) -> SealedSeal:
        """Turn all that is stored into batches, in one transaction; then say so in the side file.

        Within a `transaction()` the side file is written when that ends.

        Raises:
            LedgerError: Also when the drafts do not hold what the frames and sums hold.
        """
        raise NotImplementedError

    def oldest_pending_s(self) -> float | None:
        """When the oldest event was cut that is committed and not confirmed, dead or held (Unix seconds)."""
        raise NotImplementedError

    # --- Books ---

    def totals(self) -> dict[str, Amount]:
        """The running total of `committed` and of each bucket, where it is there."""
        raise NotImplementedError

    def books_rows(self) -> dict[str, Amount]:
        """`committed` and each bucket, added up from their own rows."""
        raise NotImplementedError

    def residues(self) -> list[str]:
        """What stands unexplained: the named residues, and each table that lost or gained a row."""
        raise NotImplementedError

    def add_residue(self, name: str, text: str, now_s: float) -> None:
        """Name something that was destroyed; the same name again replaces the text."""
        raise NotImplementedError

    def in_doubt_ever(self) -> Amount:
        """What was ever in doubt, a batch once a try."""
        raise NotImplementedError

    def counters(self) -> dict[str, int]:
        """Small counts that survive."""
        raise NotImplementedError

    def bump(self, name: str, by: int = 1) -> None:
        """Add to a small count."""
        raise NotImplementedError
