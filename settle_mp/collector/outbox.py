"""The outbox: sealed batches until the upstream has answered for them, and the dead letters.

Rule D1: a batch is `attempting` in the ledger before the first byte of each POST.
Rule D2: a batch that was in doubt once stays so: the same key, the same bytes, whole, or a person decides.
Rule D3: what is sent under a new key takes the place of what was refused in one transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from settle_mp.collector import accounts, schema
from settle_mp.collector.batches import Batch, Batches, BatchRow, Origin, State
from settle_mp.collector.dead_letters import DeadLetter, DeadLetters
from settle_mp.collector.seals import Families, Seals
from settle_mp.core.outcome import INTERRUPTED
from settle_mp.core.window import hour_of, join_rows, rows_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from settle_mp.collector.database import Database
    from settle_mp.collector.roster import Roster
    from settle_mp.core.books import Amount
    from settle_mp.core.family import Family
    from settle_mp.core.ticket import Reach, Seal, Trouble
    from settle_mp.core.window import Draft

__all__ = ["Batch", "DeadLetter", "Outbox", "State"]

#: No batch waits longer by itself; one that would was put off before the clock was set back (seconds).
WAIT_MAX_S: Final = 7200.0
#: Which batches wait for their time.
_WAITS: Final = "state IN ('ready', 'ordered')"


class Outbox:
    """The batches and dead letters of one ledger; `Ledger.outbox` is the only one there is.

    Every call raises LedgerError when the ledger can't do it; nothing of it happened then. A batch id that
    is not there (any more) is a LookupError, a step that D1 or D2 forbids a ValueError.
    """

    def __init__(self, database: Database, roster: Roster) -> None:
        self._database = database
        self._roster = roster
        self._batches = Batches(database)
        self._seals = Seals(database)
        self._families = Families(database)
        self._dead_letters = DeadLetters(database)

    # --- Reading ---

    def due(self, now_s: float, limit: int) -> list[Batch]:
        """The batches that may be sent now, oldest first; one that fails its checksum is held instead."""
        rest = f"WHERE {_WAITS} AND (not_before_s <= ? OR not_before_s > ?) ORDER BY id LIMIT ?"
        return self._batches.load_sound(rest, (now_s, now_s + WAIT_MAX_S, limit), now_s)

    def next_due_s(self) -> float | None:
        """When the next batch may be sent (Unix seconds); None when none waits."""
        sql = f"SELECT MIN(not_before_s) FROM batches WHERE {_WAITS}"  # noqa: S608  our own text
        at_s: float | None = self._database.value(sql)
        return at_s

    def get(self, batch_id: int) -> Batch:
        """One batch."""
        return self._batches.load(self._batches.find(batch_id))

    def held(self, limit: int = 1000, *, after: int = 0) -> list[Batch]:
        """Batches that a person decides about, from the id behind `after` on."""
        return self._load("WHERE state = 'held' AND id > ? ORDER BY id LIMIT ?", (after, limit))

    def family(self, root: int) -> Family:
        """What is known of a family; all zeros when none of it is left, or it was never divided."""
        return self._families.get(root)

    def unsettled_by_seal(self) -> dict[int, set[int]]:
        """The batches of each seal that a flush waits for: all but the held ones."""
        found: dict[int, set[int]] = {}
        for number, batch_id in self._database.rows("SELECT seal, id FROM batches WHERE state != 'held'"):
            found.setdefault(number, set()).add(batch_id)
        return found

    def seals(self) -> list[Seal]:
        """The seals with their reaches and the batches that a flush waits for, to load at start."""
        return self._seals.select("ORDER BY number", (), self.unsettled_by_seal())

    def seal(self, number: int) -> Seal | None:
        """One seal with the batches that a flush waits for; None when it has no batches left."""
        rows = self._database.rows("SELECT id FROM batches WHERE seal = ? AND state != 'held'", (number,))
        unsettled = {number: {batch_id for (batch_id,) in rows}}
        found = self._seals.select("WHERE number = ?", (number,), unsettled)
        return found[0] if found else None

    def amounts(self) -> dict[State, tuple[int, Amount]]:
        """How many batches are in each state, and what they hold; states without any are left out."""
        sql = "SELECT state, COUNT(*) FROM batches GROUP BY state ORDER BY state"
        return {
            state: (count, accounts.amount_in(self._database, schema.BATCHES, f"state = '{state}'"))
            for state, count in self._database.rows(sql)
        }

    def dead_letters(self, limit: int = 1000, *, after: int = 0) -> list[DeadLetter]:
        """Dead letters in the order in which they came, from the id behind `after` on."""
        return self._dead_letters.read(limit, after)

    # --- What becomes of a batch ---

    def add_seal(
        self, drafts: Sequence[Draft], reaches: Mapping[bytes, Reach], oldest_s: float, now_s: float
    ) -> tuple[int, list[int]]:
        """Write a seal and its batches. Returns its number and theirs."""
        number = self._database.next_number("seal_number")
        rows = self._batches.add_many(drafts, Origin(seal=number, oldest_s=oldest_s, at_s=now_s))
        self._seals.add(number, len(rows), reaches)
        return number, [row.id for row in rows]

    def mark_attempting(self, ids: Iterable[int], now_s: float) -> None:
        """Say that these are about to be sent; call it before the first byte (D1)."""
        with self._database.transaction():
            for batch_id in ids:
                row = self._batches.find(batch_id)
                if row.state not in {"ready", "ordered"}:
                    msg = f"batch {batch_id} is {row.state} and can't be sent"
                    raise ValueError(msg)
                row = row._replace(
                    state="attempting", tries=row.tries + 1, attempted_s=now_s, changed_s=now_s
                )
                self._batches.write(row)

    def recover(self, now_s: float, *, in_flight: Collection[int] = ()) -> list[Batch]:
        """Put what was being sent when we stopped in doubt (D1), except what a sender still works on."""
        self._batches.hold_unsound_rows(now_s)
        with self._database.transaction():
            stopped = self._batches.select("WHERE state = 'attempting' ORDER BY id")
            rows = [
                self._changed(self._doubted(row), "ready", INTERRUPTED.reason, now_s)
                for row in stopped
                if row.id not in in_flight
            ]
            # Read before COMMIT, here and below: an error behind it would look as if nothing had happened.
            return [self._batches.load(row) for row in rows]

    def settle(self, batch_id: int, now_s: float) -> None:
        """The upstream has accepted it."""
        with self._database.transaction():
            row = self._batches.find(batch_id)
            accounts.move(self._database, row.bucket, "confirmed", row.amount)
            # By the hour of the answer, as the upstream bills.
            accounts.receipt(self._database, "confirmed", hour_of(now_s), row.amount)
            self._batches.remove(row)
            self._families.settle(row)
            self._seals.change(row.seal, by=-1)

    def retry(
        self,
        batch_id: int,
        *,
        at_s: float,
        is_in_doubt: bool,
        reason: str,
        now_s: float,
        is_ordered: bool = False,
    ) -> None:
        """The same key and bytes again at `at_s`; `is_in_doubt` says how this try ended.

        `is_ordered`: a person's order for a try is not carried out yet.
        """
        with self._database.transaction():
            row = self._batches.find(batch_id)
            row = self._doubted(row) if is_in_doubt else row
            state: State = "ordered" if is_ordered else "ready"
            self._changed(row._replace(not_before_s=at_s), state, reason, now_s)

    def rekey(self, batch_id: int, *, at_s: float, reason: str, now_s: float) -> Batch:
        """The same bytes under a new key (D3). Not for a batch in doubt."""
        with self._database.transaction():
            row = self._certain(batch_id)
            draft = self._batches.draft(row)
            self._batches.remove(row)
            origin = _heir(row, row.numbers, reason, now_s, tries=row.tries, not_before_s=at_s)
            return self._batches.load(self._batches.add(draft, origin))

    def divide(
        self, batch_id: int, groups: Sequence[Sequence[int]], *, reason: str, now_s: float
    ) -> list[Batch]:
        """Replace it by one batch for each group of row numbers, each with a new key (D3).

        Not for a batch in doubt. The groups must hold each row once.
        """
        with self._database.transaction():
            row = self._certain(batch_id)
            rows = rows_of(self._batches.draft(row))
            if sorted(number for group in groups for number in group) != list(range(len(rows))):
                msg = f"the groups do not hold each of the {len(rows)} rows of batch {batch_id} once"
                raise ValueError(msg)
            self._batches.remove(row)
            self._families.divide(row, len(groups))
            self._seals.change(row.seal, by=len(groups) - 1)
            children = []
            for group in groups:
                origin = _heir(row, [row.numbers[number] for number in group], reason, now_s)
                draft = join_rows(row.hour, [rows[number] for number in group])
                children.append(self._batches.load(self._batches.add(draft, origin)))
            return children

    def suspect(self, batch_id: int, *, reason: str, now_s: float) -> None:
        """Put a refused row aside until its family decides. Not for a batch in doubt."""
        with self._database.transaction():
            row = self._certain(batch_id)
            if row.state != "suspect":
                self._families.suspect(row)
                self._changed(row, "suspect", reason, now_s)

    def suspects(self, root: int) -> list[Batch]:
        """A family's refused rows, in their old order."""
        return [self._batches.load(row) for row in self._suspects(root)]

    def regroup(self, root: int, *, at_s: float, reason: str, now_s: float) -> tuple[list[int], Batch]:
        """Put a family's suspects together as a new root with a new key (D3).

        Returns:
            The ids of the suspects, which are gone, and the new batch.

        Raises:
            LookupError: The family has no suspects.
        """
        with self._database.transaction():
            suspects = self._suspects(root)
            if not suspects:
                msg = f"family {root} has no suspects"
                raise LookupError(msg)
            rows = [each for row in suspects for each in rows_of(self._batches.draft(row))]
            for row in suspects:
                self._batches.remove(row)
            first = suspects[0]
            origin = Origin(
                seal=first.seal,
                oldest_s=min(row.oldest_s for row in suspects),
                at_s=now_s,
                not_before_s=at_s,
                reason=reason,
            )
            new = self._batches.add(join_rows(first.hour, rows), origin)
            self._families.regroup(root, new)
            self._seals.change(first.seal, by=1 - len(suspects))
            return [row.id for row in suspects], self._batches.load(new)

    def dead_letter(
        self, batch_id: int, *, reason: str, now_s: float, troubles: Mapping[bytes, Trouble] | None = None
    ) -> None:
        """The upstream refused it for good. Not for a batch in doubt."""
        with self._database.transaction():
            self._bury(self._certain(batch_id), reason, now_s)
            self._roster.put_troubles(troubles or {})

    def dead_letter_suspects(
        self, root: int, *, now_s: float, troubles: Mapping[bytes, Trouble] | None = None
    ) -> list[int]:
        """Dead-letter each suspect of a family with the reason of its own refusal.

        Returns:
            The ids of the suspects; none when there were none.
        """
        with self._database.transaction():
            rows = self._suspects(root)
            for row in rows:
                self._bury(row, row.reason, now_s)
            self._roster.put_troubles(troubles or {})
        return [row.id for row in rows]

    def hold(
        self,
        batch_id: int,
        *,
        reason: str,
        now_s: float,
        is_in_doubt: bool = False,
        troubles: Mapping[bytes, Trouble] | None = None,
    ) -> None:
        """A person decides; `is_in_doubt` says how the last try ended, where it was one."""
        with self._database.transaction():
            row = self._batches.find(batch_id)
            row = self._doubted(row) if is_in_doubt else row
            if row.state != "held":
                self._families.hold(row)
                self._seals.change(row.seal, failed_count=row.events)
            self._changed(row, "held", reason, now_s)
            self._roster.put_troubles(troubles or {})

    def _load(self, rest: str, values: Iterable[object]) -> list[Batch]:
        return [self._batches.load(row) for row in self._batches.select(rest, values)]

    def _suspects(self, root: int) -> list[BatchRow]:
        rows = self._batches.select("WHERE state = 'suspect' AND root = ?", (root,))
        return sorted(rows, key=lambda row: row.numbers[0])

    def _certain(self, batch_id: int) -> BatchRow:
        row = self._batches.find(batch_id)
        if row.first_in_doubt_s is not None:
            msg = f"batch {batch_id} was in doubt: it may only be sent again as it is, or be held"
            raise ValueError(msg)
        return row

    def _doubted(self, row: BatchRow) -> BatchRow:
        """Carry one more try that ended in doubt. The batch's row is for the caller to write."""
        if row.attempted_s is None:
            msg = f"batch {row.id} was never marked as attempting, and can't be in doubt"
            raise ValueError(msg)
        accounts.carry(self._database, schema.IN_DOUBT_EVER, row.amount)
        if row.first_in_doubt_s is not None:
            return row
        accounts.move(self._database, "pending", "in_doubt", row.amount)
        return row._replace(first_in_doubt_s=row.attempted_s)

    def _changed(self, row: BatchRow, state: State, reason: str, now_s: float) -> BatchRow:
        row = row._replace(state=state, reason=schema.plain_text(reason), changed_s=now_s)
        self._batches.write(row)
        return row

    def _bury(self, row: BatchRow, reason: str, now_s: float) -> None:
        self._dead_letters.add_batch(row, self._batches.load(row).body, reason, now_s)
        self._batches.remove(row)
        self._families.bury(row)
        self._seals.change(row.seal, by=-1, failed_count=row.events)


def _heir(
    row: BatchRow,
    numbers: Sequence[int],
    reason: str,
    now_s: float,
    *,
    tries: int = 0,
    not_before_s: float = 0.0,
) -> Origin:
    """What a batch that takes the place of another one, or of a part of it, takes over."""
    return Origin(
        seal=row.seal,
        oldest_s=row.oldest_s,
        root=row.root,
        numbers=numbers,
        at_s=now_s,
        tries=tries,
        not_before_s=not_before_s,
        reason=reason,
    )
