"""Usage events from prefork servers, counted exactly once.

The tour:

    from settle_mp import Settle

    settle = Settle()                                   # opens nothing: safe at import and before a fork
    settle.events.track("user_123", "AI_QUERY")         # durable when it returns, about a microsecond later
    settle.events.flush(timeout=5.0)                    # truthy when the upstream has confirmed it
    settle.wallet.debit("user_123", amount=10)          # waits for the API; InsufficientCreditsError says no
    settle.close()                                      # optional: nothing is lost without it

Commands, settings and what can go wrong: `settle-mp --help` and the README.
"""

from settle_mp.core.usage import UsageSummary, UsageTotal
from settle_mp.core.wallet import WalletBalance, WalletHistory, WalletTransaction
from settle_mp.errors import (
    ApiError,
    AuthenticationError,
    InsufficientCreditsError,
    RateLimitError,
    SettingsError,
    SettleSettleError,
    TimeoutError,  # noqa: A004  the vendor's name, which users catch
    ValidationError,
)
from settle_mp.version import __version__
from settle_mp.worker.aio import AsyncSettle
from settle_mp.worker.attach import attach
from settle_mp.worker.client import Settle
from settle_mp.worker.report import FlushReport

#: The vendor's names, so that only an import line has to change.
SettleSettle = Settle
AsyncSettleSettle = AsyncSettle

__all__ = [
    "ApiError",
    "AsyncSettle",
    "AsyncSettleSettle",
    "AuthenticationError",
    "FlushReport",
    "InsufficientCreditsError",
    "RateLimitError",
    "SettingsError",
    "Settle",
    "SettleSettle",
    "SettleSettleError",
    "TimeoutError",
    "UsageSummary",
    "UsageTotal",
    "ValidationError",
    "WalletBalance",
    "WalletHistory",
    "WalletTransaction",
    "__version__",
    "attach",
]
