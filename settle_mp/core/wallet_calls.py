"""Wallet calls: what the caller gives, checked, the request that it becomes, and how the answer is read.

Rule 1: whatever is wrong with an argument is found here, before anything is sent.
Rule 2: in an answer the fields that the vendor documents must be there; more of them are no error.
Rule 3: a key belongs to one request: the same key with other bytes is refused by servers that honour keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from settle_mp.core.call import Call, encode, field, in_path, whole
from settle_mp.core.metadata import plain_metadata
from settle_mp.core.wallet import WalletBalance, WalletHistory, WalletTransaction

if TYPE_CHECKING:
    from typing import TypeAlias

#: Credits of one call: integers are exact up to there in any JSON reader (RFC 8259, section 6).
AMOUNT_MAX: Final = 2**53 - 1
#: Characters of a description, an ad network or an ad unit.
TEXT_CHARS_MAX: Final = 1_000
#: Transactions that one page may be asked for.
LIMIT_MAX: Final = 1_000
#: Pages of a history.
PAGE_MAX: Final = 2**31 - 1

_MOVE_NAMES: Final = ("amount", "description", "metadata")
_REWARD_NAMES: Final = ("reward_amount", "ad_network", "ad_unit_id")
# In a dict the vendor's SDK takes both ways of writing these.
_SAME: Final = {"rewardAmount": "reward_amount", "adNetwork": "ad_network", "adUnitId": "ad_unit_id"}


class MoveRequest(Protocol):
    """What the vendor's SDK has as `ModifyWalletRequest`."""

    amount: int
    description: str | None
    metadata: dict[str, Any] | None


class RewardRequest(Protocol):
    """What the vendor's SDK has as `AdRewardRequest`."""

    ad_network: str
    reward_amount: int
    ad_unit_id: str | None


Move: TypeAlias = "int | Mapping[str, Any] | MoveRequest | None"
Reward: TypeAlias = "Mapping[str, Any] | RewardRequest | None"


def balance_call(user_id: object) -> Call[WalletBalance]:
    """Look at a wallet."""
    path = f"/v1/wallet/{in_path(user_id)}"
    return Call(name="look at the wallet", method="GET", path=path, read=_read_balance)


def history_call(user_id: object, page: object, limit: object) -> Call[WalletHistory]:
    """Look at a page of a wallet's transactions."""
    pages, limits = _whole("page", page, PAGE_MAX), _whole("limit", limit, LIMIT_MAX)
    path = f"/v1/wallet/{in_path(user_id)}/history?page={pages}&limit={limits}"
    return Call(name="look at the history", method="GET", path=path, read=_read_history)


def move_call(
    kind: str, user_id: object, request: Move, given: Mapping[str, Any], *, key: str, is_callers_key: bool
) -> Call[WalletTransaction]:
    """Debit or credit a wallet.

    Args:
        kind: "debit" or "credit".
        user_id: Whose wallet.
        request: The arguments as the vendor's SDK takes them, or the amount alone.
        given: The arguments by name; those that are not None come before the request's.
        key: The idempotency key, checked.
        is_callers_key: Whether the caller chose it.
    """
    fields = _fields(request, _MOVE_NAMES, given)
    metadata = fields.get("metadata")
    body = {
        "amount": _whole("amount", fields.get("amount"), AMOUNT_MAX),
        "description": _text("description", fields.get("description"), is_needed=False),
        "metadata": None if metadata is None else plain_metadata(metadata),
    }
    path = f"/v1/wallet/{in_path(user_id)}/{kind}"
    return _write(kind, path, body, key, is_callers_key=is_callers_key)


def reward_call(
    user_id: object, request: Reward, given: Mapping[str, Any], *, key: str, is_callers_key: bool
) -> Call[WalletTransaction]:
    """Credit a wallet for a verified ad view; the arguments are as those of `move_call`."""
    fields = _fields(request, _REWARD_NAMES, given)
    body = {
        "adNetwork": _text("ad_network", fields.get("ad_network"), is_needed=True),
        "rewardAmount": _whole("reward_amount", fields.get("reward_amount"), AMOUNT_MAX),
        "adUnitId": _text("ad_unit_id", fields.get("ad_unit_id"), is_needed=False),
    }
    path = f"/v1/wallet/{in_path(user_id)}/ad-reward"
    return _write("ad reward", path, body, key, is_callers_key=is_callers_key)


def _write(
    name: str, path: str, body: Mapping[str, Any], key: str, *, is_callers_key: bool
) -> Call[WalletTransaction]:
    return Call(
        name=name,
        method="POST",
        path=path,
        read=_read_transaction,
        body=encode(body),
        idempotency_key=key,
        is_callers_key=is_callers_key,
    )


def _fields(request: object, names: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    fields = {} if request is None else _fields_of(request, names)
    return {**fields, **{name: value for name, value in given.items() if value is not None}}


def _fields_of(request: object, names: tuple[str, ...]) -> dict[str, Any]:
    if isinstance(request, Mapping):
        fields = {_SAME.get(str(name), str(name)): value for name, value in request.items()}
        for name in fields:
            # A misspelled field would otherwise be left out without a word.
            if name not in names:
                raise ValueError(f"{name!r} is not a field of the request; these are: {', '.join(names)}")
        return fields
    if isinstance(request, int):
        return {names[0]: request}
    if not hasattr(request, names[0]):
        raise TypeError(f"the request must be a dict with {', '.join(names)}, not {type(request).__name__}")
    return {name: getattr(request, name, None) for name in names}


def _whole(argument: str, value: object, highest: int) -> int:
    allowed = f"a whole number from 1 to {highest:,}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be {allowed}, not {type(value).__name__}")
    if not 1 <= value <= highest:
        # Python refuses to write numbers of thousands of digits.
        shown = f"{value:,}" if abs(value) <= AMOUNT_MAX else "one far beyond"
        raise ValueError(f"{argument} must be {allowed}, not {shown}")
    return int(value)


def _text(argument: str, value: object, *, is_needed: bool) -> str | None:
    allowed = f"a str of {1 if is_needed else 0} to {TEXT_CHARS_MAX} characters"
    if value is None and not is_needed:
        return None
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be {allowed}, not {type(value).__name__}")
    if len(value) > TEXT_CHARS_MAX or (is_needed and not value):
        raise ValueError(f"{argument} must be {allowed}, not {len(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument} must be valid Unicode text; it holds a lone surrogate") from None
    return str.__str__(value)


def _read_balance(data: Any) -> WalletBalance:
    """Read the answer to a look at a wallet."""
    return WalletBalance(user_id=field(data, "userId", str), balance=whole(data, "balance"))


def _read_transaction(data: Any) -> WalletTransaction:
    """Read a transaction."""
    number = data.get("id") if isinstance(data, dict) else None
    description = data.get("description") if isinstance(data, dict) else None
    return WalletTransaction(
        # Some databases number their rows.
        id=str(number) if type(number) is int else field(data, "id", str),
        type=field(data, "type", str),
        amount=whole(data, "amount"),
        balance_after=whole(data, "balanceAfter"),
        description=description if isinstance(description, str) else None,
        created_at=field(data, "createdAt", str),
    )


def _read_history(data: Any) -> WalletHistory:
    """Read a page of a history."""
    pagination = data.get("pagination") if isinstance(data, dict) else None
    return WalletHistory(
        user_id=field(data, "userId", str),
        current_balance=whole(data, "currentBalance"),
        transactions=tuple(_read_transaction(each) for each in field(data, "transactions", list)),
        pagination=pagination if isinstance(pagination, dict) else {},
    )
