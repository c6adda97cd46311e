"""Usage calls: how the upstream is asked for what it has counted, and how its answer is read."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from urllib.parse import quote

from settle_mp.core.call import Call, UnreadableError, field, whole
from settle_mp.core.event import checked_user_id
from settle_mp.core.usage import UsageSummary, UsageTotal


def summary_call(user_id: object) -> Call[UsageSummary]:
    """Look at a user's totals.

    Raises:
        TypeError, ValueError: If the user id can be none.
    """
    checked = checked_user_id(user_id)

    def read(data: Any) -> UsageSummary:
        return UsageSummary(
            user_id=checked, totals=tuple(_read_total(each) for each in field(data, "summary", list))
        )

    path = f"/v1/events/summary?userId={quote(checked, safe='')}"
    return Call(name="look at the usage", method="GET", path=path, read=read)


def _read_total(listed: Any) -> UsageTotal:
    quantity = listed.get("totalQuantity") if isinstance(listed, dict) else None
    if isinstance(quantity, bool) or not isinstance(quantity, (int, Decimal)):
        raise UnreadableError("totalQuantity is not there or is no number")
    return UsageTotal(
        event_type=field(listed, "eventType", str),
        total_quantity=quantity,
        count=whole(listed, "count"),
    )
