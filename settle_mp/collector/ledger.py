"""The ledger: all that the collector answers for, in one SQLite file that one thread owns.

Rule L1: every change is one transaction; on any error nothing of it happened.
Rule L3: the ledger has an id, by which journals know who took their events.
Rule L6: the highest seal's number is in a side file before anything of that seal is sent, and a ledger that
lags behind that file is not opened.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.collector import accounts, checkup, schema
from settle_mp.collector.birth import make_ledger
from settle_mp.collector.bound import Bound
from settle_mp.collector.database import Database
from settle_mp.collector.dead_letters import DeadLetters
from settle_mp.collector.decisions import Decisions
from settle_mp.collector.frames import Frames, Intake, StoredFrame, StoredSum, refuse_difference
from settle_mp.collector.ledger_error import LedgerDamagedError, LedgerError, ledger_error
from settle_mp.collector.outbox import Outbox
from settle_mp.collector.reserve import Reserve
from settle_mp.collector.residues import Residues
from settle_mp.collector.roster import NewProducer, ProducerRow, Roster
from settle_mp.collector.watermark import Watermark
from settle_mp.core.books import Amount, amount_of
from settle_mp.core.window import hour_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from settle_mp.collector.residues import Residue
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

LEDGER_NAME: Final = "ledger.db"
RESERVE_NAME: Final = "reserve"
_ID_BYTES: Final = 16


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

    def __init__(self, folder: Path, database: Database, *, ledger_bytes_max: int = 0) -> None:
        self._path = folder / LEDGER_NAME
        self._database = database
        self._roster = Roster(database)
        self._frames = Frames(database)
        self._dead_letters = DeadLetters(database)
        self._residues = Residues(database)
        self.outbox: Outbox = Outbox(database, self._roster)
        self.id: bytes = bytes.fromhex(database.meta("id"))
        self._watermark = Watermark(folder, database, self.id)
        self.decisions: Decisions = Decisions(database, self._roster, self.outbox, self._watermark.expect)
        self._reserve = Reserve(folder / RESERVE_NAME)
        self._bound = Bound(database, self._reserve, ledger_bytes_max)

    @classmethod
    def open(cls, folder: Path, *, ledger_bytes_max: int, now_s: float) -> Ledger:
        """Open the ledger in `<state dir>/ledger`, or make one where none ever was.

        Raises:
            LedgerDamagedError: The file can't be trusted; `lineage.open_or_replace` puts it aside.
            LedgerError: It can't be opened now (rights, space, made by another version); it stays as it is.
        """
        path = folder / LEDGER_NAME
        Reserve(folder / RESERVE_NAME).lend()
        try:
            if not checkup.is_there(path):
                checkup.refuse_lost(path)
                make_ledger(path, os.urandom(_ID_BYTES), now_s)
            checkup.refuse_unwritable(path)
        except OSError as error:
            raise ledger_error(error) from error
        database = Database(path)
        try:
            checkup.check(database)
            ledger = cls(folder, database, ledger_bytes_max=ledger_bytes_max)
            ledger._take_up()
        except BaseException:
            database.close()
            raise
        return ledger

    @classmethod
    def open_read_only(cls, folder: Path) -> Ledger:
        """Open it for `status`: one snapshot, no checks, whether a collector runs or not."""
        database = Database(folder / LEDGER_NAME, is_read_only=True)
        try:
            return cls(folder, database)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the file; what was committed stays. May be called again."""
        self._database.close()

    def reopen(self, *, is_checked: bool = False) -> None:
        """Close and open the same file again, after COMMIT failed.

        Args:
            is_checked: Whether to read the whole file as at a start, since it looked damaged.

        Raises:
            LedgerDamagedError: It is not the same file any more.
        """
        self._database.close()
        try:
            is_there = checkup.is_there(self._path)
        except OSError as error:
            raise ledger_error(error) from error
        if not is_there:
            raise LedgerDamagedError("its file is gone")
        self._database.open()
        if self._database.meta("id") != self.id.hex():
            raise LedgerDamagedError("another ledger took its place")
        if is_checked:
            checkup.check(self._database)
        self._secure()
        self._watermark.renew()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Group calls into one transaction and one fsync; an error in any of them undoes them all."""
        with self._database.transaction():
            yield

    @property
    def key_mode(self) -> str:
        """The mode of the keys that it is bound to, `test` or `live`; empty while it is bound to none."""
        return self._database.meta("key_mode")

    def set_key_mode(self, key_mode: str) -> None:
        """Bind the ledger to `test` or `live` keys, once.

        Raises:
            ValueError: If it is bound to another mode.
        """
        bound = self.key_mode
        if bound not in {"", key_mode}:
            msg = f"key_mode must be {bound!r}, which this ledger is bound to, not {key_mode!r}"
            raise ValueError(msg)
        if bound != key_mode:
            with self._database.transaction():
                self._database.set_meta("key_mode", key_mode)

    # --- Producers ---

    def producers(self) -> dict[bytes, ProducerRow]:
        """All producers that are not forgotten."""
        return self._roster.all()

    def introduce(self, producers: Iterable[NewProducer], now_s: float) -> None:
        """Make rows for producers heard of for the first time; known ones stay as they are."""
        self._bound.refuse_when_full()
        self._roster.introduce(producers, now_s)

    def mark_gone(self, producers: Iterable[bytes], now_s: float) -> None:
        """Their folders went, or they said goodbye; a later commit or introduction takes it back."""
        self._roster.mark_gone(producers, now_s)

    def record_dropped(self, dropped: Mapping[bytes, Amount]) -> None:
        """Take over the cumulative drops of known producers' headers."""
        self._roster.record_dropped(dropped)

    def forget(self, *, gone_before_s: float) -> list[bytes]:
        """Merge producers that are sealed to their end and went before then into one row (L4).

        Receipts of single hours are merged with it when they are a month older than that.

        Returns:
            Who was forgotten.
        """
        self._reserve.keep()
        with self._database.transaction():
            accounts.merge_receipts(self._database, hour_of(gone_before_s))
            return self._roster.forget(gone_before_s)

    def departed(self) -> tuple[int, Amount, Amount]:
        """How many producers were forgotten, what they committed, what they dropped."""
        return self._roster.departed()

    def troubles(self) -> dict[bytes, Trouble]:
        """What producers must be told at their next flush."""
        return self._roster.troubles()

    def put_troubles(self, troubles: Mapping[bytes, Trouble]) -> None:
        """Set what these producers must be told."""
        self._roster.put_troubles(troubles)

    def take_trouble(self, producer: bytes) -> None:
        """The producer was told."""
        self._roster.take_trouble(producer)

    # --- Events ---

    def commit(self, intakes: Sequence[Intake], now_s: float) -> None:
        """Commit runs of records and their producers' positions in one transaction.

        Raises:
            LedgerError: `is_full` at `ledger_bytes_max` or when the disk is; also when a run does not begin
                at its producer's position, which means that the caller's memory ran ahead.
        """
        self._bound.refuse_when_full()
        with self._database.transaction(is_intake=True):
            accounts.carry(self._database, "committed", self._roster.advance(intakes, now_s))
            accounts.carry(self._database, "pending", self._frames.add(intakes))
            self._dead_letters.add_invalid(intakes, now_s)

    def stored(self) -> Iterator[StoredFrame | StoredSum]:
        """What is committed and not sealed, sums first, then frames in the order in which they came."""
        return self._frames.stored()

    @property
    def raw_bytes(self) -> int:
        """Bytes of the stored frames' bodies: what the next compaction would replace."""
        return self._frames.raw_bytes

    def compact(self, windows: Windows, now_s: float) -> None:  # noqa: ARG002  every change has its time
        """Replace the frames by the sums of their windows (L2); other hours' sums are left alone.

        Raises:
            LedgerError: Also when the windows do not hold what the frames and sums hold.
        """
        with self._database.transaction():
            self._frames.compact(windows)

    def seal(self, drafts: Sequence[Draft], reaches: Mapping[bytes, Reach], now_s: float) -> SealedSeal:
        """Turn all that is stored into batches, in one transaction; then say so in the side file.

        Within a `transaction()` the side file is written when that ends.

        Raises:
            LedgerError: Also when the drafts do not hold what the frames and sums hold.
        """
        with self._database.transaction():
            known = amount_of(Amount(draft.events_count, draft.quantity) for draft in drafts)
            refuse_difference("a seal", known, self._frames.amount())
            oldest_s = self._frames.oldest_s()
            # First away, then anew: the pages are used again, also when the disk is full.
            self._frames.clear()
            self._roster.seal()
            if not drafts:
                return SealedSeal(number=int(self._database.meta("seal_number")), batches=())
            start_s = now_s if oldest_s is None else oldest_s
            number, batches = self.outbox.add_seal(drafts, reaches, start_s, now_s)
            self._watermark.expect()
        return SealedSeal(number=number, batches=tuple(batches))

    def oldest_pending_s(self) -> float | None:
        """When the oldest event was cut that is committed and not confirmed, dead or held (Unix seconds)."""
        batch_s = self._database.value("SELECT MIN(oldest_s) FROM batches WHERE state != 'held'")
        times = [at_s for at_s in (self._frames.oldest_s(), batch_s) if at_s is not None]
        return min(times, default=None)

    # --- Books ---

    def totals(self) -> dict[str, Amount]:
        """The running total of `committed` and of each bucket, where it is there."""
        totals = accounts.totals(self._database)
        totals.pop(schema.IN_DOUBT_EVER, None)
        return totals

    def books_rows(self) -> dict[str, Amount]:
        """`committed` and each bucket, added up from their own rows."""
        return accounts.bucket_rows(self._database)

    def residues(self) -> list[str]:
        """What stands in the way of balance: open residues, and each table that lost or gained a row."""
        opened = [residue.text for residue in self._residues.read() if residue.is_open]
        return [*opened, *accounts.row_faults(self._database)]

    def named_residues(self) -> list[Residue]:
        """All that was ever destroyed, acknowledged or not, in the order in which it came."""
        return self._residues.read()

    def add_residue(self, name: str, text: str, now_s: float) -> None:
        """Name something that was destroyed; another text takes the place of the one under that name."""
        self._residues.add(name, text, now_s)

    def in_doubt_ever(self) -> Amount:
        """What was ever in doubt, a batch once a try."""
        return accounts.totals(self._database)[schema.IN_DOUBT_EVER]

    def counters(self) -> dict[str, int]:
        """Small counts that survive."""
        return accounts.counters(self._database)

    def bump(self, name: str, by: int = 1) -> None:
        """Add to a small count."""
        with self._database.transaction():
            accounts.set_counter(self._database, name, self.counters().get(name, 0) + by)

    def _take_up(self) -> None:
        """Compare with the side file, and be ready to write."""
        self._watermark.compare()
        self._secure()
        self._watermark.write()
        self._reserve.keep()
        self._database.at_boundary = self._watermark.write
        self._database.on_full = self._reserve.release

    def _secure(self) -> None:
        """Have all that is read on the disk before anybody is told of it.

        A commit whose sync failed, or was cut off by a death, may be in the log all the same, and another
        sync of the log need not bring it to the disk: after a failed one the kernel takes its pages for
        clean. What is written into the file is new to it.
        """
        try:
            self._database.cut_log()
        except LedgerError as error:
            # For want of room nothing was committed that is not on the disk.
            if not error.is_full:
                raise
