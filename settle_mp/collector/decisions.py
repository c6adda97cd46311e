"""A person's word on held batches, dead letters and residues, as changes of the ledger.

Rule 1: only what is held can be decided about; whatever is under way is the collector's.
Rule D2: a batch in doubt keeps key and bytes, unless a person says that it was not applied.
Rule D3: what goes out again after a refusal goes out under a new key, and what it takes the place of goes in
the same transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.collector import accounts
from settle_mp.collector.batches import Batches, Origin
from settle_mp.collector.dead_letters import DeadLetters
from settle_mp.collector.residues import Residues
from settle_mp.collector.seals import Families, Seals
from settle_mp.core.books import Amount
from settle_mp.core.window import hour_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from settle_mp.collector.batches import Batch, BatchRow
    from settle_mp.collector.database import Database
    from settle_mp.collector.dead_letters import DeadLetter
    from settle_mp.collector.outbox import Outbox
    from settle_mp.collector.roster import Roster
    from settle_mp.core.window import Draft


class Decisions:
    """What a person can do in one ledger; `Ledger.decisions` is the only one there is.

    Every call raises LedgerError when the ledger can't do it, LookupError for what is not there, and
    ValueError for what may not be done; nothing of it happened then.
    """

    def __init__(
        self, database: Database, roster: Roster, outbox: Outbox, expect_seal: Callable[[], None]
    ) -> None:
        self._database = database
        self._roster = roster
        self._outbox = outbox
        self._expect_seal = expect_seal
        self._batches = Batches(database)
        self._seals = Seals(database)
        self._families = Families(database)
        self._letters = DeadLetters(database)
        self._residues = Residues(database)

    def held(self, batch_id: int) -> Batch:
        """One held batch."""
        return self._batches.load(self._held(batch_id))

    def letter(self, letter_id: int) -> DeadLetter:
        """One dead letter."""
        return self._letters.find(letter_id)

    @property
    def last_letter(self) -> int:
        """The highest id that a dead letter ever had; 0 before the first."""
        return self._letters.last_id

    @property
    def last_held(self) -> int:
        """The highest id of a held batch; 0 when there is none."""
        return int(self._database.value("SELECT COALESCE(MAX(id), 0) FROM batches WHERE state = 'held'"))

    # --- Held batches ---

    def retry(self, batch_id: int, now_s: float) -> None:
        """It may be sent once more, with its key and bytes."""
        with self._database.transaction():
            row = self._sound(batch_id)
            self._take_up(row)
            self._batches.write(row._replace(state="ordered", not_before_s=now_s, changed_s=now_s))

    def renew(self, batch_id: int, now_s: float) -> Batch:
        """It was not applied: a batch like it goes out under a new key, with no doubt about it."""
        with self._database.transaction():
            row = self._sound(batch_id)
            self._take_up(row)
            accounts.move(self._database, row.bucket, "pending", row.amount)
            draft = self._batches.draft(row)
            self._batches.remove(row)
            origin = Origin(
                seal=row.seal,
                oldest_s=row.oldest_s,
                root=row.root,
                numbers=row.numbers,
                at_s=now_s,
                tries=row.tries,
                reason=row.reason,
            )
            return self._batches.load(self._batches.add(draft, origin))

    def confirm(self, batch_id: int, now_s: float) -> None:
        """It was applied."""
        with self._database.transaction():
            self._held(batch_id)
            self._outbox.settle(batch_id, now_s)

    def discard(self, batch_id: int, now_s: float) -> None:
        """It is never sent again."""
        with self._database.transaction():
            row = self._held(batch_id)
            accounts.move(self._database, row.bucket, "discarded", row.amount)
            accounts.receipt(self._database, "discarded", hour_of(now_s), row.amount)
            self._batches.remove(row)
            self._families.discard(row)
            self._seals.change(row.seal, by=-1)

    # --- Dead letters ---

    def replay(
        self, letters: Sequence[tuple[DeadLetter, Draft]], now_s: float
    ) -> tuple[int, tuple[int, ...]]:
        """Send dead letters again, each as a batch of its own in a new seal.

        Returns:
            The seal's number, and the batches' ids.
        """
        with self._database.transaction():
            for letter, draft in letters:
                self._letters.take(letter, "pending")
                # A single event was refused before its quantity was known.
                more = Amount(draft.events_count, draft.quantity) - letter.amount
                if more != Amount():
                    self._roster.appraise(letter.producer, more.quantity)
                    accounts.carry(self._database, "committed", more)
                    accounts.carry(self._database, "pending", more)
            number, ids = self._outbox.add_seal([draft for _, draft in letters], {}, now_s, now_s)
            self._expect_seal()
        return number, tuple(ids)

    def drop(self, letter_id: int, now_s: float) -> None:
        """A dead letter is given up."""
        with self._database.transaction():
            letter = self._letters.find(letter_id)
            self._letters.take(letter, "discarded")
            accounts.receipt(self._database, "discarded", hour_of(now_s), letter.amount)

    # --- Residues ---

    def acknowledge(self, residue_id: int, now_s: float) -> None:
        """A loss that was named is known, and no fault of the books any more."""
        self._residues.acknowledge(residue_id, now_s)

    def _held(self, batch_id: int) -> BatchRow:
        row = self._batches.find(batch_id)
        if row.state != "held":
            msg = f"batch {batch_id} is not held (it is {row.state})"
            raise ValueError(msg)
        return row

    def _sound(self, batch_id: int) -> BatchRow:
        row = self._held(batch_id)
        if not self._batches.is_sound(row):
            msg = f"batch {batch_id} fails its checksum and can't be sent: confirm or discard it"
            raise ValueError(msg)
        return row

    def _take_up(self, row: BatchRow) -> None:
        """Flushes and its family wait for it again."""
        self._families.order(row)
        self._seals.change(row.seal, failed_count=-row.events)
