"""A wallet that lives in the memory of the process that runs a test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from collections import deque
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from settle_mp.config import Settings
from settle_mp.core.answer import Failure, NoReply
from settle_mp.core.call import Heard, hear
from settle_mp.worker.async_line import AsyncLine, Awaited
from settle_mp.worker.async_wallet import AsyncWallet
from settle_mp.worker.line import Line, stand_ins
from settle_mp.worker.wallet import Wallet

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from settle_mp.core.call import Call

_PATH: Final = re.compile(r"/v1/wallet/(?P<user>[^/]+)(?:/(?P<name>[a-z-]+))?")
# No client of these ever opens anything.
_SETTINGS: Final = Settings(state_dir=Path(os.devnull))
_NAMES: Final = {"debit": "DEBIT", "credit": "CREDIT", "ad-reward": "AD_REWARD"}


class FakeWallet(Wallet):
    """A wallet whose upstream is a dict. `aio` is the same wallet with calls that are awaited.

    Its calls are those of `settle.wallet`, with the same checks, results and errors: a debit beyond the
    balance raises `InsufficientCreditsError` and takes nothing, a repeated `idempotency_key` charges once. It
    needs no API key and sends nothing. A forked child has a copy of its own.

    Args:
        balances: Credits by user id.

    Attributes:
        balances: Credits by user id; set and read them at any time. A user who is not there has 0.
        aio: An `AsyncWallet` of the same balances.
    """

    def __init__(self, balances: Mapping[str, int] | None = None) -> None:
        self.balances: dict[str, int] = dict(balances or {})
        self._bank = _Bank(self.balances)
        self._line = _FakeLine(self._bank)
        self.aio: AsyncWallet = _FakeAsyncWallet(self._bank)

    def fail_next(
        self, what: int | Literal["timeout", "reset", "refused"], *, is_applied: bool = False
    ) -> None:
        """Let the next call fail; several stand in a queue.

        Args:
            what: A status such as 503; or "timeout" or "reset", after which a write is in doubt; or "refused"
                for a connection that did not open, which is tried again.
            is_applied: Whether the upstream does what was asked before it fails.
        """
        self._bank.fail_next(what, is_applied=is_applied)


@contextlib.contextmanager
def fake_wallet(balances: Mapping[str, int] | None = None) -> Iterator[FakeWallet]:
    """Let a fake wallet answer for the wallets of all clients in this process.

    Args:
        balances: Credits by user id.
    """
    wallet = FakeWallet(balances)
    bank = wallet._bank  # noqa: SLF001  the two are one
    stand_ins.append(bank)
    try:
        yield wallet
    finally:
        stand_ins.remove(bank)


class _Fault(NamedTuple):
    what: int | str
    is_applied: bool


_FAILURES: Final = {
    "timeout": Failure.SENT_THEN_TIMEOUT,
    "reset": Failure.SENT_THEN_RESET,
    "refused": Failure.REFUSED,
}


class _Bank:
    """Answers calls as the upstream would."""

    def __init__(self, balances: dict[str, int]) -> None:
        self._balances = balances
        self._transactions: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[str, tuple[Call[Any], Heard]] = {}
        self._faults: deque[_Fault] = deque()
        self._lock = threading.Lock()

    def fail_next(self, what: int | str, *, is_applied: bool) -> None:
        if what not in _FAILURES and not (isinstance(what, int) and 400 <= what <= 599):  # noqa: PLR2004 - HTTP's
            allowed = f"a status from 400 to 599 or one of {', '.join(_FAILURES)}"
            raise ValueError(f"what must be {allowed}, not {what!r}")
        self._faults.append(_Fault(what, is_applied))

    # --- What lines ask of what stands in for an upstream ---

    def takes(self, call: Call[Any]) -> bool:
        return _PATH.match(call.path) is not None

    def call(self, call: Call[Any], *, timeout_s: float) -> Heard | NoReply:
        del timeout_s
        with self._lock:
            fault = self._faults.popleft() if self._faults else None
            if fault is None:
                return self._answer(call)
            if fault.is_applied:
                self._answer(call)
        if isinstance(fault.what, int):
            return _heard(fault.what, {"message": "The test says so.", "data": {}})
        return NoReply(failure=_FAILURES[fault.what], detail="the test says so")

    def _answer(self, call: Call[Any]) -> Heard:
        key = call.idempotency_key
        if key is None:
            return self._look(call)
        known, answer = self._answers.get(key, (call, None))
        if (known.path, known.body) != (call.path, call.body):
            return _refused(422, "This Idempotency-Key was used for another request.")
        if answer is None:
            answer = self._move(call)
            self._answers[key] = (call, answer)
        return answer

    def _look(self, call: Call[Any]) -> Heard:
        user_id, name = _parts(call)
        balance = self._balances.get(user_id, 0)
        if name is None:
            return _done({"userId": user_id, "balance": balance})
        query = parse_qs(urlsplit(call.path).query)
        page, limit = int(query["page"][0]), int(query["limit"][0])
        made = [each for whose, each in reversed(self._transactions) if whose == user_id]
        pages_count = -(-len(made) // limit)
        pagination = {"page": page, "limit": limit, "total": len(made), "totalPages": pages_count}
        return _done(
            {
                "userId": user_id,
                "currentBalance": balance,
                "transactions": made[(page - 1) * limit : page * limit],
                "pagination": pagination,
            }
        )

    def _move(self, call: Call[Any]) -> Heard:
        user_id, name = _parts(call)
        asked = json.loads(call.body)
        if name == "ad-reward":
            # What the sandbox says, too.
            asked = {"amount": asked["rewardAmount"], "description": f"Ad reward from {asked['adNetwork']}"}
        amount = asked["amount"]
        balance = self._balances.get(user_id, 0)
        if name == "debit" and amount > balance:
            return _refused(
                402,
                f"The wallet holds {balance} credits, and {amount} were asked for.",
                userId=user_id,
                currentBalance=balance,
                requestedAmount=amount,
            )
        self._balances[user_id] = balance + (-amount if name == "debit" else amount)
        transaction = {
            "id": f"txn_{len(self._transactions) + 1}",
            "type": _NAMES[name or ""],
            "amount": amount,
            "balanceAfter": self._balances[user_id],
            "description": asked.get("description"),
            "createdAt": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        }
        self._transactions.append((user_id, transaction))
        return _done(transaction)


class _FakeLine(Line):
    """A way to a bank."""

    def __init__(self, bank: _Bank) -> None:
        super().__init__(_SETTINGS)
        self._bank = bank

    def _way(self, call: Call[Any]) -> _Bank:
        del call
        return self._bank


class _FakeAsyncLine(AsyncLine):
    """The same for event loops."""

    def __init__(self, bank: _Bank) -> None:
        super().__init__(_SETTINGS)
        self._bank = Awaited(bank)

    async def _way(self, call: Call[Any]) -> Awaited:
        del call
        return self._bank


class _FakeAsyncWallet(AsyncWallet):
    """An `AsyncWallet` of a bank."""

    def __init__(self, bank: _Bank) -> None:
        self._line = _FakeAsyncLine(bank)


def _parts(call: Call[Any]) -> tuple[str, str | None]:
    """Whose wallet, and which call of it."""
    found = _PATH.match(call.path)
    assert found is not None, call.path  # noqa: S101 - `takes` has looked.
    return unquote(found["user"]), found["name"]


def _done(data: Mapping[str, Any]) -> Heard:
    return _heard(200, {"data": data})


def _refused(status: int, message: str, **data: Any) -> Heard:
    return _heard(status, {"message": message, "data": data})


def _heard(status: int, payload: Mapping[str, Any]) -> Heard:
    return hear(status, {}, json.dumps(payload).encode(), is_whole=True)
