"""Settlement: what an answer of the upstream does to its batch, in the ledger and in memory.

What an answer means is decided in `core`; here it is carried out. Memory is changed along with the
transaction: after an error of the ledger all of it is read again (rule L1).
"""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, Final

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
    is_untouched,
    next_step,
)
from settle_mp.notices import Teller, notice

if TYPE_CHECKING:
    from collections.abc import Iterable

    from settle_mp.collector.delivery import Completed
    from settle_mp.collector.health import Health
    from settle_mp.collector.outbox import Batch
    from settle_mp.collector.state import State
    from settle_mp.config import Settings
    from settle_mp.core.outcome import Verdict
    from settle_mp.core.step import Step
    from settle_mp.core.ticket import Trouble

log: Final = logging.getLogger("settle_mp")


class Settlement:
    """Carries answers into ledger and memory."""

    def __init__(self, state: State, settings: Settings, health: Health) -> None:
        self._state = state
        self._settings = settings
        self._health = health
        # What was under way at our death is in doubt, whoever had ordered it.
        self._ordered: set[int] = set()
        self._teller = Teller(log)

    def use(self, settings: Settings) -> None:
        """Go on under other settings."""
        self._settings = settings

    def take(self, completed: Iterable[Completed], now_s: float) -> None:
        """Carry out what has come back, in one transaction.

        Raises:
            LedgerError: None of it; memory must be read again.
        """
        with self._state.ledger.transaction():
            for each in completed:
                self._judge(each, now_s)

    def is_held_before_try(self, batch: Batch, now_s: float) -> bool:
        """Hold a batch in doubt that must not be sent again by itself, and say whether it was one.

        That is one whose key may be forgotten by now, and any at all when `on_in_doubt` is hold: such as the
        batches that were under way when the last collector died. What a person has ordered is sent.
        """
        if batch.state == "ordered":
            return False
        hold = hold_before_try(
            _batch_state(batch, now_s), now_s=now_s, idempotency_ttl_s=self._settings.idempotency_ttl_s
        )
        if hold is None and batch.first_in_doubt_s is not None and self._settings.on_in_doubt == "hold":
            reason = f"{batch.reason}; it may have been applied, and on_in_doubt is hold"
            hold = Hold(reason=reason, first_in_doubt_s=batch.first_in_doubt_s)
        if hold is None:
            return False
        with self._state.ledger.transaction():
            self._hold(batch, hold, now_s, is_in_doubt=False)
            self.decide_family(batch, now_s)
        return True

    def sent(self, batches: Iterable[Batch]) -> None:
        """These were just submitted."""
        self._ordered.update(batch.id for batch in batches if batch.state == "ordered")

    def _judge(self, completed: Completed, now_s: float) -> None:
        try:
            batch = self._state.ledger.outbox.get(completed.batch_id)
        except LookupError:
            return  # somebody has decided about it meanwhile
        verdict = classify(completed.answer, now_s=time.time())
        is_ordered = batch.id in self._ordered
        self._ordered.discard(batch.id)
        step = next_step(
            _batch_state(batch, now_s, is_ordered=is_ordered),
            verdict,
            now_s=now_s,
            on_in_doubt=self._settings.on_in_doubt,
            idempotency_ttl_s=self._settings.idempotency_ttl_s,
            jitter=random.random(),  # noqa: S311
        )
        self._note_health(verdict, step)
        self._tell(batch, verdict, step)
        self._do(batch, step, verdict, now_s, is_ordered=is_ordered and is_untouched(verdict))
        if isinstance(step, Settle | Suspect | Hold):
            self.decide_family(batch, now_s)

    def _tell(self, batch: Batch, verdict: Verdict, step: Step) -> None:
        """Say what a try means for the bill, where nothing else does: what is held or paused is told."""
        count = f"batch {batch.id} ({batch.events_count} events)"
        if isinstance(step, RetryAt) and verdict.outcome is Outcome.IN_DOUBT:
            self._teller.tell("batch_in_doubt", f"{count}: {verdict.reason}")
        elif isinstance(step, Divide):
            self._teller.tell("batch_divided", f"{count}: {verdict.reason}")

    def _note_health(self, verdict: Verdict, step: Step) -> None:
        health = self._health
        if verdict.outcome in {Outcome.ACCEPTED, Outcome.REFUSED, Outcome.TOO_LARGE}:
            health.become("ok")
        elif isinstance(step, Pause):
            health.become("paused", verdict.reason, step.retry_at_s)
        elif health.state != "paused":
            health.become("down", verdict.reason)
        else:
            health.last_error = verdict.reason

    def _do(self, batch: Batch, step: Step, verdict: Verdict, now_s: float, *, is_ordered: bool) -> None:
        outbox, seals = self._state.ledger.outbox, self._state.seals
        is_in_doubt = verdict.outcome is Outcome.IN_DOUBT
        if isinstance(step, Settle):
            outbox.settle(batch.id, now_s)
            seals.settle(batch.seal, batch.id)
        elif isinstance(step, RetryAt):
            outbox.retry(
                batch.id,
                at_s=step.at_s,
                is_in_doubt=is_in_doubt,
                is_ordered=is_ordered,
                reason=verdict.reason,
                now_s=now_s,
            )
        elif isinstance(step, Pause) and step.is_new_key:
            child = outbox.rekey(batch.id, at_s=step.retry_at_s, reason=step.reason, now_s=now_s)
            seals.replace_batch(batch.seal, batch.id, {child.id})
        elif isinstance(step, Pause):
            outbox.retry(
                batch.id,
                at_s=step.retry_at_s,
                is_in_doubt=False,
                is_ordered=is_ordered,
                reason=step.reason,
                now_s=now_s,
            )
        elif isinstance(step, Divide):
            parts = outbox.divide(batch.id, step.groups, reason=step.reason, now_s=now_s)
            seals.replace_batch(batch.seal, batch.id, {child.id for child in parts})
        elif isinstance(step, Suspect):
            outbox.suspect(batch.id, reason=step.reason, now_s=now_s)
        elif isinstance(step, Hold):
            self._hold(batch, step, now_s, is_in_doubt=is_in_doubt)

    def _hold(self, batch: Batch, hold: Hold, now_s: float, *, is_in_doubt: bool) -> None:
        troubles = self._state.seals.troubled_by(batch.seal, batch.events_count, f"held: {hold.reason}")
        self._state.ledger.outbox.hold(
            batch.id, reason=hold.reason, now_s=now_s, is_in_doubt=is_in_doubt, troubles=troubles
        )
        self._fail([batch], troubles)
        bill = f"{batch.events_count} events may or may not have been billed"
        mend = f"look at `settle-mp indoubt show {batch.id}`, then retry, renew, confirm or discard it"
        log.error("batch_held", extra=notice("batch_held", hold.reason, bill=bill, mend=mend))

    def decide_family(self, batch: Batch, now_s: float) -> None:
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
            self._health.become("paused", decision.reason, decision.retry_at_s)
            for each in retired:
                self._state.seals.replace_batch(batch.seal, each, {root.id})

    def _dead_letter(self, batch: Batch, now_s: float) -> None:
        outbox = self._state.ledger.outbox
        suspects = outbox.suspects(batch.root)
        events_count = sum(each.events_count for each in suspects)
        reason = f"refused by the upstream: {suspects[0].reason}"
        troubles = self._state.seals.troubled_by(batch.seal, events_count, reason)
        outbox.dead_letter_suspects(batch.root, now_s=now_s, troubles=troubles)
        self._fail(suspects, troubles)
        bill = f"{events_count} events are not billed"
        log.error("events_dead_lettered", extra=notice("events_dead_lettered", reason, bill=bill))

    def _fail(self, batches: Iterable[Batch], troubles: dict[bytes, Trouble]) -> None:
        self._state.seals.troubles.update(troubles)
        for each in batches:
            self._state.seals.settle(each.seal, each.id, failed_count=each.events_count)


def _batch_state(batch: Batch, now_s: float, *, is_ordered: bool = False) -> BatchState:
    return BatchState(
        is_ordered=is_ordered,
        rows_count=len(batch.lots),
        tries_count=batch.tries,
        tried_at_s=now_s if batch.attempted_s is None else batch.attempted_s,
        first_in_doubt_s=batch.first_in_doubt_s,
    )
