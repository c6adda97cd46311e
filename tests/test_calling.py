"""Calling: what follows from each answer, with plain values for answers and times."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.calling import BACKOFF_MAX_S, READ_TRIES_MAX, Calling, Found, Wait
from settle_mp.core.answer import Failure, NoReply
from settle_mp.core.call import Call, Heard, UnreadableError, hear
from settle_mp.errors import (
    ApiError,
    AuthenticationError,
    InsufficientCreditsError,
    RateLimitError,
    SettleSettleError,
    TimeoutError,  # noqa: A004 - the vendor's name
    ValidationError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

WALL_S = 1_800_000_000.0
SHORT = {"userId": "u", "currentBalance": 1, "requestedAmount": 10}
NOT_SENT = [Failure.REFUSED, Failure.NAME_NOT_FOUND, Failure.CONNECT_TIMEOUT, Failure.NOT_SENT_OTHER]
SENT = [Failure.SENT_THEN_TIMEOUT, Failure.SENT_THEN_RESET, Failure.SENT_THEN_OTHER]


def _read(data: Any) -> str:
    if not isinstance(data, str):
        raise UnreadableError("it is not text")
    return data


WRITE = Call(
    name="debit", method="POST", path="/v1/wallet/u/debit", read=_read, body=b"{}", idempotency_key="the-key"
)
OWN_KEY = Call(
    name="debit",
    method="POST",
    path="/v1/wallet/u/debit",
    read=_read,
    idempotency_key="the-key",
    is_callers_key=True,
)
READ = Call(name="look at the wallet", method="GET", path="/v1/wallet/u", read=_read)


def _said(status: int, body: Any = None, **headers: str) -> Heard:
    raw = b"" if body is None else json.dumps(body).encode()
    return hear(
        status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, is_whole=True
    )


DONE = _said(200, {"data": "done"})


def _run(
    call: Call[str], answers: Sequence[Heard | NoReply], *, on_in_doubt: str = "raise", timeout: float = 10.0
) -> tuple[str, list[float]]:
    """Judge answers one after the other, each taking no time; returns the result and the waits."""
    calling = Calling(call, timeout=timeout, on_in_doubt=on_in_doubt, now_s=100.0)
    waits: list[float] = []
    for answer in answers:
        judged = calling.judge(answer, now_s=100.0 + sum(waits), wall_s=WALL_S, jitter=0.5)
        if isinstance(judged, Found):
            return judged.value, waits
        assert isinstance(judged, Wait)
        waits.append(judged.seconds)
    pytest.fail("it goes on for longer than there were answers")


def _fails(
    call: Call[str], *answers: Heard | NoReply, on_in_doubt: str = "raise", timeout: float = 10.0
) -> SettleSettleError:
    with pytest.raises(SettleSettleError) as caught:
        _run(call, answers, on_in_doubt=on_in_doubt, timeout=timeout)
    return caught.value


@pytest.mark.parametrize("call", [WRITE, READ])
@pytest.mark.parametrize("failure", NOT_SENT)
def test_what_was_not_sent_is_tried_again(call: Call[str], failure: Failure) -> None:
    """Soon, and then less soon."""
    value, waits = _run(call, [*[NoReply(failure=failure)] * 4, DONE])
    assert value == "done"
    assert waits == sorted(waits)
    assert all(0 < wait <= BACKOFF_MAX_S for wait in waits)


@pytest.mark.parametrize("failure", [*NOT_SENT, Failure.TLS])
def test_what_was_never_sent_ends_at_the_deadline_and_is_certain(failure: Failure) -> None:
    """The error says that nothing was sent, and is not in doubt."""
    error = _fails(WRITE, *[NoReply(failure=failure, detail="why")] * 100)
    assert (error.is_in_doubt, error.idempotency_key, error.status_code in {0, 408}) == (
        False,
        "the-key",
        True,
    )
    assert "nothing was sent" in str(error)
    assert isinstance(error, TimeoutError) == (failure is Failure.CONNECT_TIMEOUT)


def test_a_broken_certificate_is_not_tried_again() -> None:
    """It does not mend itself within seconds."""
    assert "TLS" in str(_fails(WRITE, NoReply(failure=Failure.TLS)))


@pytest.mark.parametrize(
    "answer",
    [
        *[NoReply(failure=failure, detail="why") for failure in SENT],
        _said(500),
        _said(503, {"message": "later"}, retry_after="1"),
        _said(408),
        hear(200, {}, b"<html>", is_whole=True),
        hear(200, {}, b'{"da', is_whole=False),
    ],
)
def test_a_write_that_may_have_been_made_is_raised_at_once(answer: Heard | NoReply) -> None:
    """With the key, and how to ask again; its text carries the cause."""
    error = _fails(WRITE, answer)
    assert (error.is_in_doubt, error.idempotency_key) == (True, "the-key")
    assert "may or may not have been made" in error.message
    assert "idempotency_key='the-key'" in str(error)
    assert isinstance(error, (ApiError, TimeoutError))
    assert "nothing was sent" not in str(error)


@pytest.mark.parametrize("body", [None, {}, {"data": 7}, [], {"data": None}])
def test_a_success_that_says_nothing_is_in_doubt(body: Any) -> None:
    """It was most likely made; the caller must not take the error for a refusal."""
    error = _fails(WRITE, _said(200, body))
    assert error.is_in_doubt
    assert "most likely" in str(error)
    assert not _fails(READ, _said(200, body)).is_in_doubt


def test_told_so_a_write_in_doubt_is_repeated() -> None:
    """For upstreams that honour keys; also past its 409 while the first one is at work."""
    answers: list[Heard | NoReply] = [NoReply(failure=Failure.SENT_THEN_RESET), _said(503), _said(409), DONE]
    assert _run(WRITE, answers, on_in_doubt="retry")[0] == "done"


def test_repeats_in_doubt_end_at_the_deadline_in_doubt() -> None:
    """The first doubt is the error."""
    error = _fails(WRITE, *[NoReply(failure=Failure.SENT_THEN_RESET)] * 99, on_in_doubt="retry")
    assert error.is_in_doubt
    assert isinstance(error, ApiError)


@pytest.mark.parametrize(
    "later",
    [_said(402, {"message": "no", "data": SHORT}), _said(400), _said(401), NoReply(failure=Failure.TLS)],
)
def test_a_refusal_after_a_doubt_proves_nothing(later: Heard | NoReply) -> None:
    """An upstream that ignores keys may have charged the first time; "insufficient credits" would lie."""
    error = _fails(WRITE, NoReply(failure=Failure.SENT_THEN_RESET), later, on_in_doubt="retry")
    assert error.is_in_doubt
    assert type(error) is ApiError
    assert "Asked again" in str(error)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (_said(400, {"message": "no", "data": {"fields": {"amount": ["bad"]}}}), ValidationError),
        (_said(401, {"message": "no"}), AuthenticationError),
        (_said(402, {"message": "no", "data": SHORT}), InsufficientCreditsError),
        (_said(403, {"message": "no"}), ApiError),
        (_said(404), ApiError),
        (_said(422, {"message": "no"}), ApiError),
        (_said(302, location="https://x.example/"), ApiError),
    ],
)
def test_a_refusal_is_certain_and_not_repeated(answer: Heard, kind: type[SettleSettleError]) -> None:
    """The vendor's class, for writes with the key, and no doubt."""
    for call, on_in_doubt in ((WRITE, "raise"), (WRITE, "retry"), (READ, "raise")):
        error = _fails(call, answer, on_in_doubt=on_in_doubt)
        assert type(error) is kind
        assert error.status_code == answer.reply.status
        assert not error.is_in_doubt
        assert error.idempotency_key == call.idempotency_key
        assert error.payload == answer.payload


