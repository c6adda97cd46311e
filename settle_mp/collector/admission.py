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

    from settle_mp.journals import Header


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


def admit(
    producer: bytes, header: Header, house: House, *, is_volatile: bool, unseen_to: int | None = None
) -> NewProducer | Refusal:
    """Decide about a producer that the ledger has no row of.

    Args:
        producer: Its id.
        header: What its header says.
        house: What it is held against.
        is_volatile: Whether its journal is in memory.
        unseen_to: Where its journal ends, if that is not in this state folder.
    """
    identity, bond = header.identity, header.bond
    name = identity.name if identity is not None else "unknown, its header can't be read"
    is_elsewhere = unseen_to is not None and not is_volatile
    is_unseen = is_volatile or is_elsewhere
    if identity is None and bond.ledger == NO_LEDGER and (house.put_aside or is_elsewhere):
        return Refusal(
            f"the header of journal {producer.hex()} can't be read, so a ledger that was put aside may have "
            f"taken its events; {_adopting(producer, is_unseen=is_unseen)} takes them over"
        )
    if is_elsewhere and bond.ledger == house.ledger and bond.position < (unseen_to or 0):
        # The row went after a long silence, and the last acks may not have reached the header (rule L4).
        return Refusal(
            f"journal {producer.hex()} of {name} was silent for so long that its position was forgotten; "
            f"{_adopting(producer, is_unseen=True)} takes over what is not committed by its header"
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
            f"state folder does not know; {_adopting(producer, is_unseen=is_unseen)} takes it over"
        )
    return NewProducer(
        id=producer,
        position=bond.position,
        events_before=bond.events_count,
        name=name,
        host=identity.host if identity is not None else "",
        key_mode=key_mode,
        is_volatile=is_volatile,
        is_unseen=is_unseen,
    )


def _adopting(producer: bytes, *, is_unseen: bool) -> str:
    """What a person does to have a journal taken over; one on another host is brought here first."""
    adopt = f"`settle-mp adopt {producer.hex()}`"
    return (
        f"its folder moved from its own host to the journals here, and then {adopt}," if is_unseen else adopt
    )


def admit_by_word(producer: bytes, header: Header, house: House) -> NewProducer | Refusal:
    """Decide the same when a person says that its ledger does not matter: it begins where that one stood."""
    ledger = header.bond.ledger
    open_house = replace(house, put_aside=() if ledger == NO_LEDGER else (ledger,))
    return admit(producer, header, open_house, is_volatile=False)
