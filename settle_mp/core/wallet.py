"""Wallets: what the upstream says of one, as values.

Amounts are whole credits, and int. Imported by every worker, so it imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Transactions that a walk through the pages remembers, so as not to give one twice.
SEEN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletBalance:
    """What a wallet holds.

    Attributes:
        user_id: Whose.
        balance: Credits.
    """

    user_id: str
    balance: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletTransaction:
    """One movement of credits.

    Attributes:
        id: The upstream's name for it.
        type: "CREDIT", "DEBIT" or "AD_REWARD".
        amount: Credits moved, above 0 whichever way.
        balance_after: What the wallet held then, in credits.
        description: What for, or None.
        created_at: When, as the upstream writes it (ISO 8601).
    """

    id: str
    type: str
    amount: int
    balance_after: int
    description: str | None
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletHistory:
    """One page of a wallet's transactions.

    Attributes:
        user_id: Whose.
        current_balance: What the wallet holds now, in credits.
        transactions: The page's transactions, in the upstream's order.
        pagination: What the upstream says about pages; the vendor does not document its fields.
    """

    user_id: str
    current_balance: int
    transactions: tuple[WalletTransaction, ...]
    pagination: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pages_count(self) -> int | None:
        """How many pages there are, where the upstream says it in a way that we know."""
        for name in ("totalPages", "pages", "pageCount"):
            said = self.pagination.get(name)
            if isinstance(said, int) and not isinstance(said, bool):
                return said
        return None


class Pages:
    """Walks the pages of a history: which transactions are new, and whether another page is to be asked for.

    Transactions that come in meanwhile push older ones on to the next page, so some are met twice.
    """

    def __init__(self) -> None:
        self.number: int = 1
        self.is_over: bool = False
        # In order, so that the oldest are forgotten first.
        self._seen: dict[str, None] = {}

    def take(self, page: WalletHistory) -> list[WalletTransaction]:
        """Give what is new on the page that was asked for, and go on to the next one."""
        found = [each for each in page.transactions if each.id not in self._seen]
        self._seen.update(dict.fromkeys(each.id for each in found))
        for oldest in list(self._seen)[: max(0, len(self._seen) - SEEN_MAX)]:
            del self._seen[oldest]
        is_last = not found if page.pages_count is None else self.number >= page.pages_count
        # A server that ignores `page` would otherwise be asked for ever.
        self.is_over = is_last or not page.transactions
        self.number += 1
        return found