def test_the_error_says_what_to_mend_where_the_answer_says_nothing() -> None:
    """A redirect and a bare 404 are wrong addresses."""
    assert "base_url" in str(_fails(READ, _said(404)))
    assert "x.example" in str(_fails(READ, _said(302, location="https://x.example/")))


def test_insufficient_credits_have_their_numbers() -> None:
    """From the answer's data."""
    error = _fails(WRITE, _said(402, {"message": "no", "data": SHORT}))
    assert isinstance(error, InsufficientCreditsError)
    assert (error.user_id, error.current_balance, error.requested_amount) == ("u", 1, 10)


def test_429_waits_as_long_as_it_asks() -> None:
    """And is an error at once where that is longer than there is time."""
    _, waits = _run(WRITE, [_said(429, retry_after="3"), _said(429), DONE])
    assert waits[0] == 3.0
    assert 0 < waits[1] < 1
    error = _fails(WRITE, _said(429, retry_after="60"))
    assert isinstance(error, RateLimitError)
    assert (error.retry_after_ms, error.is_in_doubt) == (60_000, False)


def test_429_with_0_seconds_is_no_endless_loop() -> None:
    """There is always some wait, so the deadline is met after few tries."""
    assert isinstance(_fails(WRITE, *[_said(429, retry_after="0")] * 40), RateLimitError)


