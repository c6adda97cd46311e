"""The traffic: what event N of a stream is. Told by the two numbers alone, so that counts say which events.

A stream is one thread of one worker life. Sums over N and over N² stand beside each count: two events lost
and two others twice would have to agree in all three, and no two pairs of numbers do.
"""

from __future__ import annotations

import functools
import hashlib
from decimal import Decimal
from typing import Any, Final, NamedTuple

THREADS: Final = 4

#: Every event is a row of its own: its id is in its metadata.
EACH: Final = "CHAOS_EACH"
#: Folded by model; N and N² are summed by a metadata rule.
FOLD: Final = "CHAOS_FOLD"
#: Folded, fractions, no metadata.
PLAIN: Final = "CHAOS_PLAIN"
#: Folded over threads, processes and their successors: its user is the slot's.
SHARED: Final = "CHAOS_SHARED"

#: Metadata that the settings file has summed, by event type.
SUMMED: Final = {EACH: (), FOLD: ("n", "square"), PLAIN: (), SHARED: ("token",)}

SETTINGS: Final = f"""
[events.{FOLD}]
keep = ["model"]
sum = ["n", "square"]

[events.{SHARED}]
sum = ["token"]
"""

_KINDS: Final = 64


class Event(NamedTuple):
    """The arguments of one `track()`."""

    user_id: str
    event_type: str
    quantity: float
    metadata: dict[str, Any] | None


class Stream(NamedTuple):
    """One thread of one worker life, in the slot that one life after the other takes."""

    life: int
    thread: int
    slot: int

    @property
    def number(self) -> int:
        """Its place in the tally."""
        return self.life * THREADS + self.thread

    @property
    def user_id(self) -> str:
        """The user of the events that are its alone."""
        return f"stream-{self.number}"

    @property
    def shared_user_id(self) -> str:
        """The user that it shares with those before and after it."""
        return f"slot-{self.slot}"


def event(stream: Stream, n: int) -> Event:
    """Give event N of a stream."""
    kind = n % _KINDS
    if kind == 0:
        return Event(stream.user_id, EACH, 1, {"id": n})
    if kind < 8:
        return Event(stream.shared_user_id, SHARED, 1, {"token": token(stream.number, n)})
    if kind < 28:
        return Event(stream.user_id, PLAIN, (n % 9 + 1) / 10, None)
    return Event(stream.user_id, FOLD, 1 + n % 5, {"model": "abc"[n % 3], "n": n, "square": n * n})


@functools.lru_cache(maxsize=4096)
def token(index: int, n: int) -> int:
    """A number that no sum of others hits by chance."""
    return int.from_bytes(hashlib.blake2b(b"%d/%d" % (index, n), digest_size=5).digest(), "big")


def exact(quantity: float) -> Decimal:
    """The decimal that a quantity was written as."""
    return Decimal(repr(quantity))
