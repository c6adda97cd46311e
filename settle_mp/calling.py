"""Calling: what is done with a call after each try, until it has a result or an error.

Rule 1: a write is tried again only after a failure that certainly did not reach the upstream, unless the
    caller said that the upstream honours idempotency keys (`on_in_doubt="retry"`).
Rule 2: in doubt is sticky. Once a try may have been applied, a later refusal of the same call proves nothing,
    and the error that is raised says so.
Rule 3: one deadline for the whole call, its waits included; no try is begun that has hardly any time left,
    since giving up on it would make a doubt where there was none.
Rule 4: no clock and no dice; callers pass the time and the jitter. The same for threads and for event loops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from settle_mp.core.answer import Failure, NoReply
from settle_mp.core.call import UnreadableError
from settle_mp.core.outcome import Outcome, classify
from settle_mp.errors import ApiError, TimeoutError, about_write, error_from_answer  # noqa: A004 - the vendor's

if TYPE_CHECKING:
    from settle_mp.core.call import Call, Heard
    from settle_mp.core.outcome import Verdict
    from settle_mp.errors import SettleSettleError

T = TypeVar("T")

OnInDoubt = Literal["raise", "retry"]

#: Seconds for a call with all its tries: what the vendor's SDK gives each of its four.
TIMEOUT_S: Final = 10.0
#: Longest time that a caller may give, in seconds.
TIMEOUT_S_MAX: Final = 3600.0
#: First and longest delay before another try, in seconds: a request of the caller's waits meanwhile.
BACKOFF_BASE_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
#: Time that must be left for another try, in seconds; half of the timeout where that is less.
TRY_S_MIN: Final = 1.0
#: Tries of a read that reached the upstream and failed there, all of them counted.
READ_TRIES_MAX: Final = 3

_CONFLICT: Final = 409
_DOUBLINGS_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Found(Generic[T]):
    """The call has its result."""

    value: T


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Another try is to be made after so many seconds."""

    seconds: float


