"""Transfers: credits that moved, what wallets hold since, and how both are read.

Rule 1: a balance and the transaction that changed it are written in one SQLite transaction, and the check
    of the balance stands in the same one: no two debits can spend the same credit.
Rule 2: a balance is never below 0 and never above what every JSON reader takes exactly.
Rule 3: a wallet that nobody has used holds 0.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from settle_mp.sandbox.store import Store

#: Credits of one wallet or transaction: up to there integers are exact in any JSON reader (RFC 8259, 6).
CREDITS_MAX: Final = 2**53 - 1

Kind = Literal["CREDIT", "DEBIT", "AD_REWARD"]

_BALANCE: Final = "SELECT balance FROM wallets WHERE user_id = ?"
_COLUMNS: Final = "id, kind, amount, balance_after, description, created_at"
_INSERT: Final = """INSERT INTO transfers
    (user_id, kind, amount, balance_after, description, metadata, key, created_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_SET: Final = """INSERT INTO wallets VALUES (?, ?)
    ON CONFLICT (user_id) DO UPDATE SET balance = excluded.balance"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """A movement that was asked for.

    Attributes:
        user_id: Whose wallet.
        kind: What it is; only a DEBIT takes.
        amount: Credits, at least 1.
        description: What for.
        metadata: The request's metadata as JSON text.
    """

    user_id: str
    kind: Kind
    amount: int
    description: str | None = None
    metadata: str | None = None


class ShortageError(Exception):
    """A debit of more than the wallet holds."""

    def __init__(self, balance: int) -> None:
        super().__init__(balance)
        self.balance = balance


class TooMuchError(Exception):
    """A credit that the wallet could not count exactly any more."""


def move(db: sqlite3.Connection, transfer: Transfer, key: str | None) -> dict[str, Any]:
    """Make a transfer within the caller's transaction, and give it as the upstream describes it.

    Raises:
        ShortageError: For a debit of more than there is.
        TooMuchError: For a credit beyond CREDITS_MAX.
    """
    before = _balance_of(db.execute(_BALANCE, (transfer.user_id,)).fetchall())
    after = before - transfer.amount if transfer.kind == "DEBIT" else before + transfer.amount
    if after < 0:
        raise ShortageError(before)
    if after > CREDITS_MAX:
        raise TooMuchError
    db.execute(_SET, (transfer.user_id, after))
    fields = (transfer.kind, transfer.amount, after, transfer.description)
    now = _now()
    number = db.execute(_INSERT, (transfer.user_id, *fields, transfer.metadata, key, now)).lastrowid
    return _listed((number, *fields, now))


def seed(db: sqlite3.Connection, balances: Mapping[str, int]) -> list[str]:
    """Credit each user's wallet once: those that were never used. Returns whose."""
    seeded = [user_id for user_id in balances if not db.execute(_BALANCE, (user_id,)).fetchall()]
    for user_id in seeded:
        if balances[user_id] == 0:
            db.execute(_SET, (user_id, 0))
        else:
            amount = balances[user_id]
            move(db, Transfer(user_id=user_id, kind="CREDIT", amount=amount, description="Seed"), None)
    return seeded


def checked_balances(parsed: Any) -> dict[str, int]:
    """Check balances to seed: whole numbers of credits by user.

    Raises:
        TypeError, ValueError: Saying what is wrong.
    """
    if not isinstance(parsed, dict):
        raise TypeError("an object with credits by user id is needed")
    for user_id, held in parsed.items():
        # encode() raises for half a surrogate pair, which JSON can spell and no text column can hold.
        if not user_id.encode():
            raise ValueError("a user id must not be empty")
        if isinstance(held, bool) or not isinstance(held, int) or not 0 <= held <= CREDITS_MAX:
            raise ValueError(f"credits must be a whole number from 0 to {CREDITS_MAX}")
    return parsed


def balance(store: Store, user_id: str) -> int:
    """What a wallet holds."""
    return _balance_of(store.read(_BALANCE, (user_id,)))


def balances(store: Store) -> dict[str, int]:
    """What each wallet holds that was ever used."""
    return dict(store.read("SELECT user_id, balance FROM wallets ORDER BY user_id"))


def history(store: Store, user_id: str, *, page: int, limit: int) -> dict[str, Any]:
    """One page of a wallet's transactions as the upstream gives it, the newest first.

    The vendor does not document what `pagination` holds; this is what such APIs usually say.
    """
    ((total,),) = store.read("SELECT count(*) FROM transfers WHERE user_id = ?", (user_id,))
    found = store.read(
        f"SELECT {_COLUMNS} FROM transfers WHERE user_id = ? ORDER BY id DESC LIMIT ? OFFSET ?",  # noqa: S608 - A constant.
        (user_id, limit, (page - 1) * limit),
    )
    pages = -(-total // limit)
    return {
        "userId": user_id,
        "currentBalance": balance(store, user_id),
        "transactions": [_listed(row) for row in found],
        "pagination": {"page": page, "limit": limit, "total": total, "totalPages": pages},
    }


def _balance_of(rows: list[tuple[Any, ...]]) -> int:
    return int(rows[0][0]) if rows else 0


def _listed(row: tuple[Any, ...]) -> dict[str, Any]:
    number, kind, amount, after, description, created_at = row
    return {
        "id": f"txn_{number}",
        "type": kind,
        "amount": amount,
        "balanceAfter": after,
        "description": description,
        "createdAt": created_at,
    }


def _now() -> str:
    return dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
