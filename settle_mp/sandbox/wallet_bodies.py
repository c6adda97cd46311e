"""Wallet bodies: what a strict upstream takes as a debit, a credit or an ad reward.

Rule 1: a refusal names each bad field, under the name that the field has in the body.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from settle_mp.sandbox import exact
from settle_mp.sandbox.rows import BadBodyError, Fields, metadata_fault, name_fault, parse_json
from settle_mp.sandbox.transfers import CREDITS_MAX, Transfer

if TYPE_CHECKING:
    from settle_mp.sandbox.transfers import Kind

#: Characters of a description at most.
DESCRIPTION_CHARS_MAX: Final = 1_000

_AMOUNT_FAULT: Final = f"must be a whole number from 1 to {CREDITS_MAX}"


def parse_transfer(body: bytes, user_id: str, kind: Kind) -> Transfer:
    """Read the body of a debit or a credit.

    Raises:
        BadBodyError: Naming what is wrong with it.
    """
    parsed = _parse_object(body)
    faults = {
        "amount": _amount_fault(parsed.get("amount")),
        "description": _description_fault(parsed.get("description")),
        "metadata": metadata_fault(parsed.get("metadata")),
    }
    _refuse(parsed, faults)
    metadata = parsed.get("metadata")
    return Transfer(
        user_id=user_id,
        kind=kind,
        amount=int(parsed["amount"]),
        description=parsed.get("description"),
        metadata=None if metadata is None else exact.dumps(metadata),
    )


def parse_ad_reward(body: bytes, user_id: str) -> Transfer:
    """Read the body of an ad reward.

    Raises:
        BadBodyError: Naming what is wrong with it.
    """
    parsed = _parse_object(body)
    unit = parsed.get("adUnitId")
    faults = {
        "adNetwork": name_fault(parsed.get("adNetwork")),
        "rewardAmount": _amount_fault(parsed.get("rewardAmount")),
        # The vendor's SDK sends null where there is none.
        "adUnitId": None if unit is None else name_fault(unit),
    }
    _refuse(parsed, faults)
    return Transfer(
        user_id=user_id,
        kind="AD_REWARD",
        amount=int(parsed["rewardAmount"]),
        description=f"Ad reward from {parsed['adNetwork']}"[:DESCRIPTION_CHARS_MAX],
        metadata=None if unit is None else exact.dumps({"adUnitId": unit}),
    )


def _parse_object(body: bytes) -> dict[str, Any]:
    parsed = parse_json(body)
    if not isinstance(parsed, dict):
        raise BadBodyError("The body must be an object.")
    return parsed


def _refuse(parsed: dict[str, Any], faults: dict[str, str | None]) -> None:
    fields: Fields = {name: [fault] for name, fault in faults.items() if fault is not None}
    fields.update({name: ["is not known"] for name in sorted(parsed.keys() - faults.keys())})
    if fields:
        raise BadBodyError("The request is not valid; nothing was moved.", fields)


def _amount_fault(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not 1 <= value <= CREDITS_MAX:
        return _AMOUNT_FAULT
    # 10.0 is a whole number in JSON Schema, and to a server that reads JSON as JavaScript does.
    return None if value == int(value) else _AMOUNT_FAULT


def _description_fault(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and len(value) > DESCRIPTION_CHARS_MAX:
        return f"must have at most {DESCRIPTION_CHARS_MAX} characters"
    return name_fault(value)
