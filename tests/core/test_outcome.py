"""The table from an answer to an outcome."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.answer import BodyKind, Failure, NoReply, Reply
from settle_mp.core.outcome import (
    INTERRUPTED,
    RETRY_AFTER_MAX_S,
    Outcome,
    Verdict,
    classify,
    parse_retry_after,
)

NOW_S = datetime(2026, 11, 22, 8, 0, 0, tzinfo=timezone.utc).timestamp()


def _judge(status: int, kind: BodyKind = BodyKind.JSON, **fields: str) -> Verdict:
    return classify(Reply(status=status, body_kind=kind, **fields), now_s=NOW_S)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ((200, 201, 202, 204, 207), Outcome.ACCEPTED),
        ((429, 409), Outcome.DEFERRED),
        ((408, 500, 502, 503, 504, 520, 599), Outcome.IN_DOUBT),
        ((101, 199, 600, 999), Outcome.IN_DOUBT),
        ((400, 422, 406, 410, 415, 418, 451), Outcome.REFUSED),
        ((413,), Outcome.TOO_LARGE),
        ((401, 402, 403, 404, 405, 407), Outcome.MISCONFIGURED),
        ((300, 301, 302, 303, 304, 307, 308), Outcome.MISCONFIGURED),
    ],
)
@pytest.mark.parametrize("kind", [BodyKind.JSON, BodyKind.EMPTY])
def test_each_status_has_its_outcome(statuses: tuple[int, ...], outcome: Outcome, kind: BodyKind) -> None:
    """The table of the design, and the statuses that it leaves to a class."""
    assert {status: _judge(status, kind).outcome for status in statuses} == dict.fromkeys(statuses, outcome)


@pytest.mark.parametrize("kind", [BodyKind.OTHER, BodyKind.CUT])
def test_a_2xx_without_a_whole_json_body_is_in_doubt(kind: BodyKind) -> None:
    """A proxy's page, and an answer that broke off, do not prove that the upstream accepted."""
    verdict = _judge(200, kind, content_type="text/html")
    assert verdict.outcome is Outcome.IN_DOUBT
    assert "200" in verdict.reason
    assert ("text/html" in verdict.reason) is (kind is BodyKind.OTHER)


@pytest.mark.parametrize("kind", list(BodyKind))
def test_a_refusal_needs_no_body(kind: BodyKind) -> None:
    """A refusal is certain by its status, whatever page comes with it."""
    assert _judge(400, kind).outcome is Outcome.REFUSED
    assert _judge(413, kind).outcome is Outcome.TOO_LARGE


@pytest.mark.parametrize("failure", list(Failure))
def test_a_failure_is_in_doubt_or_deferred(failure: Failure) -> None:
    """What may have been applied is in doubt; what certainly was not is tried again."""
    verdict = classify(NoReply(failure=failure, detail="the cause"), now_s=NOW_S)
    expected = Outcome.IN_DOUBT if failure.name.startswith("SENT") else Outcome.DEFERRED
    assert verdict.outcome is expected
    assert verdict.reason.startswith(f"{failure.value}: the cause")
    assert verdict.retry_after_s is None


@pytest.mark.parametrize(
    ("status", "mend"),
    [
        (401, "SETTLESETTLE_API_KEY"),
        (402, "paid"),
        (403, "SETTLESETTLE_API_KEY"),
        (404, "SETTLESETTLE_BASE_URL"),
        (405, "SETTLESETTLE_BASE_URL"),
        (407, "HTTPS_PROXY"),
        (302, "SETTLESETTLE_BASE_URL"),
    ],
)
def test_a_wrong_set_up_says_what_to_mend(status: int, mend: str) -> None:
    """The reason names the setting."""
    assert mend in _judge(status).reason


def test_a_redirect_says_where_to() -> None:
    """With the target in the reason, the mend is a copy away."""
    reason = _judge(308, location="https://new.example/v1/events/batch").reason
    assert "https://new.example/v1/events/batch" in reason


def test_the_reason_carries_the_words_of_the_upstream() -> None:
    """What the upstream says reaches the status page and the dead letter."""
    assert _judge(422, message="quantity must be positive").reason == (
        "the upstream answered 422: quantity must be positive"
    )


def test_named_rows_are_a_hint_for_refusals_only() -> None:
    """Rows are passed on where the next step is a division."""
    refused = Reply(status=400, body_kind=BodyKind.JSON, refused_rows=(3,))
    odd = Reply(status=500, body_kind=BodyKind.JSON, refused_rows=(3,))
    assert classify(refused, now_s=NOW_S).refused_rows == (3,)
    assert classify(odd, now_s=NOW_S).refused_rows == ()


def test_an_interrupted_try_is_in_doubt() -> None:
    """What is found attempting at start may have been applied."""
    assert INTERRUPTED.outcome is Outcome.IN_DOUBT


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("86400", RETRY_AFTER_MAX_S),
        ("9" * 6000, RETRY_AFTER_MAX_S),
        ("Sun, 22 Nov 2026 08:00:30 GMT", 30.0),
        ("Sunday, 22-Nov-26 08:00:30 GMT", 30.0),
        ("Sun Nov 22 08:00:30 2026", 30.0),
        ("Sun, 22 Nov 2026 07:00:00 GMT", 0.0),
        ("Wed, 22 Nov 2028 08:00:00 GMT", RETRY_AFTER_MAX_S),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e3", None),
        ("120, 120", None),
        ("٣", None),
        ("Sun, 99 Nov 2026 08:00:30 GMT", None),
        ("Sun, 22 Nov 12026 08:00:30 GMT", None),
    ],
    ids=lambda value: repr(value)[:34],
)
def test_retry_after_is_read_in_both_forms(text: str | None, seconds: float | None) -> None:
    """Seconds, and a date relative to now in each of the forms of RFC 9110; garbage is no header."""
    assert parse_retry_after(text, now_s=NOW_S) == seconds


@given(st.text(max_size=40))
def test_no_retry_after_breaks_anything(text: str) -> None:
    """Any text is None or within the cap."""
    seconds = parse_retry_after(text, now_s=NOW_S)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_S


@pytest.mark.parametrize("status", [429, 503, 401])
def test_retry_after_is_read_with_any_status(status: int) -> None:
    """The verdict carries it; whether it lengthens anything is the step's affair."""
    assert _judge(status, retry_after="12").retry_after_s == 12.0
