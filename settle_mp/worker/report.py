"""What `flush()` answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushReport:
    """How a flush ended. Truthy when the upstream has confirmed everything in its scope.

    The scope is every event tracked in this process before the call, less what an earlier flush has
    already reported as confirmed or failed.

    Attributes:
        confirmed_count: Events of the scope that the upstream has confirmed.
        unconfirmed_count: Events of the scope that are pending, in doubt, dead-lettered, held or dropped.
        reason: Why some are unconfirmed; None when none are.
    """

    confirmed_count: int
    unconfirmed_count: int
    reason: str | None = None

    def __bool__(self) -> bool:
        return self.reason is None and self.unconfirmed_count == 0
