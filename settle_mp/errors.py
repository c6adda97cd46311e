"""The errors that users catch, with the vendor's names and attributes, and what makes one from an answer.

    Exception
    ├── SettleSettleError               any answer or failure of the upstream
    │   ├── ValidationError             400: the request is wrong
    │   ├── AuthenticationError         401: the key is missing, invalid or expired
    │   ├── InsufficientCreditsError    402: the wallet holds less than was asked
    │   ├── TimeoutError                408, or no answer in time
    │   ├── RateLimitError              429: too many requests
    │   └── ApiError                    everything else: 403, 409, 5xx, the network
    └── ValueError
        └── SettingsError               a setting that cannot be used; ours, raised at start

Names, attributes and the order of arguments are those of the vendor's Python SDK (settlesettle 0.1.1), so
that `except InsufficientCreditsError` goes on working after a changed import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from settle_mp.core.secret import hide_keys

_E = TypeVar("_E", bound=Exception)


class SettleSettleError(Exception):
    """The upstream refused a request, failed or could not be reached.

    Attributes:
        message: What went wrong, as the upstream says it where it says anything.
        status_code: The HTTP status; 0 when there was no answer.
        code: A name for the kind of error that does not change between versions.
        payload: The decoded body of the answer, or None.
        is_in_doubt: Whether the request may have been applied all the same. Only a write can be in doubt.
        idempotency_key: The key that a write was sent with; None for anything else. Asking again under it
            (`idempotency_key=`) with the same arguments is safe where the upstream honours such keys.
    """

    def __init__(self, message: str, status_code: int, code: str, payload: Any = None) -> None:
        message = hide_keys(message)
        super().__init__(message)
        self.message = message
        self.status_code = status_code
        self.code = code
        self.payload: Any = _without_keys(payload)
        self.is_in_doubt = False
        self.idempotency_key: str | None = None

    def __repr__(self) -> str:
        # Without the payload: it is the user's data, and a repr ends in logs.
        return (
            f"{type(self).__name__}(message={self.message!r}, "
            f"status_code={self.status_code}, code={self.code!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own would call the class with `args`, which fits none of the signatures below.
        return _rebuild, (type(self), self.args), self.__dict__


def about_write(error: SettleSettleError, key: str, text: str, *, is_in_doubt: bool) -> SettleSettleError:
    """Add to an error what the caller of a write must know; returns the same one."""
    error.message = hide_keys(f"{error.message} {text}" if text else error.message)
    error.args = (error.message,)
    error.is_in_doubt = is_in_doubt
    error.idempotency_key = key
    return error


class ValidationError(SettleSettleError):
    """The request is wrong (400); sending it again would fail again.

    Attributes:
        fields: What is wrong by field, or None where the upstream does not say.
    """

    def __init__(self, message: str, fields: dict[str, list[str]] | None = None, payload: Any = None) -> None:
        super().__init__(message, 400, "VALIDATION_ERROR", payload)
        self.fields = fields


class AuthenticationError(SettleSettleError):
    """The API key is missing, invalid or expired (401)."""

    def __init__(self, message: str = "Invalid or missing API key.", payload: Any = None) -> None:
        super().__init__(message, 401, "AUTHENTICATION_ERROR", payload)


class InsufficientCreditsError(SettleSettleError):
    """A debit asked for more than the wallet holds (402); nothing was taken.

    Attributes:
        user_id: Whose wallet.
        current_balance: What it holds, in credits.
        requested_amount: What was asked for, in credits.
    """

    def __init__(
        self, user_id: str, current_balance: int, requested_amount: int, payload: Any = None
    ) -> None:
        super().__init__(
            f"User {user_id} has insufficient credits: "
            f"balance {current_balance}, requested {requested_amount}.",
            402,
            "INSUFFICIENT_CREDITS",
            payload,
        )
        self.user_id = user_id
        self.current_balance = current_balance
        self.requested_amount = requested_amount


class TimeoutError(SettleSettleError):  # noqa: A001 - the vendor's name; users catch it by that
    """No answer in time, or the upstream says so itself (408).

    Attributes:
        timeout_ms: How long was waited, in milliseconds; None when the upstream gave up and not we.
    """

    def __init__(self, timeout_ms: int | None = None, payload: Any = None) -> None:
        waited = "" if timeout_ms is None else f" after {timeout_ms} ms"
        super().__init__(f"The request timed out{waited}.", 408, "TIMEOUT_ERROR", payload)
        self.timeout_ms = timeout_ms


class RateLimitError(SettleSettleError):
    """Too many requests (429).

    Attributes:
        retry_after_ms: How long the upstream asks to wait, in milliseconds, at most an hour; None when it
            does not say.
    """

    def __init__(self, retry_after_ms: int | None = None, payload: Any = None) -> None:
        wait = "" if retry_after_ms is None else f"; try again in {retry_after_ms} ms"
        super().__init__(f"Rate limit exceeded{wait}.", 429, "RATE_LIMIT_ERROR", payload)
        self.retry_after_ms = retry_after_ms


class ApiError(SettleSettleError):
    """Any other failure: 403, 409, 5xx, or the network (status_code 0)."""

    def __init__(self, message: str, status_code: int, payload: Any = None) -> None:
        super().__init__(message, status_code, "API_ERROR", payload)


class SettingsError(ValueError):
    """A setting that cannot be used.

    Attributes:
        key: The setting's name ("flush_interval_s", "events.AI_QUERY.sum").
        source: Where the value came from ("environment SETTLE_MP_FLUSH_INTERVAL_S").
        problem: What is wrong with it.
        allowed: What may stand there.
    """

    def __init__(self, key: str, source: str, problem: str, allowed: str) -> None:
        super().__init__(f"{key} ({source}): {problem}; allowed: {allowed}")
        self.key = key
        self.source = source
        self.problem = problem
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.key, self.source, self.problem, self.allowed), self.__dict__


def error_from_answer(
    status_code: int, payload: Any, headers: Mapping[str, str], *, now_s: float, reason: str = ""
) -> SettleSettleError:
    """Make the error that an answer stands for.

    Args:
        status_code: The HTTP status; not 2xx.
        payload: The decoded body, whatever its type; None when there was none or it was not JSON.
        headers: The answer's headers, in any case.
        now_s: The time at which it came, which a Retry-After with a date is measured from.
        reason: What to say where the answer has no message of its own.
    """
    body = payload if isinstance(payload, Mapping) else {}
    said = body.get("message")
    message = (
        said if isinstance(said, str) and said else reason or f"The upstream answered HTTP {status_code}."
    )
    inner = body.get("data")
    data = inner if isinstance(inner, Mapping) else {}
    match status_code:
        case 400:
            fields = data.get("fields")
            return ValidationError(message, fields if isinstance(fields, dict) else None, payload)
        case 401:
            return AuthenticationError(message, payload)
        case 402:
            user_id = str(data.get("userId", "unknown"))
            balance, requested = _whole(data.get("currentBalance")), _whole(data.get("requestedAmount"))
            return InsufficientCreditsError(user_id, balance, requested, payload)
        case 408:
            return TimeoutError(payload=payload)
        case 429:
            return RateLimitError(_retry_after_ms(headers, now_s), payload)
        case _:
            return ApiError(message, status_code, payload)


def _whole(value: object) -> int:
    # As the vendor's SDK: callers subtract these, so a missing one is 0 and not None.
    return value if isinstance(value, int) else 0


def _retry_after_ms(headers: Mapping[str, str], now_s: float) -> int | None:
    from settle_mp.core.outcome import (
        parse_retry_after,
    )  # needs the mail parser, which no worker's start does

    given = next((value for name, value in headers.items() if name.lower() == "retry-after"), None)
    wait_s = parse_retry_after(given, now_s=now_s)
    return None if wait_s is None else round(wait_s * 1000)


def _without_keys(payload: Any) -> Any:
    """Return the payload with API keys hidden: a server may quote the request that it refuses."""
    if isinstance(payload, str):
        return hide_keys(payload)
    if isinstance(payload, Mapping):
        return {name: _without_keys(value) for name, value in payload.items()}
    if isinstance(payload, list):
        return [_without_keys(value) for value in payload]
    return payload


def _rebuild(cls: type[_E], args: tuple[object, ...]) -> _E:
    return cls.__new__(cls, *args)
