"""Batches as they are stored: a small row that changes with each try, and a body that never does.

Rule: a batch is what its digest says; one that is not is neither sent nor changed, but held.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Literal, NamedTuple
from uuid import uuid4

import msgpack

from settle_mp.collector import schema
from settle_mp.collector.ledger_error import LedgerDamagedError
from settle_mp.collector.residues import Residues
from settle_mp.core.books import Amount
from settle_mp.core.fold import number_text, parse_number
from settle_mp.core.window import Draft, decode_lots, encode_lots
from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from settle_mp.collector.database import Database
    from settle_mp.core.event import Quantity
    from settle_mp.core.window import Lot

log: Final = logging.getLogger("settle_mp")

State = Literal["ready", "ordered", "attempting", "suspect", "held"]
_DIGEST_BYTES = 16
_NO_LOTS = msgpack.packb([])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A sealed batch.

    Attributes:
        id: Never used again, also not after a restart.
        seal: The number of its seal.
        root: The id of the batch that it was cut or keyed anew from; its own id for one as it was sealed.
        hour: The UTC hour of its window.
        key: Its idempotency key.
        body: The exact bytes to send.
        lots: The rows in `body`.
        state: `ready` (waits for its time), `ordered` (the same, and a person said so, whatever its doubts),
            `attempting` (perhaps sent), `suspect` (a refused row that waits for what becomes of its family),
            or `held` (a person decides).
        tries: How often it was marked as attempting, under whatever key.
        not_before_s: When it may be sent (Unix seconds).
        oldest_s: The earliest cut of what is in it (Unix seconds).
        attempted_s: When the latest try began; None before the first.
        first_in_doubt_s: When its first try that ended in doubt began; None when there was none.
        changed_s: When its state last changed (Unix seconds).
        reason: Why it is not settled yet, after a try.
    """

    id: int
    seal: int
    root: int
    hour: int
    key: str
    body: bytes
    lots: tuple[Lot, ...]
    state: State
    tries: int
    not_before_s: float
    oldest_s: float
    attempted_s: float | None
    first_in_doubt_s: float | None
    changed_s: float
    reason: str
    events_count: int
    quantity: Quantity

    @property
    def is_in_doubt(self) -> bool:
        """Whether the upstream may have applied it."""
        return self.first_in_doubt_s is not None

    @property
    def draft(self) -> Draft:
        """Its content, as `core.window` cuts it."""
        return Draft(hour=self.hour, body=self.body, lots=self.lots)


