"""The error tree: the vendor's names and attributes, made from answers, safe to log and to pickle."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import httpx
import pytest

from settle_mp import errors
from settle_mp.errors import (
    ApiError,
    AuthenticationError,
    InsufficientCreditsError,
    RateLimitError,
    SettingsError,
    SettleSettleError,
    TimeoutError,  # noqa: A004 - the vendor's name
    ValidationError,
    error_from_answer,
)

#: 2026-11-22T08:00:00Z
NOW_S = 1_795_334_400.0

EVERY_ERROR = [
    SettleSettleError("m", 418, "TEAPOT", {"a": 1}),
    ValidationError("m", {"quantity": ["too small"]}, {"a": 1}),
    AuthenticationError(),
    InsufficientCreditsError("u", 3, 10, {"a": 1}),
    TimeoutError(10_000),
    RateLimitError(1500),
    ApiError("m", 503),
    SettingsError("flush_interval_s", "argument", "'x' is not a number", "a number"),
]


@pytest.mark.parametrize(
    ("status", "cls", "code"),
    [
        (400, ValidationError, "VALIDATION_ERROR"),
        (401, AuthenticationError, "AUTHENTICATION_ERROR"),
        (402, InsufficientCreditsError, "INSUFFICIENT_CREDITS"),
        (403, ApiError, "API_ERROR"),
        (408, TimeoutError, "TIMEOUT_ERROR"),
        (409, ApiError, "API_ERROR"),
        (422, ApiError, "API_ERROR"),
        (429, RateLimitError, "RATE_LIMIT_ERROR"),
        (500, ApiError, "API_ERROR"),
        (503, ApiError, "API_ERROR"),
    ],
)
def test_each_status_is_the_class_that_users_catch(
    status: int, cls: type[SettleSettleError], code: str
) -> None:
    """The class, the status and the code are the vendor's; the body is kept."""
    error = error_from_answer(status, {"message": "no"}, {}, now_s=NOW_S)
    assert type(error) is cls
    assert isinstance(error, SettleSettleError)
    assert (error.status_code, error.code, error.payload) == (status, code, {"message": "no"})


def test_insufficient_credits_says_who_has_what() -> None:
    """The attributes come from the answer's data."""
    data = {"userId": "user_1", "currentBalance": 3, "requestedAmount": 10}
    error = error_from_answer(402, {"message": "no", "data": data}, {}, now_s=NOW_S)
    assert isinstance(error, InsufficientCreditsError)
    assert (error.user_id, error.current_balance, error.requested_amount) == ("user_1", 3, 10)
    assert "user_1" in error.message


def test_validation_error_says_which_fields() -> None:
    """The fields come from the answer's data; without any they are None."""
    error = error_from_answer(
        400, {"message": "no", "data": {"fields": {"quantity": ["too small"]}}}, {}, now_s=NOW_S
    )
    assert isinstance(error, ValidationError)
    assert (error.fields, error.message) == ({"quantity": ["too small"]}, "no")
    bare = error_from_answer(400, {"message": "no"}, {}, now_s=NOW_S)
    assert isinstance(bare, ValidationError)
    assert bare.fields is None


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2000),
        ({"retry-after": " 120 "}, 120_000),
        ({"RETRY-AFTER": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "²"}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 08:00:30 GMT"}, 30_000),
        ({"Retry-After": "Sun, 22 Nov 2026 07:00:00 GMT"}, 0),
        ({"Retry-After": "9" * 5000}, 3_600_000),
    ],
)
def test_rate_limit_says_how_long(headers: dict[str, str], expected: int | None) -> None:
    """Retry-After is read in both its forms and any case, from a dict as from httpx; nonsense is None."""
    as_they_came = [(name.encode(), value.encode()) for name, value in headers.items()]
    for given in (headers, httpx.Headers(as_they_came)):
        error = error_from_answer(429, None, given, now_s=NOW_S)
        assert isinstance(error, RateLimitError)
        assert error.retry_after_ms == expected


@pytest.mark.parametrize("payload", [None, "text", [], 7, {"message": 7}, {"message": "", "data": []}])
@pytest.mark.parametrize("status", [400, 401, 402, 408, 429, 500])
def test_any_body_makes_an_error(status: int, payload: Any) -> None:
    """A body that nobody promised is kept as it is, and the message says the status at least."""
    error = error_from_answer(status, payload, {}, now_s=NOW_S)
    assert error.status_code == status
    assert error.payload == payload
    assert error.message


def test_keys_that_an_upstream_quotes_are_hidden() -> None:
    """Neither message, payload nor text of an error holds an API key."""
    body = {"message": "bad key ss_live_4f9a", "data": {"headers": ["X-API-Key: ss_live_4f9a", 1]}}
    error = error_from_answer(401, body, {}, now_s=NOW_S)
    assert "4f9a" not in f"{error} {error!r} {error.message} {error.payload}"
    assert error.payload["data"]["headers"][1] == 1


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_every_error_survives_pickle_and_copy(error: Exception) -> None:
    """Type, text and attributes are the same on the other side, those that were set later too."""
    error = copy.copy(error)
    error.__dict__["set_later"] = True
    for again in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):  # noqa: S301
        assert type(again) is type(error)
        assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
        assert again.__dict__ == error.__dict__


def test_repr_names_message_status_and_code_only() -> None:
    """The payload is the user's data and stays out of logs."""
    assert repr(SettleSettleError("no", 418, "TEAPOT", {"email": "a@b.c"})) == (
        "SettleSettleError(message='no', status_code=418, code='TEAPOT')"
    )


def test_a_settings_error_names_key_source_and_what_is_allowed() -> None:
    """One line says all of it, and each part is an attribute."""
    error = SettingsError("batch_rows_max", "argument", "0 is out of range", "1 to 10,000")
    assert str(error) == "batch_rows_max (argument): 0 is out of range; allowed: 1 to 10,000"
    assert isinstance(error, ValueError)
    assert not isinstance(error, SettleSettleError)


def test_the_docstring_draws_every_class() -> None:
    """The tree at the head of the module is complete."""
    drawn = errors.__doc__ or ""
    classes = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    ]
    assert len(classes) == len(EVERY_ERROR)
    assert [name for name in classes if name not in drawn] == []
