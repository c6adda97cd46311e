"""Steps: what is done with a batch after a try, and when.

Rule 1: this file holds the one table from an outcome to a step.
Rule 2: in doubt is sticky. Once a try may have been applied, the batch is only ever sent again whole, with
    the same key and the same bytes; a later refusal, or too great an age, hands it to a person.
Rule 3: only what was certainly refused gets a new key, since a server may replay its refusal for the old one.
Rule 4: no clock and no dice; callers pass now_s (seconds since 1970) and jitter.

Whether refused rows become dead letters is decided for a whole family of batches, in `family.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from settle_mp.core.outcome import Outcome

if TYPE_CHECKING:
    from typing import TypeAlias

    from settle_mp.core.outcome import Verdict

OnInDoubt: TypeAlias = Literal["retry", "hold"]

#: First delay before a try is repeated, in seconds: an upstream that restarts is back within a few of them.
BACKOFF_BASE_S = 0.5
#: Longest delay of our own, in seconds: a mended upstream should not wait for us much longer than a minute.
BACKOFF_MAX_S = 60.0
#: First delay after a pause, in seconds: whoever mends a setting watches whether it helped.
PAUSE_BASE_S = 1.0
#: Longest delay after a pause, in seconds. One refused request in this time disturbs nobody.
PAUSE_MAX_S = 30.0
#: Doublings that count; beyond them the delay is at its bound, and 2.0 ** 1024 is an error.
_DOUBLINGS_MAX = 16


def backoff_s(tries_count: int, *, jitter: float) -> float:
    """Seconds before the next try: anything from 0 to a bound that doubles with each try (full jitter).

    Args:
        tries_count: Tries made so far, from 1.
        jitter: A random number in [0, 1).
    """
    return jitter * min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0 ** _doublings(tries_count))


def pause_s(pauses_count: int, *, jitter: float) -> float:
    """Seconds before sending goes on after a pause: a bound that doubles with each, or down to half of it.

    Args:
        pauses_count: Pauses (or tries) in a row, this one included, from 1.
        jitter: A random number in [0, 1).
    """
    bound_s = min(PAUSE_MAX_S, PAUSE_BASE_S * 2.0 ** _doublings(pauses_count))
    return bound_s * (1.0 + jitter) / 2.0


def _doublings(count: int) -> int:
    return min(max(count - 1, 0), _DOUBLINGS_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchState:
    """What the ledger knows of a batch when a try at it has ended.

    Attributes:
        rows_count: Rows in its body.
        tries_count: Tries so far, the ended one included, under whatever key.
        tried_at_s: When the ended try was marked `attempting`; the upstream cannot know its key for longer.
        first_in_doubt_s: When its first try that ended in doubt was begun; None while there is none.
        is_ordered: Whether a person had ordered the ended try.
    """

    rows_count: int
    tries_count: int
    tried_at_s: float
    first_in_doubt_s: float | None = None
    is_ordered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """The batch is confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAt:
    """Send it again, whole, with the same key and bytes. `first_in_doubt_s` is to be stored as it is."""

    at_s: float
    first_in_doubt_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Divide:
    """Replace it by one batch for each group of row numbers, each with a new key, in one transaction.

    The groups hold each row once, in order. This is the bisecting of a refusal and the split of what was
    too large: the children belong to the family of their parent.
    """

    groups: tuple[tuple[int, ...], ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A single row was certainly refused: put it aside and ask `family.family_step` what becomes of it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """It is in doubt and must not be sent again by itself: a person decides."""

    reason: str
    first_in_doubt_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Stop sending everything until `retry_at_s`, then go on, this batch included.

    Without `first_in_doubt_s` the batch was certainly refused and goes on under a new key; with it, under the
    same one.
    """

    reason: str
    retry_at_s: float
    first_in_doubt_s: float | None

    @property
    def is_new_key(self) -> bool:
        """Whether the batch needs a new key before it is sent again."""
        return self.first_in_doubt_s is None


Step: TypeAlias = "Settle | RetryAt | Divide | Suspect | Hold | Pause"


def next_step(
    batch: BatchState,
    verdict: Verdict,
    *,
    now_s: float,
    on_in_doubt: OnInDoubt,
    idempotency_ttl_s: float,
    jitter: float,
) -> Step:
    """Say what is done with a batch after a try.

    Args:
        batch: The batch, its ended try counted.
        verdict: What the answer to that try means.
        now_s: The present time.
        on_in_doubt: The setting: whether a batch in doubt is sent again without asking.
        idempotency_ttl_s: How long the upstream remembers a key.
        jitter: A random number in [0, 1).
    """
    if verdict.outcome is Outcome.ACCEPTED:
        return Settle()
    since_s = batch.first_in_doubt_s
    if since_s is None and verdict.outcome is Outcome.IN_DOUBT:
        since_s = batch.tried_at_s
    # An order stands until a try has got through to the upstream.
    if since_s is not None and not (batch.is_ordered and is_untouched(verdict)):
        held = _reason_to_hold(verdict, since_s, now_s, on_in_doubt, idempotency_ttl_s)
        if held is not None:
            return Hold(reason=held, first_in_doubt_s=since_s)
    if verdict.outcome in {Outcome.REFUSED, Outcome.TOO_LARGE}:
        return _after_refusal(batch.rows_count, verdict)
    asked_s = verdict.retry_after_s or 0.0
    if verdict.outcome is Outcome.MISCONFIGURED:
        retry_at_s = now_s + max(asked_s, pause_s(batch.tries_count, jitter=jitter))
        return Pause(reason=verdict.reason, retry_at_s=retry_at_s, first_in_doubt_s=since_s)
    at_s = now_s + max(asked_s, backoff_s(batch.tries_count, jitter=jitter))
    return RetryAt(at_s=at_s, first_in_doubt_s=since_s)


def is_untouched(verdict: Verdict) -> bool:
    """Whether a try said nothing about its batch: not applied, and not refused for what is in it."""
    return verdict.outcome in {Outcome.DEFERRED, Outcome.MISCONFIGURED}


def _reason_to_hold(
    verdict: Verdict, since_s: float, now_s: float, on_in_doubt: OnInDoubt, idempotency_ttl_s: float
) -> str | None:
    if on_in_doubt == "hold":
        return f"{verdict.reason}; it may have been applied, and on_in_doubt is hold"
    if verdict.outcome in {Outcome.REFUSED, Outcome.TOO_LARGE}:
        return f"{verdict.reason}; an earlier try may have been applied"
    return _reason_of_age(since_s, now_s, idempotency_ttl_s)


def hold_before_try(batch: BatchState, *, now_s: float, idempotency_ttl_s: float) -> Hold | None:
    """Say whether a batch that is due must be held instead of sent: its key may be forgotten by now.

    To be asked before each try that the collector makes by itself; not before one that a person ordered.
    """
    since_s = batch.first_in_doubt_s
    reason = None if since_s is None else _reason_of_age(since_s, now_s, idempotency_ttl_s)
    return None if since_s is None or reason is None else Hold(reason=reason, first_in_doubt_s=since_s)


def _reason_of_age(since_s: float, now_s: float, idempotency_ttl_s: float) -> str | None:
    if now_s - since_s <= idempotency_ttl_s:
        return None
    return f"in doubt for more than {idempotency_ttl_s:g} s (idempotency_ttl_s): the key may be forgotten"


def _after_refusal(rows_count: int, verdict: Verdict) -> Step:
    if rows_count == 1:
        return Suspect(reason=verdict.reason)
    return Divide(groups=_groups(rows_count, verdict.refused_rows), reason=verdict.reason)


def _groups(rows_count: int, named_rows: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Each named row alone and the others together; two halves when none, all or strange ones are named.

    A wrong hint costs a few requests and no row: what stands alone is sent, and judged by its own answer.
    """
    guilty = sorted({row for row in named_rows if row < rows_count})
    if 0 < len(guilty) < rows_count:
        others = tuple(row for row in range(rows_count) if row not in guilty)
        return (*((row,) for row in guilty), others)
    half = rows_count // 2
    return tuple(range(half)), tuple(range(half, rows_count))
