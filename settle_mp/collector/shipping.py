"""Shipping: windows are sealed when the upstream is ready, and batches sent.

While the upstream is slow or away the windows stay open: it gets fewer and larger sums, not a longer queue.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from settle_mp.collector.delivery import IN_FLIGHT_MAX
from settle_mp.collector.health import Health
from settle_mp.collector.settlement import Settlement
from settle_mp.core.rules import MetadataRule
from settle_mp.core.ticket import Seal
from settle_mp.core.unfolded import Observer, proposed_rule, rule_text
from settle_mp.core.window import draft_batches
from settle_mp.notices import notice

if TYPE_CHECKING:
    from settle_mp.collector.delivery import Delivery
    from settle_mp.collector.state import State
    from settle_mp.config import Settings
    from settle_mp.core.unfolded import Unfolded
    from settle_mp.upstream import Upstream

log: Final = logging.getLogger("settle_mp")

#: Sums in the open windows at which they are sealed before their time. Far more than the users active in a
#: flush interval on most hosts, since what is sealed early is not added up; few enough that writing them is a
#: fraction of a second.
WINDOW_ROWS_MAX: Final = 10_000
#: After a mend, what waits for a later try goes at once: no pause or backoff is longer (seconds).
MENDED_AHEAD_S: Final = 3600.0

#: How often the log is told of metadata that defeat folding at most, in seconds.
TELL_S: Final = 10.0


class Shipping:
    """The way out: from open windows to batches under way."""

    def __init__(self, state: State, delivery: Delivery, settings: Settings, *, has_key: bool) -> None:
        """Begin as if the upstream were well."""
        self._state = state
        self._delivery = delivery
        self._settings = settings
        self._in_flight: set[int] = set()
        self._is_mended = False
        self._observer = Observer()
        self._told: set[tuple[str, str]] = set()
        self._told_s = 0.0
        self.health: Health = Health("ok" if has_key else "no_key")
        self.settlement: Settlement = Settlement(state, settings, self.health)

    @property
    def in_flight(self) -> frozenset[int]:
        """Batches that a sender works on."""
        return frozenset(self._in_flight)

    def replace(self, settings: Settings, upstream: Upstream | None) -> None:
        """Go on with other settings and another key; a pause ends."""
        self._settings = settings
        self.settlement.use(settings)
        self._delivery.replace_upstream(upstream)
        self.health.become("ok" if upstream is not None else "no_key")
        self._is_mended = upstream is not None

    def turn(self, *, is_urgent: bool, is_ending: bool = False) -> None:
        """Take answers, seal, and send.

        Args:
            is_urgent: Seal what is open although it is not due: a flush waits for it.
            is_ending: Take answers only: what were sent now would end in doubt.

        Raises:
            LedgerError: Memory must be read again.
        """
        now_s = self._state.now_s()
        self._take_answers(now_s)
        if is_ending:
            return
        if self._is_ready() and (is_urgent or self._is_due(now_s)):
            self._seal(now_s)
        self._send(now_s)

    def left_s(self) -> float:
        """How long nothing is to be done here, unless an answer comes."""
        if self.health.state == "no_key":
            return float("inf")
        now_s = self._state.now_s()
        wake_s = []
        if self.health.paused_until_s > now_s:
            wake_s.append(self.health.paused_until_s)
        elif self._room(now_s) > 0:
            due_s = self._state.ledger.outbox.next_due_s()
            wake_s += [] if due_s is None else [due_s]
        opened_s = self._state.windows.opened_s
        if opened_s is not None and self._is_ready():
            wake_s.append(opened_s + self._settings.flush_interval_s)
        return max(0.0, min(wake_s, default=float("inf")) - now_s)

    def _take_answers(self, now_s: float) -> None:
        completed = self._delivery.take_completed()
        if completed:
            # First, so that an error puts them in doubt: their answers are gone with the transaction.
            self._in_flight -= {each.batch_id for each in completed}
            self.settlement.take(completed, now_s)
            self._is_mended = self._is_mended and self.health.state == "ok"

    # --- Sealing ---

    def _is_due(self, now_s: float) -> bool:
        interval_s = self._settings.flush_interval_s
        return self._state.windows.is_due(now_s, interval_s=interval_s, rows_max=WINDOW_ROWS_MAX)

    def _is_ready(self) -> bool:
        """Whether the upstream would take another batch soon: else the windows stay open."""
        if self.health.state in ("no_key", "paused"):
            return False
        if self.health.state == "ok":
            return len(self._in_flight) < IN_FLIGHT_MAX and not self._has_backlog()
        return self._state.ledger.outbox.next_due_s() is None and not self._in_flight

    def _has_backlog(self) -> bool:
        due_s = self._state.ledger.outbox.next_due_s()
        return due_s is not None and due_s <= self._state.now_s()

    def _seal(self, now_s: float) -> None:
        state, settings = self._state, self._settings
        if not state.windows:
            return
        drafts = [
            draft
            for window in state.windows
            for draft in draft_batches(
                window, rows_max=settings.batch_rows_max, is_annotated=settings.annotate
            )
        ]
        for window in state.windows:
            self._observer.look(window.entries, now_s)
        reaches = state.reaches()
        sealed = state.ledger.seal(drafts, reaches, now_s)
        state.seals.add(Seal(sealed.number, reaches, set(sealed.batches)))
        state.sealed(sealed.number)
        self._tell_unfolded(now_s)

    def unfolded(self) -> list[Unfolded]:
        """Metadata that defeat folding, under the rules in force: in what was sealed, or in what is open."""
        of_open = Observer()
        for window in self._state.windows:
            of_open.look(window.entries, self._state.now_s())
        found = [*self._observer.found(self._settings.rules), *of_open.found(self._settings.rules)]
        return list({(each.event_type, each.name): each for each in reversed(found)}.values())[::-1]

    def _tell_unfolded(self, now_s: float) -> None:
        """Log what defeats folding, each name once; seals may follow each other quickly."""
        if 0 <= now_s - self._told_s < TELL_S:
            return
        self._told_s = now_s
        for each in self._observer.found(self._settings.rules):
            if (each.event_type, each.name) not in self._told:
                self._told.add((each.event_type, each.name))
                rule = proposed_rule(self._settings.rules.get(each.event_type, MetadataRule()), [each])
                fields = {"event_type": each.event_type, "rule": rule_text(each.event_type, rule)}
                log.warning(
                    "metadata_defeat_folding", extra=notice("metadata_defeat_folding", each.text, **fields)
                )

    # --- Sending ---

    def _send(self, now_s: float) -> None:
        room = self._room(now_s)
        if room <= 0:
            return
        outbox = self._state.ledger.outbox
        due = outbox.due(now_s + MENDED_AHEAD_S if self._is_mended else now_s, room)
        self._is_mended = self._is_mended and bool(due)
        batches = [batch for batch in due if not self.settlement.is_held_before_try(batch, now_s)]
        if not batches:
            return
        retries_count = sum(batch.tries > 0 for batch in batches)
        with self._state.ledger.transaction():
            outbox.mark_attempting([batch.id for batch in batches], now_s)
            self._state.ledger.bump("requests_count", len(batches))
            self._state.ledger.bump("retries_count", retries_count)
        for batch in batches:
            self._in_flight.add(batch.id)
            self._delivery.submit(batch.id, idempotency_key=batch.key, body=batch.body)
        self.settlement.sent(batches)

    def _room(self, now_s: float) -> int:
        if self.health.paused_until_s > now_s:
            return 0
        # After a pause one request asks whether the mend has helped.
        room_max = 1 if self.health.state == "paused" else IN_FLIGHT_MAX
        return min(self._delivery.room_count, room_max - len(self._in_flight))
