"""The producers that the ledger knows: how far each is committed and sealed, and what each must be told."""

from __future__ import annotations

from dataclasses import dataclass, field

from settle_mp.core.books import Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProducer:
    """A producer heard of for the first time.

    `position` is its header's committed position (rule L3), `events_before` the events up to there, which
    another ledger took.
    """

    id: bytes
    position: int
    events_before: int = 0
    name: str = ""
    host: str = ""
    key_mode: str = ""
    is_volatile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerRow:
    """One producer as the ledger knows it.

    Attributes:
        id: Its 16 bytes.
        position: Committed up to here.
        sealed_position: Sealed up to here.
        start_position: Where it stood when it was introduced.
        events_before: Its events before `start_position`, which are in no count of this ledger.
        events: Committed events, those dead-lettered at intake included, and their quantity.
        sealed_events_count: Of these, the events that are sealed or were dead-lettered at intake.
        name: What it calls itself.
        host: Where it runs.
        key_mode: The mode of its API key.
        is_volatile: Whether it has no folder that anybody sees.
        dropped: What it dropped, by its own cumulative count.
        seen_s: When something of it was last committed (Unix seconds).
        gone_s: When its folder went or it said goodbye; None while it may come back.
    """

    id: bytes
    position: int
    sealed_position: int
    start_position: int
    events_before: int
    events: Amount = field(default_factory=Amount)
    sealed_events_count: int = 0
    name: str = ""
    host: str = ""
    key_mode: str = ""
    is_volatile: bool = False
    dropped: Amount = field(default_factory=Amount)
    seen_s: float = 0.0
    gone_s: float | None = None

    @property
    def open_events_count(self) -> int:
        """Committed events that no seal holds yet."""
        return self.events.events - self.sealed_events_count
