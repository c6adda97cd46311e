"""Usage: what the upstream has counted of a user, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotal:
    """What was counted of one event type.

    Attributes:
        event_type: Which.
        total_quantity: The sum, exact.
        count: How many rows it came in; settle-mp sends sums, so this is not the number of events.
    """

    event_type: str
    total_quantity: int | Decimal
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSummary:
    """What the upstream has counted of a user.

    `summary["summary"]` gives the list of dicts that the vendor's SDK returns.

    Attributes:
        user_id: Whose usage.
        totals: One for each event type.
    """

    user_id: str
    totals: tuple[UsageTotal, ...] = ()

    def __getitem__(self, name: str) -> list[dict[str, Any]]:
        if name != "summary":
            raise KeyError(name)
        return [
            {"eventType": each.event_type, "totalQuantity": each.total_quantity, "count": each.count}
            for each in self.totals
        ]