class Calling(Generic[T]):
    """One call on its way.

    Args:
        call: What is asked.
        timeout: Seconds for all of it, from now_s on.
        on_in_doubt: "raise", or "retry" where the upstream honours idempotency keys.
        now_s: The present time of a clock that never jumps.

    Raises:
        TypeError, ValueError: If timeout or on_in_doubt is none.
    """

    def __init__(self, call: Call[T], *, timeout: object, on_in_doubt: object, now_s: float) -> None:
        timeout_s = _checked_timeout(timeout)
        if on_in_doubt not in {"raise", "retry"}:
            raise ValueError(f'on_in_doubt must be "raise" or "retry", not {on_in_doubt!r}')
        self._call = call
        self._repeats_doubt = on_in_doubt == "retry" or not call.is_write
        self._began_s = now_s
        self._deadline_s = now_s + timeout_s
        self._try_s_min = min(TRY_S_MIN, timeout_s / 2)
        self._tries_count = 0
        self._doubt: SettleSettleError | None = None

    def left_s(self, now_s: float) -> float:
        """Seconds that a try may take; never 0, which some would take for no bound."""
        return max(0.001, self._deadline_s - now_s)

    def judge(
        self, answer: Heard | NoReply, *, now_s: float, wall_s: float, jitter: float
    ) -> Found[T] | Wait:
        """Say what follows from the answer to a try.

        Args:
            answer: What came back.
            now_s: The present time of the clock that never jumps.
            wall_s: Seconds since 1970, which a Retry-After with a date is measured from.
            jitter: A random number in [0, 1).

        Raises:
            SettleSettleError: When the call has failed, or may have.
        """
        self._tries_count += 1
        verdict = classify(answer if isinstance(answer, NoReply) else answer.reply, now_s=wall_s)
        if verdict.outcome is Outcome.ACCEPTED and not isinstance(answer, NoReply):
            return self._read(answer)
        error = self._error(answer, verdict, now_s=now_s, wall_s=wall_s)
        if verdict.outcome is Outcome.IN_DOUBT and self._call.is_write and self._doubt is None:
            self._doubt = error
        if self._may_repeat(answer, verdict):
            wait_s = max(verdict.retry_after_s or 0.0, self._backoff_s(jitter))
            if now_s + wait_s + self._try_s_min <= self._deadline_s:
                return Wait(seconds=wait_s)
        raise self._explained(error, answer) from None

    def _read(self, answer: Heard) -> Found[T]:
        payload = answer.payload
        data: Any = payload.get("data") if isinstance(payload, dict) else None
        try:
            return Found(value=self._call.read(data))
        except UnreadableError as problem:
            status = answer.reply.status
            text = f"The upstream answered {status} to this {self._call.name}, but {problem}."
            error = ApiError(text, status, payload)
        if self._call.idempotency_key is None:
            raise error
        raise about_write(error, self._call.idempotency_key, "It was most likely applied.", is_in_doubt=True)

    def _may_repeat(self, answer: Heard | NoReply, verdict: Verdict) -> bool:
        if verdict.outcome is Outcome.DEFERRED:
            # What is wrong with certificates does not mend itself within seconds.
            return not (isinstance(answer, NoReply) and answer.failure is Failure.TLS)
        if verdict.outcome is not Outcome.IN_DOUBT:
            return False
        return self._repeats_doubt and (self._call.is_write or self._tries_count < READ_TRIES_MAX)

    def _backoff_s(self, jitter: float) -> float:
        doublings = min(self._tries_count - 1, _DOUBLINGS_MAX)
        # Never none at all: a refused connection comes back at once, and so would the next.
        return (0.5 + jitter / 2) * min(BACKOFF_MAX_S, BACKOFF_BASE_S * 2.0**doublings)

    def _error(
        self, answer: Heard | NoReply, verdict: Verdict, *, now_s: float, wall_s: float
    ) -> SettleSettleError:
        if isinstance(answer, NoReply):
            if answer.failure in {Failure.SENT_THEN_TIMEOUT, Failure.CONNECT_TIMEOUT}:
                return TimeoutError(round((now_s - self._began_s) * 1000))
            return ApiError(_sentence(verdict.reason), 0)
        return error_from_answer(
            answer.reply.status,
            answer.payload,
            answer.headers,
            now_s=wall_s,
            reason=_sentence(verdict.reason),
        )

    def _explained(self, error: SettleSettleError, answer: Heard | NoReply) -> SettleSettleError:
        """Add what the caller must know: what may have happened, and how to ask again."""
        key = self._call.idempotency_key
        if key is None:
            return error
        is_in_progress = not isinstance(answer, NoReply) and answer.reply.status == _CONFLICT
        if self._doubt is None and not (is_in_progress and self._call.is_callers_key):
            text = f"No {self._call.name} was made: nothing was sent." if isinstance(answer, NoReply) else ""
            return about_write(error, key, text, is_in_doubt=False)
        doubt = self._doubt or error
        later = "" if doubt is error else f"Asked again: {error.message} "
        return about_write(
            doubt, key, later + _ADVICE.format(name=self._call.name, key=key), is_in_doubt=True
        )


_ADVICE: Final = (
    "This {name} may or may not have been made. Where the upstream honours Idempotency-Key, asking again "
    "with the same arguments and idempotency_key={key!r} makes it once and no more; where it does not, "
    "look at get_history() before you ask again."
)


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:]
    return text if text.endswith(".") else f"{text}."


def _checked_timeout(timeout: object) -> float:
    allowed = f"a number of seconds above 0 and up to {TIMEOUT_S_MAX:,.0f}"
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout must be {allowed}, not {type(timeout).__name__}")
    if not (math.isfinite(timeout) and 0 < timeout <= TIMEOUT_S_MAX):
        raise ValueError(f"timeout must be {allowed}, not {timeout!r}")
    return float(timeout)
