"""The outbox: sealed batches until the upstream has answered for them, and the dead letters.

Rule D1: a batch is `attempting` in the ledger before the first byte of each POST.
Rule D2: a batch that was in doubt once stays so: the same key, the same bytes, whole, or a person decides.
Rule D3: what is sent under a new key takes the place of what was refused in one transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from settle_mp.core.window import Draft, Lot

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from settle_mp.core.books import Amount
    from settle_mp.core.event import Quantity
    from settle_mp.core.ticket import Seal, Trouble

State = Literal["ready", "attempting", "held"]


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
        state: `ready` (waits for its time), `attempting` (perhaps sent), or `held` (a person decides).
        tries: How often it was marked as attempting.
        not_before_s: When it may be sent (Unix seconds).
        oldest_s: The earliest cut of what is in it (Unix seconds).
        attempted_s: When the latest try began; None before the first.
        first_in_doubt_s: When its first try that ended in doubt began; None when there was none.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """What was refused for good: one event at intake, or a batch (of one row) by the upstream.

    `payload` is the packed event, or the batch's body. `producer` is empty for a batch.
    """

    id: int
    origin: Literal["event", "batch"]
    producer: bytes
    hour: int
    reason: str
    at_s: float
    events_count: int
    quantity: Quantity
    payload: bytes


class Outbox:
    """The batches and dead letters of one ledger; `Ledger.outbox` is the only one there is.

    Every call raises LedgerError when the ledger can't do it; nothing of it happened then. A batch id that
    is not there (any more) is a LookupError, a step that D1 or D2 forbids a ValueError.
    """

    def due(self, now_s: float, limit: int) -> list[Batch]:
        """The batches that may be sent now, oldest first; one that fails its checksum is held instead."""
        raise NotImplementedError

    def next_due_s(self) -> float | None:
        """When the next batch may be sent (Unix seconds); None when none waits."""
        raise NotImplementedError

    def mark_attempting(self, ids: Iterable[int], now_s: float) -> None:
        """Say that these are about to be sent; call it before the first byte (D1)."""
        raise NotImplementedError

    def recover(self, now_s: float, *, in_flight: Collection[int] = ()) -> list[Batch]:
        """Put what was being sent when we stopped in doubt (D1), except what a sender still works on."""
        raise NotImplementedError

    def settle(self, batch_id: int, now_s: float) -> None:
        """The upstream has accepted it."""
        raise NotImplementedError

    def retry(self, batch_id: int, *, at_s: float, is_in_doubt: bool, reason: str, now_s: float) -> None:
        """The same key and bytes again at `at_s`; `is_in_doubt` says how this try ended."""
        raise NotImplementedError

    def rekey(self, batch_id: int, *, at_s: float, reason: str, now_s: float) -> Batch:
        """The same bytes under a new key (D3). Not for a batch in doubt."""
        raise NotImplementedError

    def split(self, batch_id: int, cuts: Iterable[int], *, reason: str, now_s: float) -> list[Batch]:
        """Cut it before the given row numbers; each piece has a key of its own (D3). Not for one in doubt."""
        raise NotImplementedError

    def dead_letter(
        self, batch_id: int, *, reason: str, now_s: float, troubles: Mapping[bytes, Trouble] | None = None
    ) -> None:
        """The upstream refused it for good. Not for a batch in doubt."""
        raise NotImplementedError

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
        raise NotImplementedError

    def get(self, batch_id: int) -> Batch:
        """One batch."""
        raise NotImplementedError

    def held(self, limit: int = 1000) -> list[Batch]:
        """Batches that a person decides about."""
        raise NotImplementedError

    def dead_letters(self, limit: int = 1000, *, after: int = 0) -> list[DeadLetter]:
        """Dead letters in the order in which they came, from the id behind `after` on."""
        raise NotImplementedError

    def unsettled_by_seal(self) -> dict[int, set[int]]:
        """The batches of each seal that a flush waits for: all but the held ones."""
        raise NotImplementedError

    def seals(self) -> list[Seal]:
        """The seals with their reaches and the batches that a flush waits for, to load at start."""
        raise NotImplementedError

    def amounts(self) -> dict[State, tuple[int, Amount]]:
        """How many batches are in each state, and what they hold."""
        raise NotImplementedError
