"""Shipping: windows are sealed when the upstream is ready, batches sent, and answers made into steps.

While the upstream is slow or away the windows stay open: it gets fewer and larger sums, not a longer queue.
What an answer means is decided in `core`; here it is carried into the ledger, and then into memory.
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

from settle_mp.collector.delivery import IN_FLIGHT_MAX
from settle_mp.collector.health import Health, log_health
from settle_mp.core.family import DeadLetterSuspects, Regroup, family_step
from settle_mp.core.outcome import Outcome, classify
from settle_mp.core.step import (
    BatchState,
    Divide,
    Hold,
    Pause,
    RetryAt,
    Settle,
    Suspect,
    hold_before_try,
    next_step,
)
from settle_mp.core.ticket import Seal, Trouble
from settle_mp.core.window import draft_batches

if TYPE_CHECKING:
    from settle_mp.collector.delivery import Completed, Delivery
    from settle_mp.collector.outbox import Batch
    from settle_mp.collector.state import State
    from settle_mp.config import Settings
    from settle_mp.core.outcome import Verdict
    from settle_mp.core.step import Step
    from settle_mp.upstream import Upstream

log = logging.getLogger("settle_mp")

#: Sums in the open windows at which they are sealed before their time. Far more than the users active in a
#: flush interval on most hosts, since what is sealed early is not added up; few enough that writing them is a
#: fraction of a second.
WINDOW_ROWS_MAX: Final = 10_000


class Shipping:
    """The way out: from open windows to settled batches."""

    def __init__(self, state: State, delivery: Delivery, settings: Settings, *, has_key: bool) -> None:
        """Begin as if the upstream were well."""
        self._state = state
        self._delivery = delivery
        self._settings = settings
        self._in_flight: set[int] = set()
        # Steps of the wall clock must not move what is scheduled.
        self._clock_offset_s = time.time() - time.monotonic()
        self.health = Health("ok" if has_key else "no_key")

    @property
    def in_flight(self) -> frozenset[int]:
        """Batches that a sender works on."""
        return frozenset(self._in_flight)

    def now_s(self) -> float:
        """Unix seconds that never jump while this process lives."""
        return time.monotonic() + self._clock_offset_s

    def replace(self, settings: Settings, upstream: Upstream | None) -> None:
        """Go on with other settings and another key; a pause ends."""
        self._settings = settings
        self._delivery.replace_upstream(upstream)
        self.health = Health("ok" if upstream is not None else "no_key")

    def turn(self, *, is_urgent: bool) -> None:
        """Take answers, seal, and send.

        Args:
            is_urgent: A flush waits: seal what is open although it is not due.

        Raises:
            LedgerError: Memory must be read again.
        """
        now_s = self.now_s()
        self._take_answers(now_s)
        if self._is_ready() and (is_urgent or self._is_due(now_s)):
            self._seal(now_s)
        self._send(now_s)

    def left_s(self) -> float:
        """How long nothing is to be done here, unless an answer comes."""
        now_s = self.now_s()
        if self.health.state == "no_key":
            return float("inf")
        wake_s = [self.health.paused_until_s] if self.health.paused_until_s > now_s else []
        opened_s = self._state.windows.opened_s
        if opened_s is not None and self._is_ready():
            wake_s.append(opened_s + self._settings.flush_interval_s)
        if self._delivery.room_count and not wake_s:
            due_s = self._state.ledger.outbox.next_due_s()
            wake_s += [] if due_s is None else [due_s]
        return max(0.0, min(wake_s, default=float("inf")) - now_s)

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
        return due_s is not None and due_s <= self.now_s()

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
        reaches = state.reaches()
        sealed = state.ledger.seal(drafts, reaches, now_s)
        state.seals.add(Seal(sealed.number, reaches, set(sealed.batches)))
        state.sealed(sealed.number)

    # --- Sending ---

    def _send(self, now_s: float) -> None:
        room = self._room(now_s)
        if room <= 0:
            return
        outbox = self._state.ledger.outbox
        batches = [batch for batch in outbox.due(now_s, room) if not self._held_before_try(batch, now_s)]
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

    def _room(self, now_s: float) -> int:
        if self.health.paused_until_s > now_s:
            return 0
        # After a pause one request asks whether the mend has helped.
        room_max = 1 if self.health.state == "paused" else IN_FLIGHT_MAX
        return min(self._delivery.room_count, room_max - len(self._in_flight))

    def _held_before_try(self, batch: Batch, now_s: float) -> bool:
        hold = hold_before_try(
            _batch_state(batch, now_s), now_s=now_s, idempotency_ttl_s=self._settings.idempotency_ttl_s
        )
        if hold is None:
            return False
        with self._state.ledger.transaction():
            self._hold(batch, hold, now_s, is_in_doubt=False)
            self._family(batch, now_s)
        return True

    # --- Answers ---

    def _take_answers(self, now_s: float) -> None:
        completed = self._delivery.take_completed()
        if not completed:
            return
        self._in_flight -= {each.batch_id for each in completed}
        with self._state.ledger.transaction():
            for each in completed:
                # Memory is changed along with it: after an error of the ledger all of it is read again.
                self._judge(each, now_s)

    def _judge(self, completed: Completed, now_s: float) -> None:
        batch = self._state.ledger.outbox.get(completed.batch_id)
        verdict = classify(completed.answer, now_s=time.time())
        step = next_step(
            _batch_state(batch, now_s),
            verdict,
            now_s=now_s,
            on_in_doubt=self._settings.on_in_doubt,
            idempotency_ttl_s=self._settings.idempotency_ttl_s,
            jitter=random.random(),  # noqa: S311
        )
        self._note_health(verdict, step)
        self._do(batch, step, verdict, now_s)
        if isinstance(step, Settle | Suspect | Hold):
            self._family(batch, now_s)

    def _note_health(self, verdict: Verdict, step: Step) -> None:
        is_answer = verdict.outcome in {Outcome.ACCEPTED, Outcome.REFUSED, Outcome.TOO_LARGE}
        before = self.health.state
        if is_answer:
            self.health = Health("ok")
        elif isinstance(step, Pause):
            self.health = Health("paused", verdict.reason, step.retry_at_s)
        elif before != "paused":
            self.health = Health("down", verdict.reason)
        else:
            self.health.last_error = verdict.reason
        if self.health.state != before:
            log_health(self.health)

    def _do(self, batch: Batch, step: Step, verdict: Verdict, now_s: float) -> None:
        outbox, seals = self._state.ledger.outbox, self._state.seals
        is_in_doubt = verdict.outcome is Outcome.IN_DOUBT
        if isinstance(step, Settle):
            outbox.settle(batch.id, now_s)
            seals.settle(batch.seal, batch.id)
        elif isinstance(step, RetryAt):
            outbox.retry(
                batch.id, at_s=step.at_s, is_in_doubt=is_in_doubt, reason=verdict.reason, now_s=now_s
            )
        elif isinstance(step, Pause) and step.is_new_key:
            child = outbox.rekey(batch.id, at_s=step.retry_at_s, reason=step.reason, now_s=now_s)
            seals.replace_batch(batch.seal, batch.id, {child.id})
        elif isinstance(step, Pause):
            outbox.retry(batch.id, at_s=step.retry_at_s, is_in_doubt=False, reason=step.reason, now_s=now_s)
        elif isinstance(step, Divide):
            children = {
                child.id for child in outbox.split(batch.id, _cuts(step), reason=step.reason, now_s=now_s)
            }
            seals.replace_batch(batch.seal, batch.id, children)
        elif isinstance(step, Suspect):
            outbox.suspect(batch.id, reason=step.reason, now_s=now_s)
        elif isinstance(step, Hold):
            self._hold(batch, step, now_s, is_in_doubt=is_in_doubt)

    def _hold(self, batch: Batch, hold: Hold, now_s: float, *, is_in_doubt: bool) -> None:
        troubles = self._state.seals.troubled_by(batch.seal, batch.events_count, f"held: {hold.reason}")
        self._state.ledger.outbox.hold(
            batch.id, reason=hold.reason, now_s=now_s, is_in_doubt=is_in_doubt, troubles=troubles
        )
        self._settled_badly(batch.seal, {batch.id}, troubles, batch.events_count)
        log.error(
            "batch_held",
            extra={
                "reason": hold.reason,
                "bill": f"{batch.events_count} events may or may not have been billed",
                "mend": f"look at `settle-mp indoubt show {batch.id}`, then retry, confirm or discard it",
            },
        )

    def _family(self, batch: Batch, now_s: float) -> None:
        """Decide about rows that were refused one by one, now that more is known of their batch."""
        outbox = self._state.ledger.outbox
        decision = family_step(
            outbox.family(batch.root),
            now_s=now_s,
            jitter=random.random(),  # noqa: S311
        )
        if isinstance(decision, DeadLetterSuspects):
            self._dead_letter(batch, now_s)
        elif isinstance(decision, Regroup):
            retired, root = outbox.regroup(
                batch.root, at_s=decision.retry_at_s, reason=decision.reason, now_s=now_s
            )
            self.health = Health("paused", decision.reason, decision.retry_at_s)
            log_health(self.health)
            self._regrouped(batch.seal, retired, root.id)

    def _regrouped(self, seal: int, retired: list[int], root: int) -> None:
        for each in retired:
            self._state.seals.replace_batch(seal, each, {root})

    def _dead_letter(self, batch: Batch, now_s: float) -> None:
        outbox = self._state.ledger.outbox
        suspects = outbox.suspects(batch.root)
        events_count = sum(each.events_count for each in suspects)
        reason = f"refused by the upstream: {suspects[0].reason}"
        troubles = self._state.seals.troubled_by(batch.seal, events_count, reason)
        ids = set(outbox.dead_letter_suspects(batch.root, now_s=now_s, troubles=troubles))
        self._settled_badly(batch.seal, ids, troubles, events_count)
        log.error(
            "events_dead_lettered",
            extra={
                "reason": reason,
                "bill": f"{events_count} events are not billed",
                "mend": "look at `settle-mp deadletter list`",
            },
        )

    def _settled_badly(
        self, seal: int, ids: set[int], troubles: dict[bytes, Trouble], events_count: int
    ) -> None:
        self._state.seals.troubles.update(troubles)
        for each in ids:
            self._state.seals.settle(seal, each, failed_count=events_count)
            events_count = 0


def _batch_state(batch: Batch, now_s: float) -> BatchState:
    return BatchState(
        rows_count=len(batch.lots),
        tries_count=batch.tries,
        tried_at_s=now_s if batch.attempted_s is None else batch.attempted_s,
        first_in_doubt_s=batch.first_in_doubt_s,
    )


def _cuts(step: Divide) -> list[int]:
    """Before which rows to cut, so that rows of different groups are apart and each stays in its place."""
    group_of = {row: number for number, group in enumerate(step.groups) for row in group}
    return [row for row in group_of if row and group_of[row] != group_of[row - 1]]