def test_a_key_of_the_callers_that_is_in_use_is_in_doubt() -> None:
    """The other request under it is at work; under a key of ours a 409 is the upstream's refusal."""
    assert _fails(OWN_KEY, *[_said(409)] * 99).is_in_doubt
    assert not _fails(WRITE, *[_said(409)] * 99).is_in_doubt


def test_a_read_is_repeated_a_few_times() -> None:
    """Doing it twice does no harm; an upstream that fails it again and again fails it."""
    assert _run(READ, [_said(500), NoReply(failure=Failure.SENT_THEN_RESET), DONE])[0] == "done"
    error = _fails(READ, *[_said(500, {"message": "down"})] * READ_TRIES_MAX)
    assert (error.message, error.is_in_doubt, error.idempotency_key) == ("down", False, None)


def test_no_try_begins_with_hardly_any_time_left() -> None:
    """Giving up on it would make a doubt where there was none."""
    calling = Calling(WRITE, timeout=10.0, on_in_doubt="raise", now_s=0.0)
    assert isinstance(
        calling.judge(NoReply(failure=Failure.REFUSED), now_s=8.5, wall_s=WALL_S, jitter=0.0), Wait
    )
    with pytest.raises(ApiError) as caught:
        calling.judge(NoReply(failure=Failure.REFUSED), now_s=9.1, wall_s=WALL_S, jitter=0.0)
    assert not caught.value.is_in_doubt


def test_the_time_left_shrinks_and_is_never_none() -> None:
    """A bound of 0 would be taken for no bound."""
    calling = Calling(WRITE, timeout=10.0, on_in_doubt="raise", now_s=100.0)
    assert calling.left_s(104.0) == 6.0
    assert 0 < calling.left_s(200.0) < 0.1


def test_a_timeout_says_how_long_was_waited() -> None:
    """In milliseconds, of the whole call."""
    calling = Calling(WRITE, timeout=10.0, on_in_doubt="raise", now_s=0.0)
    with pytest.raises(TimeoutError) as caught:
        calling.judge(NoReply(failure=Failure.SENT_THEN_TIMEOUT), now_s=9.9, wall_s=WALL_S, jitter=0.0)
    assert caught.value.timeout_ms == 9_900


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 3_601, True, "1", None])
def test_timeouts_that_can_not_be_are_refused(timeout: Any) -> None:
    """Naming the argument."""
    with pytest.raises((TypeError, ValueError), match="timeout"):
        Calling(WRITE, timeout=timeout, on_in_doubt="raise", now_s=0.0)


def test_on_in_doubt_is_one_of_two_words() -> None:
    """The setting's "hold" is for events."""
    with pytest.raises(ValueError, match="on_in_doubt"):
        Calling(WRITE, timeout=1.0, on_in_doubt="hold", now_s=0.0)
