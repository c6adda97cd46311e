"""Who may begin at this ledger, and where (rules C2 and L3).

A producer that the ledger does not know starts at the position in its header, never at 0 by itself: what
another ledger has taken is not taken twice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from settle_mp.collector.roster import NewProducer
from settle_mp.core.record import NO_LEDGER

if TYPE_CHECKING:
    from collections.abc import Collection

    from settle_mp.collector.journals import Header


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a producer is not taken up, and what to do about it."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What a newcomer is held against: this ledger, those put aside, and the mode of the key."""

    ledger: bytes
    put_aside: Collection[bytes]
    key_mode: str


def admit(producer: bytes, header: Header, house: House, *, is_volatile: bool) -> NewProducer | Refusal:
    """Decide about a producer that the ledger has no row of."""
    identity, bond = header.identity, header.bond
    name = identity.name if identity is not None else "unknown, its header can't be read"
    if identity is None and bond.ledger == NO_LEDGER and house.put_aside:
        return Refusal(
            f"the header of journal {producer.hex()} can't be read, so a ledger that was put aside may have "
            f"taken its events; `settle-mp adopt {producer.hex()}` takes them over"
        )
    key_mode = identity.key_mode if identity is not None else ""
    if key_mode and house.key_mode and key_mode != house.key_mode:
        return Refusal(
            f"{name} tracks for a {key_mode} key and this collector ships with a {house.key_mode} key; give "
            "both the same api_key, or two state folders"
        )
    if bond.ledger not in (NO_LEDGER, house.ledger) and bond.ledger not in house.put_aside:
        return Refusal(
            f"journal {producer.hex()} of {name} belongs to ledger {bond.ledger.hex()}, which this "
            f"state folder does not know; `settle-mp adopt {producer.hex()}` takes it over"
        )
    return NewProducer(
        id=producer,
        position=bond.position,
        events_before=bond.events_count,
        name=name,
        host=identity.host if identity is not None else "",
        key_mode=key_mode,
        is_volatile=is_volatile,
    )


def admit_by_word(producer: bytes, header: Header, house: House) -> NewProducer | Refusal:
    """Decide the same when a person says that its ledger does not matter: it begins where that one stood."""
    ledger = header.bond.ledger
    open_house = replace(house, put_aside=() if ledger == NO_LEDGER else (ledger,))
    return admit(producer, header, open_house, is_volatile=False)
