"""The wallet for event loops: the calls of `wallet`, awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from settle_mp.calling import TIMEOUT_S
from settle_mp.core.wallet import Pages
from settle_mp.core.wallet_calls import balance_call, history_call
from settle_mp.worker.async_line import async_line_for
from settle_mp.worker.wallet import PAGE_SIZE, move, reward

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from settle_mp.calling import OnInDoubt
    from settle_mp.config import Settings
    from settle_mp.core.wallet import WalletBalance, WalletHistory, WalletTransaction
    from settle_mp.core.wallet_calls import Move, Reward


class AsyncWallet:
    """Credits of users. Use `AsyncSettle().wallet`; any number of tasks may.

    All calls raise `SettleSettleError` or one of its kinds when they fail, and `TypeError` or `ValueError`
    for arguments that can't be, before anything is sent.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing, start nothing."""
        self._line = async_line_for(settings)

    async def get_balance(self, user_id: str, *, timeout: float = TIMEOUT_S) -> WalletBalance:
        """Look at what a user's wallet holds; see `Wallet.get_balance`."""
        return await self._line.do(balance_call(user_id), timeout=timeout, on_in_doubt="raise")

    async def debit(  # noqa: PLR0913 - The vendor's arguments, and those that make them safe.
        self,
        user_id: str,
        request: Move = None,
        *,
        amount: int | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        on_in_doubt: OnInDoubt = "raise",
        timeout: float = TIMEOUT_S,
    ) -> WalletTransaction:
        """Take credits from a user's wallet, once or not at all; see `Wallet.debit`.

        A task that is cancelled here leaves it open whether credits were taken: give an idempotency_key of
        your own to be able to ask again.
        """
        given = {"amount": amount, "description": description, "metadata": metadata}
        call = move("debit", user_id, request, given, idempotency_key)
        return await self._line.do(call, timeout=timeout, on_in_doubt=on_in_doubt)

    async def credit(  # noqa: PLR0913 - The same as those of debit().
        self,
        user_id: str,
        request: Move = None,
        *,
        amount: int | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        on_in_doubt: OnInDoubt = "raise",
        timeout: float = TIMEOUT_S,
    ) -> WalletTransaction:
        """Give credits to a user's wallet, once or not at all; see `debit`."""
        given = {"amount": amount, "description": description, "metadata": metadata}
        call = move("credit", user_id, request, given, idempotency_key)
        return await self._line.do(call, timeout=timeout, on_in_doubt=on_in_doubt)

    async def record_ad_reward(  # noqa: PLR0913 - The vendor's arguments, and those that make them safe.
        self,
        user_id: str,
        request: Reward = None,
        *,
        ad_network: str | None = None,
        reward_amount: int | None = None,
        ad_unit_id: str | None = None,
        idempotency_key: str | None = None,
        on_in_doubt: OnInDoubt = "raise",
        timeout: float = TIMEOUT_S,
    ) -> WalletTransaction:
        """Give a user credits for a verified ad view, once or not at all; see `Wallet.record_ad_reward`."""
        given = {"ad_network": ad_network, "reward_amount": reward_amount, "ad_unit_id": ad_unit_id}
        call = reward(user_id, request, given, idempotency_key)
        return await self._line.do(call, timeout=timeout, on_in_doubt=on_in_doubt)

    async def get_history(
        self, user_id: str, page: int = 1, limit: int = 10, *, timeout: float = TIMEOUT_S
    ) -> WalletHistory:
        """Look at one page of a user's transactions; see `Wallet.get_history`."""
        call = history_call(user_id, page, limit)
        return await self._line.do(call, timeout=timeout, on_in_doubt="raise")

    def iter_history(
        self, user_id: str, *, page_size: int = PAGE_SIZE, timeout: float = TIMEOUT_S
    ) -> AsyncIterator[WalletTransaction]:
        """Walk through all of a user's transactions with `async for`; see `Wallet.iter_history`."""
        history_call(user_id, 1, page_size)  # bad arguments are told here and not at the first step
        return self._walk(user_id, page_size, timeout)

    async def _walk(self, user_id: str, page_size: int, timeout: float) -> AsyncIterator[WalletTransaction]:
        pages = Pages()
        while not pages.is_over:
            page = await self.get_history(user_id, pages.number, page_size, timeout=timeout)
            for transaction in pages.take(page):
                yield transaction

    async def aclose(self) -> None:
        """Close the connections of the running loop; later calls open their own."""
        await self._line.aclose()
