"""Reception: frames and adopted runs are held against positions, gathered, committed, and only then acked.

Rule L1: decode, commit, apply, publish, ack, in this order; on an error of the ledger nothing is acked.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from settle_mp import journals
from settle_mp.collector.admission import House, Refusal, admit
from settle_mp.collector.decoder import BadRunError
from settle_mp.core import wire
from settle_mp.core.books import Amount
from settle_mp.core.fold import parse_number
from settle_mp.core.record import Slot
from settle_mp.core.ticket import Trouble
from settle_mp.core.window import HOUR_S, hour_of
from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from settle_mp.collector.decoder import Run
    from settle_mp.collector.roster import NewProducer
    from settle_mp.collector.state import Member, State

log: Final = logging.getLogger("settle_mp")

#: Bytes gathered for one transaction at most, whatever the time.
GROUP_BYTES_MAX: Final = 4 * 1024 * 1024
#: Bytes of raw frames that the ledger keeps before sums replace them (rule L2).
RAW_BYTES_MAX: Final = 64 * 1024 * 1024
#: How long a refusal is shown after its producer was last heard, in seconds: couriers ask again sooner.
REFUSAL_S: Final = 60.0
#: Different reasons logged in one process life at most: a stranger could make up as many as it likes.
REASONS_MAX: Final = 1000


class Reception:
    """Takes runs in, commits them in groups, and says what to answer."""

    def __init__(self, state: State, journals_dir: Path, put_aside: frozenset[bytes]) -> None:
        """Begin with nothing gathered."""
        self._state = state
        self._journals = journals_dir
        self._put_aside = put_aside
        self._runs: list[Run] = []
        self._ahead: dict[bytes, int] = {}
        self._new: dict[bytes, NewProducer] = {}
        self._departures: dict[bytes, Amount] = {}
        #: Who departed with the last commit.
        self.departed: list[bytes] = []
        self._told: set[str] = set()
        self._uncounted = 0
        self._refusals: dict[bytes, tuple[str, float]] = {}
        self.gathered_bytes: int = 0
        self.gathered_since_s: float | None = None

    @property
    def is_gathering(self) -> bool:
        """Whether anything waits to be committed."""
        return self.gathered_since_s is not None

    @property
    def is_full(self) -> bool:
        """Whether one transaction has enough to do."""
        return self.gathered_bytes >= GROUP_BYTES_MAX

    # --- Taking in ---

    def knows(self, producer: bytes) -> bool:
        """Whether runs of a producer can be taken."""
        return producer in self._state.members or producer in self._new

    def position(self, producer: bytes) -> int:
        """Up to where a known producer is committed or gathered."""
        ahead = self._ahead.get(producer)
        if ahead is not None:
            return ahead
        member = self._state.members.get(producer)
        return member.position if member is not None else self._new[producer].position

    def greet(
        self,
        producer: bytes,
        header: journals.Header,
        *,
        is_volatile: bool = False,
        unseen_to: int | None = None,
    ) -> str:
        """Take up a producer, if it may be; see `admit`. Returns why not, or nothing."""
        if self.knows(producer):
            return ""
        decision = admit(producer, header, self.house(), is_volatile=is_volatile, unseen_to=unseen_to)
        if isinstance(decision, Refusal):
            self._refusals[producer] = (decision.reason, time.monotonic())
            self.tell("producer_refused", decision.reason)
            return decision.reason
        self._refusals.pop(producer, None)
        self._new[producer] = decision
        self._since()
        return ""

    def house(self) -> House:
        """What a newcomer is held against."""
        return House(ledger=self._state.ledger.id, put_aside=self._put_aside, key_mode=self._key_mode())

    def forget_refusal(self, producer: bytes) -> None:
        """It is taken up by a person's word."""
        self._refusals.pop(producer, None)

    def _key_mode(self) -> str:
        """The mode that all events of this ledger have, with those that are about to come in."""
        known = self._state.ledger.key_mode
        return known or next((new.key_mode for new in self._new.values() if new.key_mode), "")

    @property
    def refusals(self) -> list[str]:
        """Why producers wait, for `status` and flushes."""
        return [reason for reason, _ in self._refusals.values()]

    def refusal(self, producer: bytes) -> str:
        """Why a producer waits; empty when it does not."""
        return self._refusals.get(producer, ("", 0.0))[0]

    def forget_refusals(self, visible: Collection[bytes]) -> None:
        """Forget why producers were refused that are not there any more."""
        old_s = time.monotonic() - REFUSAL_S
        for producer, (_, at_s) in list(self._refusals.items()):
            if producer not in visible and at_s < old_s:
                del self._refusals[producer]

    def take_frame(self, frame: wire.Frame) -> wire.Message | None:
        """Gather a frame, or say what the courier is to be told at once."""
        producer = frame.producer
        if not self.knows(producer):
            with contextlib.suppress(OSError):
                header = journals.read_header(self._journals / producer.hex())
                reason = self.greet(producer, header)
                if reason:
                    return wire.Refused(reason)
        if not self.knows(producer):
            return self.refuse("a frame of a producer without row, folder or hello")
        position = self.position(producer)
        if frame.first > position:
            return wire.GoBack(position)
        if frame.last <= position:
            member = self._state.members.get(producer)
            return None if member is None else wire.Ack(self._state.ledger.id, member.position)
        try:
            rest = frame.body[position - frame.first :]
            run = self._state.decoder.decode(
                replace(frame, first=position, cut_s=self._hour_s(frame.cut_s), body=rest)
            )
        except BadRunError as error:
            return self.refuse(f"{error} in a frame of journal {producer.hex()}")
        self.take_run(run)
        return None

    def _hour_s(self, cut_s: float) -> float:
        hour = self._state.open_hour(hour_of(cut_s))
        return cut_s if hour == hour_of(cut_s) else float(hour * HOUR_S)

    def refuse(self, reason: str) -> wire.Message | None:
        """Count something that no courier of ours sends; nobody is answered."""
        self._uncounted += 1
        self.tell("frame_refused", reason)
        return None

    def count_refused(self) -> None:
        """Put what was refused where the count survives.

        Raises:
            LedgerError: It is counted later.
        """
        if self._uncounted:
            self._state.ledger.bump("refused_count", self._uncounted)
            self._uncounted = 0

    def take_run(self, run: Run) -> None:
        """Gather a decoded run that begins where its producer stands."""
        self._runs.append(run)
        self._ahead[run.intake.producer] = run.intake.last
        self.gathered_bytes += len(run.intake.body)
        self._since()

    def _since(self) -> None:
        if self.gathered_since_s is None:
            self.gathered_since_s = time.monotonic()

    def take_lost(self, lost: wire.Lost) -> wire.Message | None:
        """Step over what can't be read of a dead producer's journal elsewhere, and name it.

        Raises:
            LedgerError: Nothing was done.
        """
        producer, position = lost.producer, self.position(lost.producer)
        if lost.start > position:
            return wire.GoBack(position)
        residue = f"journal {producer.hex()}: {lost.reason}"
        # First, since the rest of the journal must not be committed without a word on this.
        self._state.ledger.add_residue(f"journal {producer.hex()} {lost.start}", residue, time.time())
        self.tell("journal_damaged", residue)
        if lost.end <= position:
            member = self._state.members.get(producer)
            return None if member is None else wire.Ack(self._state.ledger.id, member.position)
        nothing = wire.Frame(producer=producer, first=position, base=position, cut_s=time.time(), body=b"")
        self.take_run(self._state.decoder.run([], nothing, last=lost.end))
        return None

    def note_departure(self, goodbye: wire.Goodbye) -> None:
        """A producer of which nothing will come any more ends, once what came before is committed."""
        dropped = Amount(goodbye.dropped_count, parse_number(goodbye.dropped_quantity))
        self._departures[goodbye.producer] = dropped
        self._since()

    # --- Committing ---

    def is_due(self, now_s: float, after_s: float) -> bool:
        """Whether what is gathered should be committed."""
        since_s = self.gathered_since_s
        return since_s is not None and (now_s - since_s >= after_s or self.is_full)

    def commit(self) -> list[bytes]:
        """Commit what is gathered in one transaction. Returns the producers to be acked.

        Raises:
            LedgerError: Nothing was committed; the caller drops and reloads.
        """
        state, runs, new = self._state, self._runs, list(self._new.values())
        now_s = time.time()
        troubles = self._troubles(runs)
        with state.ledger.transaction():
            self._introduce(new, now_s)
            if runs:
                state.ledger.commit([run.intake for run in runs], now_s)
                state.ledger.put_troubles(troubles)
            if self._departures:
                state.ledger.record_dropped(self._departures)
                state.ledger.mark_gone(self._departures, now_s)
        for each in new:
            state.welcome(each)
        self.departed = list(self._departures.keys() & state.members.keys())
        for producer in self.departed:
            state.members[producer].is_gone = True
        self.drop()
        state.apply(runs)
        for intake in (run.intake for run in runs if run.intake.invalid):
            self.tell("events_refused", intake.invalid[0][2])
        state.seals.troubles.update(troubles)
        touched = {run.intake.producer for run in runs} | {each.id for each in new}
        self.publish(touched)
        if state.ledger.raw_bytes > RAW_BYTES_MAX:
            state.ledger.compact(state.windows, now_s)
        return list(touched)

    def _introduce(self, new: list[NewProducer], now_s: float) -> None:
        if not new:
            return
        key_mode = self._key_mode()
        if key_mode:
            # Rule C2: from its first event on the ledger is of that event's mode, with or without a key.
            self._state.ledger.set_key_mode(key_mode)
        self._state.ledger.introduce(new, now_s)

    def _troubles(self, runs: Iterable[Run]) -> dict[bytes, Trouble]:
        """What producers of invalid events must be told at their next flush."""
        troubles: dict[bytes, Trouble] = {}
        for intake in (run.intake for run in runs if run.intake.invalid):
            producer = intake.producer
            known = troubles.get(producer) or self._state.seals.troubles.get(producer)
            start = min(intake.first, known.start) if known else intake.first
            count = len(intake.invalid) + (known.events_count if known else 0)
            troubles[producer] = Trouble(start, count, f"refused: {intake.invalid[0][2]}")
        return troubles

    def drop(self) -> None:
        """Forget what is gathered; couriers and journals still have it."""
        self._runs, self._ahead, self._new, self._departures = [], {}, {}, {}
        self.gathered_bytes, self.gathered_since_s = 0, None

    def publish(self, producers: Iterable[bytes]) -> None:
        """Write the committed positions into headers, so that they outlive this ledger (rule L3)."""
        for producer in producers:
            member = self._state.members[producer]
            if member.is_unseen:
                continue
            try:
                self._publish(member, self._journals / producer.hex())
            except FileNotFoundError:
                continue
            except OSError as error:
                self.tell("header_not_written", f"{self._journals / producer.hex()}: {error.strerror}")

    def _publish(self, member: Member, folder: Path) -> None:
        if member.header_sequence is None:
            member.header_sequence = journals.read_header(folder).collector.sequence
        member.header_sequence += 1
        slot = Slot(
            sequence=member.header_sequence,
            ledger=self._state.ledger.id,
            position=member.position,
            events_count=member.counted_events,
        )
        journals.write_committed(folder, slot)

    def tell(self, name: str, reason: str) -> None:
        """Log each reason once."""
        if reason not in self._told and len(self._told) < REASONS_MAX:
            self._told.add(reason)
            log.warning(name, extra=notice(name, reason))