class BatchRow(NamedTuple):
    """A row of `batches`, in the order of its columns. `row_numbers` are those in the root, packed."""

    id: int
    seal: int
    root: int
    hour: int
    key: str
    state: State
    tries: int
    not_before_s: float
    oldest_s: float
    attempted_s: float | None
    first_in_doubt_s: float | None
    changed_s: float
    reason: str
    row_numbers: bytes
    rows_count: int
    events: int
    quantity: str
    digest: bytes

    @property
    def amount(self) -> Amount:
        """What it holds."""
        return Amount(self.events, parse_number(self.quantity))

    @property
    def bucket(self) -> str:
        """The bucket that its events are in."""
        return "pending" if self.first_in_doubt_s is None else "in_doubt"

    @property
    def numbers(self) -> Sequence[int]:
        """The number in the root of each of its rows."""
        return msgpack.unpackb(self.row_numbers) if self.row_numbers else range(self.rows_count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a new batch takes over from where it comes from. A `root` of None: it is one itself."""

    seal: int
    oldest_s: float
    at_s: float
    root: int | None = None
    numbers: Sequence[int] | None = None
    tries: int = 0
    not_before_s: float = 0.0
    reason: str = ""


class Batches:
    """The tables of batches and bodies."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._residues = Residues(database)

    def add(self, draft: Draft, origin: Origin) -> BatchRow:
        """Write a new batch under a new key."""
        return self.add_many([draft], origin)[0]

    def add_many(self, drafts: Iterable[Draft], origin: Origin) -> list[BatchRow]:
        """Write new batches, each under a key of its own."""
        last_id = int(self._database.meta("batch_number"))
        rows, bodies = [], []
        for batch_id, draft in enumerate(drafts, last_id + 1):
            lots: bytes = msgpack.packb(encode_lots(draft.lots))
            rows.append(_new_row(batch_id, draft, lots, origin))
            bodies.append((batch_id, lots, draft.body))
        self._database.insert(schema.BATCHES, rows)
        self._database.insert(schema.BODIES, bodies)
        self._database.set_meta("batch_number", str(last_id + len(rows)))
        return rows

    def find(self, batch_id: int) -> BatchRow:
        """One batch.

        Raises:
            LookupError: There is none.
        """
        rows = self.select("WHERE id = ?", (batch_id,))
        if not rows:
            msg = f"there is no batch {batch_id}"
            raise LookupError(msg)
        return rows[0]

    def select(self, rest: str, values: Iterable[object] = ()) -> list[BatchRow]:
        """Batches by the rest of a query."""
        return [BatchRow(*row) for row in self._database.select(schema.BATCHES, rest, values)]

    def write(self, row: BatchRow) -> None:
        """Write a batch's row again."""
        self._database.replace(schema.BATCHES, [row])

    def remove(self, row: BatchRow) -> None:
        """Take a batch away."""
        self._database.delete(schema.BATCHES, "id = ?", (row.id,))
        self._database.delete(schema.BODIES, "batch = ?", (row.id,))

    def load(self, row: BatchRow) -> Batch:
        """A batch with its body; without one when that is lost or damaged."""
        return self._load_if_sound(row) or _batch(row, _NO_LOTS, b"")

    def is_sound(self, row: BatchRow) -> bool:
        """Whether a batch is what was sealed."""
        return self._load_if_sound(row) is not None

    def draft(self, row: BatchRow) -> Draft:
        """What a batch holds, to be sent in another form.

        Raises:
            LedgerDamagedError: That is not what was sealed.
        """
        batch = self._load_if_sound(row)
        if batch is None:
            msg = f"batch {row.id} fails its checksum"
            raise LedgerDamagedError(msg)
        return batch.draft

    def load_sound(self, rest: str, values: Iterable[object], now_s: float) -> list[Batch]:
        """Batches that are what their digests say; any other is held, and named as a residue."""
        sound, unsound = [], []
        for found in self._database.rows(f"{schema.BATCHES.select_sql} {rest}", values):
            row = BatchRow(*found[:-1])
            batch = self._load_if_sound(row) if schema.BATCHES.is_sound(found) else None
            if batch is None:
                unsound.append(row)
            else:
                sound.append(batch)
        if unsound:
            self._hold(unsound, now_s)
        return sound

    def hold_unsound_rows(self, now_s: float) -> None:
        """Hold the batches whose own rows fail their check, so that none of them stops a start."""
        rows = self._database.rows(schema.BATCHES.select_sql)
        unsound = [BatchRow(*row[:-1]) for row in rows if not schema.BATCHES.is_sound(row)]
        if unsound:
            self._hold(unsound, now_s)

    def _load_if_sound(self, row: BatchRow) -> Batch | None:
        found = self._database.rows(f"{schema.BODIES.select_sql} WHERE batch = ?", (row.id,))
        if not found or not schema.BODIES.is_sound(found[0]):
            return None
        _, lots, body, _ = found[0]
        return _batch(row, lots, body) if _digest(row.key, row.hour, lots, body) == row.digest else None

    def _hold(self, rows: Iterable[BatchRow], now_s: float) -> None:
        with self._database.transaction():
            for row in rows:
                text = f"batch {row.id} fails its checksum: it is held and not sent"
                self.write(row._replace(state="held", reason=text, changed_s=now_s))
                self._residues.add(f"batch {row.id}", text, now_s)
                log.error("batch_damaged", extra=notice("batch_damaged", text))


def _new_row(batch_id: int, draft: Draft, lots: bytes, origin: Origin) -> BatchRow:
    key = uuid4().hex
    return BatchRow(
        id=batch_id,
        seal=origin.seal,
        root=batch_id if origin.root is None else origin.root,
        hour=draft.hour,
        key=key,
        state="ready",
        tries=origin.tries,
        not_before_s=origin.not_before_s,
        oldest_s=origin.oldest_s,
        attempted_s=None,
        first_in_doubt_s=None,
        changed_s=origin.at_s,
        reason=schema.plain_text(origin.reason),
        row_numbers=b"" if origin.numbers is None else msgpack.packb(list(origin.numbers)),
        rows_count=len(draft.lots),
        events=draft.events_count,
        quantity=number_text(draft.quantity),
        digest=_digest(key, draft.hour, lots, draft.body),
    )


def _digest(key: str, hour: int, lots: bytes, body: bytes) -> bytes:
    head = f"{key} {hour} {len(lots)} ".encode()
    return blake2b(head + lots + body, digest_size=_DIGEST_BYTES).digest()


def _batch(row: BatchRow, lots: bytes, body: bytes) -> Batch:
    return Batch(
        id=row.id,
        seal=row.seal,
        root=row.root,
        hour=row.hour,
        key=row.key,
        body=body,
        lots=decode_lots(msgpack.unpackb(lots)),
        state=row.state,
        tries=row.tries,
        not_before_s=row.not_before_s,
        oldest_s=row.oldest_s,
        attempted_s=row.attempted_s,
        first_in_doubt_s=row.first_in_doubt_s,
        changed_s=row.changed_s,
        reason=row.reason,
        events_count=row.events,
        quantity=parse_number(row.quantity),
    )
