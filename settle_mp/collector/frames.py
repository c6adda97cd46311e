"""What is committed and not sealed: frames as they came, and the sums that replaced older ones (rule L2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from settle_mp.core.event import Quantity
    from settle_mp.core.fold import Entry, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """One accepted run of bytes of one producer: a frame, or what is left of one behind its counted part.

    `last` may lie beyond `first + len(body)`: what adoption steps over in a damaged journal is in no body.

    Attributes:
        producer: Who tracked it; it must have been introduced.
        first: Its first position; equal to the producer's committed position.
        last: The position that is committed with it.
        base: Where its segment begins.
        hour: The UTC hour of the one window that it belongs to.
        cut_s: When it was cut (Unix seconds).
        body: Whole records.
        events_count: How many valid events are in it.
        quantity: Their exact sum.
        invalid: (index among the body's events, payload, reason) of each event that was refused: it is
            dead-lettered in the same transaction, with a quantity of 0, and skipped at a reload.
    """

    producer: bytes
    first: int
    last: int
    base: int
    hour: int
    cut_s: float
    body: bytes
    events_count: int
    quantity: Quantity
    invalid: tuple[tuple[int, bytes, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFrame:
    """An intake read back; `skipped` are the indices of the events that were dead-lettered."""

    producer: bytes
    first: int
    last: int
    base: int
    hour: int
    cut_s: float
    body: bytes
    skipped: frozenset[int]
    events_count: int
    quantity: Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSum:
    """One sum of an open window, and the times that the window reached (Unix seconds)."""

    hour: int
    key: Key
    entry: Entry
    first_s: float
    last_s: float
