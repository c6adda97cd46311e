"""Outcomes: what an answer means for a batch.

Rule 1: this file holds the one table from an answer to an outcome. What is done then is in `step.py`.
Rule 2: certain is only what cannot have been applied; whatever leaves room for doubt is in doubt.
Rule 3: no clock; callers pass now_s, in seconds since 1970.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING

from settle_mp.core.answer import BodyKind, Failure, NoReply

if TYPE_CHECKING:
    from settle_mp.core.answer import Answer, Reply

#: Longest Retry-After that we follow, in seconds: a wrong one must not stop the billing for a day.
RETRY_AFTER_MAX_S = 3600.0
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


class Outcome(Enum):
    """What an answer means for the batch."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    IN_DOUBT = "in doubt"
    REFUSED = "refused"
    TOO_LARGE = "too large"
    MISCONFIGURED = "wrong set-up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An answer, judged.

    Attributes:
        outcome: What it means.
        reason: Why, in one line for a person; for a wrong set-up with what to mend.
        retry_after_s: How long the upstream asks to be left alone; None when it doesn't say.
        refused_rows: Rows named as guilty, counted from 0. A hint: it may be wrong.
    """

    outcome: Outcome
    reason: str
    retry_after_s: float | None = None
    refused_rows: tuple[int, ...] = ()


#: The verdict on a batch that is found `attempting` when the collector starts (its try never reported back).
INTERRUPTED = Verdict(outcome=Outcome.IN_DOUBT, reason="the collector ended while the request was under way")

_OUTCOME_OF_STATUS = {
    401: Outcome.MISCONFIGURED,
    402: Outcome.MISCONFIGURED,
    403: Outcome.MISCONFIGURED,
    404: Outcome.MISCONFIGURED,
    405: Outcome.MISCONFIGURED,
    # Only a proxy answers so, and no row can be its reason.
    407: Outcome.MISCONFIGURED,
    408: Outcome.IN_DOUBT,
    409: Outcome.DEFERRED,
    413: Outcome.TOO_LARGE,
    429: Outcome.DEFERRED,
}
# By the first digit. 5xx is in doubt also with Retry-After: what answered may not be what applied. A final
# 1xx and what HTTP does not know say nothing about the batch.
_OUTCOME_OF_CLASS = {2: Outcome.ACCEPTED, 3: Outcome.MISCONFIGURED, 4: Outcome.REFUSED}

_MEND_OF_STATUS = {
    401: "check api_key (SETTLESETTLE_API_KEY)",
    402: "the vendor wants this account to be paid",
    403: "check that api_key (SETTLESETTLE_API_KEY) may send events",
    404: "check base_url (SETTLESETTLE_BASE_URL)",
    405: "check base_url (SETTLESETTLE_BASE_URL)",
    407: "check the user and password in HTTP_PROXY or HTTPS_PROXY",
}


def classify(answer: Answer, *, now_s: float) -> Verdict:
    """Judge an answer.

    Args:
        answer: What came back, or why nothing did.
        now_s: The time at which it came, which a Retry-After with a date is measured from.
    """
    if isinstance(answer, NoReply):
        return _classify_failure(answer)
    outcome = _OUTCOME_OF_STATUS.get(answer.status)
    if outcome is None:
        outcome = _OUTCOME_OF_CLASS.get(answer.status // 100, Outcome.IN_DOUBT)
    # A proxy's "everything is fine" page comes with 200 and HTML, and proves nothing about the upstream.
    if outcome is Outcome.ACCEPTED and answer.body_kind not in {BodyKind.JSON, BodyKind.EMPTY}:
        outcome = Outcome.IN_DOUBT
    return Verdict(
        outcome=outcome,
        reason=_reason(answer, outcome),
        retry_after_s=parse_retry_after(answer.retry_after, now_s=now_s),
        refused_rows=answer.refused_rows if outcome is Outcome.REFUSED else (),
    )


def _classify_failure(answer: NoReply) -> Verdict:
    outcome = Outcome.IN_DOUBT if answer.failure.is_maybe_applied else Outcome.DEFERRED
    reason = f"{answer.failure.value}: {answer.detail}" if answer.detail else answer.failure.value
    if answer.failure is Failure.TLS:
        reason += "; check base_url and the certificates (SSL_CERT_FILE)"
    return Verdict(outcome=outcome, reason=reason)


def _reason(reply: Reply, outcome: Outcome) -> str:
    reason = f"the upstream answered {reply.status}"
    if reply.message:
        reason += f": {reply.message}"
    if outcome is Outcome.IN_DOUBT and reply.body_kind is BodyKind.OTHER:
        reason += f" with a body that is not JSON ({reply.content_type or 'no content type'})"
    if outcome is Outcome.IN_DOUBT and reply.body_kind is BodyKind.CUT:
        reason += " with a body that did not come to its end"
    if outcome is Outcome.MISCONFIGURED:
        reason += f"; {_mend(reply)}"
    return reason


def _mend(reply: Reply) -> str:
    named = _MEND_OF_STATUS.get(reply.status)
    if named is not None:
        return named
    target = f" to {reply.location}" if reply.location else ""
    return f"it redirects{target}, which is not followed: check base_url (SETTLESETTLE_BASE_URL)"


def parse_retry_after(text: str | None, *, now_s: float) -> float | None:
    """Seconds to wait as a Retry-After header asks for (RFC 9110, section 10.2.3), at most RETRY_AFTER_MAX_S.

    Returns:
        None for no header and for one that is neither seconds nor a date; 0 for a date that has passed.
    """
    if text is None:
        return None
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), RETRY_AFTER_MAX_S)
    try:
        date = parsedate_to_datetime(text)
        # HTTP dates are in UTC, and the old forms do not say so.
        at_s = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return min(max(at_s - now_s, 0.0), RETRY_AFTER_MAX_S)
