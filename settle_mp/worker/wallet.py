"""The wallet: blocking calls to the API, whose result decides what the application does next.

    try:
        settle.wallet.debit("user_123", amount=10, description="AI query")
    except InsufficientCreditsError as error:
        ...                                  # certain: nothing was taken
    except SettleSettleError as error:
        if error.is_in_doubt:                # it may have been taken: error.idempotency_key asks again safely
            ...

Every write carries an `Idempotency-Key`. What certainly did not reach the upstream is tried again within one
deadline; whatever leaves it open is raised, unless the caller says `on_in_doubt="retry"`.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from settle_mp.calling import TIMEOUT_S
from settle_mp.core.call import checked_key
from settle_mp.core.wallet import Pages
from settle_mp.core.wallet_calls import balance_call, history_call, move_call, reward_call
from settle_mp.worker.line import line_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from settle_mp.calling import OnInDoubt
    from settle_mp.config import Settings
    from settle_mp.core.call import Call
    from settle_mp.core.wallet import WalletBalance, WalletHistory, WalletTransaction
    from settle_mp.core.wallet_calls import Move, Reward

#: Transactions that `iter_history` asks for at a time.
PAGE_SIZE = 50


def move(
    kind: str, user_id: str, request: Move, given: Mapping[str, Any], key: str | None
) -> Call[WalletTransaction]:
    """Make a debit or a credit, with a key of its own where the caller has none."""
    chosen = _chosen(key)
    return move_call(kind, user_id, request, given, key=chosen, is_callers_key=key is not None)


def reward(
    user_id: str, request: Reward, given: Mapping[str, Any], key: str | None
) -> Call[WalletTransaction]:
    """Make an ad reward likewise."""
    return reward_call(user_id, request, given, key=_chosen(key), is_callers_key=key is not None)


def _chosen(key: str | None) -> str:
    return str(uuid.uuid4()) if key is None else checked_key(key)


class Wallet:
    """Credits of users. Use `Settle().wallet`; any number of threads may.

    All calls raise `SettleSettleError` or one of its kinds when they fail, and `TypeError` or `ValueError`
    for arguments that can't be, before anything is sent.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing, start nothing."""
        self._line = line_for(settings)

    def get_balance(self, user_id: str, *, timeout: float = TIMEOUT_S) -> WalletBalance:
        """Look at what a user's wallet holds.

        Args:
            user_id: Whose, 1 to 256 characters.
            timeout: One deadline for all tries, in seconds.
        """
        return self._line.do(balance_call(user_id), timeout=timeout, on_in_doubt="raise")

    def debit(  # noqa: PLR0913 - The vendor's arguments, and those that make them safe.
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
        """Take credits from a user's wallet, once or not at all.

        Args:
            user_id: Whose, 1 to 256 characters.
            request: The next three in a dict, as the vendor's SDK takes them; or the amount alone.
            amount: Credits, a whole number above 0.
            description: What for, at most 1,000 characters.
            metadata: Anything JSON has under str keys, at most 8,192 bytes.
            idempotency_key: A key of your own, for asking again after an error that is in doubt, also from
                another process: 1 to 255 printable ASCII characters, never reused with other arguments. After
                a refusal take a new one: upstreams may repeat their refusal for the old.
            on_in_doubt: What to do after a timeout or a lost connection: "raise" an error whose `is_in_doubt`
                is true, or "retry" under the same key, for an upstream that honours keys.
            timeout: One deadline for all tries, in seconds.

        Raises:
            InsufficientCreditsError: When the wallet holds less. Certain: nothing was taken.
            SettleSettleError: For any other failure. Unless its `is_in_doubt` is true, nothing was taken.
            TypeError, ValueError: For bad arguments; nothing was sent.
        """
        given = {"amount": amount, "description": description, "metadata": metadata}
        call = move("debit", user_id, request, given, idempotency_key)
        return self._line.do(call, timeout=timeout, on_in_doubt=on_in_doubt)

    def credit(  # noqa: PLR0913 - The same as those of debit().
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
        """Give credits to a user's wallet, once or not at all; arguments and errors are those of `debit`."""
        given = {"amount": amount, "description": description, "metadata": metadata}
        call = move("credit", user_id, request, given, idempotency_key)
        return self._line.do(call, timeout=timeout, on_in_doubt=on_in_doubt)

    def record_ad_reward(  # noqa: PLR0913 - The vendor's arguments, and those that make them safe.
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
        """Give a user credits for a verified ad view, once or not at all.

        Args:
            user_id: Whose, 1 to 256 characters.
            request: A dict with the next three, as the vendor's SDK takes it.
            ad_network: Who verified it, 1 to 1,000 characters.
            reward_amount: Credits, a whole number above 0.
            ad_unit_id: Which ad, at most 1,000 characters.
            idempotency_key: See `debit`.
            on_in_doubt: See `debit`.
            timeout: One deadline for all tries, in seconds.
        """
        given = {"ad_network": ad_network, "reward_amount": reward_amount, "ad_unit_id": ad_unit_id}
        call = reward(user_id, request, given, idempotency_key)
        return self._line.do(call, timeout=timeout, on_in_doubt=on_in_doubt)

    def get_history(
        self, user_id: str, page: int = 1, limit: int = 10, *, timeout: float = TIMEOUT_S
    ) -> WalletHistory:
        """Look at one page of a user's transactions.

        Args:
            user_id: Whose, 1 to 256 characters.
            page: Which, from 1.
            limit: Transactions on a page, 1 to 1,000; the upstream may give fewer.
            timeout: One deadline for all tries, in seconds.
        """
        call = history_call(user_id, page, limit)
        return self._line.do(call, timeout=timeout, on_in_doubt="raise")

    def iter_history(
        self, user_id: str, *, page_size: int = PAGE_SIZE, timeout: float = TIMEOUT_S
    ) -> Iterator[WalletTransaction]:
        """Walk through all of a user's transactions, asking for pages as they are needed.

        Each comes once, also when others are made meanwhile; those made after the first page was asked for
        are not among them.

        Args:
            user_id: Whose, 1 to 256 characters.
            page_size: Transactions to ask for at a time, 1 to 1,000.
            timeout: One deadline for each page, in seconds.
        """
        history_call(user_id, 1, page_size)  # bad arguments are told here and not at the first step
        return self._walk(user_id, page_size, timeout)

    def _walk(self, user_id: str, page_size: int, timeout: float) -> Iterator[WalletTransaction]:
        pages = Pages()
        while not pages.is_over:
            yield from pages.take(self.get_history(user_id, pages.number, page_size, timeout=timeout))

    def close(self) -> None:
        """Close this process's idle connections; later calls open their own."""
        self._line.close()
