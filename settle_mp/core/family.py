"""Families: what becomes of rows that were certainly refused one by one.

A family is a sealed batch (its root) and all batches that came of it by division. A refused row becomes a
dead letter only when something else shows that the upstream takes rows at all; otherwise the fault is more
likely ours or the upstream's (a changed format, a broken release), and a whole outbox would follow it.

Rule 1: no row of a family becomes a dead letter before another row of it was accepted, with two exceptions:
    a family of one row that was never tried as part of a larger one, and a family refused to the last row
    twice, with other families accepted in between (else two bad rows could stop a host for good).
Rule 2: rows that are held are neither accepted nor refused: they prove nothing and are not waited for.

The ledger keeps for each batch its root, and for each root how many of its rows are accepted, refused (put
aside by a `Suspect` step) and held, and its `rounds_count`. Whenever one of these counts changes (a `Settle`,
`Suspect` or `Hold` of any member) it calls `family_step` and does the result in the same transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from settle_mp.core.step import pause_s

if TYPE_CHECKING:
    from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The rows of a root batch, by what is known of them.

    Attributes:
        rows_count: Rows of the root.
        accepted_count: Rows in settled members.
        refused_count: Rows put aside as suspects.
        held_count: Rows in members that were held, also those that a person discarded since.
        rounds_count: How often these rows were regrouped before (0 for a sealed batch).
        is_upstream_accepting: Whether a batch of another family was accepted since the latest regrouping.
    """

    rows_count: int
    accepted_count: int
    refused_count: int
    held_count: int = 0
    rounds_count: int = 0
    is_upstream_accepting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Nothing to do: no suspects, or their family has not decided yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterSuspects:
    """Every suspect of the family becomes a dead letter, with the reason of its own refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regroup:
    """Dead-letter none: put the suspects together again as a new root and stop sending until `retry_at_s`.

    In one transaction: the suspects are retired; one batch with their rows in their old order, a new key and
    `rounds_count` one higher is inserted, the root of a new family. Held members stay as they are.
    """

    reason: str
    retry_at_s: float


FamilyStep: TypeAlias = "Wait | DeadLetterSuspects | Regroup"


def family_step(family: Family, *, now_s: float, jitter: float) -> FamilyStep:
    """Say what becomes of the family's suspects.

    Args:
        family: The counts after the change that was just made.
        now_s: The present time, in seconds.
        jitter: A random number in [0, 1).
    """
    if not family.refused_count:
        return Wait()
    if family.accepted_count:
        return DeadLetterSuspects()
    if family.refused_count + family.held_count < family.rows_count:
        return Wait()
    if family.rows_count == 1 and not family.rounds_count:
        return DeadLetterSuspects()
    if family.rounds_count and family.is_upstream_accepting:
        return DeadLetterSuspects()
    return Regroup(
        reason=f"all {family.refused_count} rows of a batch were refused: the fault may lie elsewhere",
        retry_at_s=now_s + pause_s(family.rounds_count + 1, jitter=jitter),
    )
