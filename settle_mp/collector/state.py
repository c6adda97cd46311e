"""What the collector remembers of its ledger: producers, open windows and unsettled seals.

Rule L1: memory never runs ahead. It is changed after the ledger's transaction has ended, and on any error
of the ledger all of it is dropped and read again.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.collector.frames import StoredSum
from settle_mp.core.ticket import Reach, SealBook
from settle_mp.core.window import Window, Windows
from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from settle_mp.collector.decoder import Decoder, Run
    from settle_mp.collector.ledger import Ledger
    from settle_mp.collector.roster import NewProducer, ProducerRow
    from settle_mp.core.fold import Entry

log: Final = logging.getLogger("settle_mp")

#: Hours with open windows at most: two weeks of an upstream that is down. Later hours share the newest.
HOURS_MAX = 24 * 14


@dataclass(slots=True)
class Member:
    """A producer as the loop needs it; positions as committed.

    Attributes:
        is_unseen: Whether its journal, if it has one, is not in our state folder.
        heard_s: When it last spoke to us (monotonic), for telling silent ones.
        header_sequence: Of our last word in its header; None before the first.
    """

    id: bytes
    name: str
    position: int
    sealed_position: int
    open_events_count: int
    counted_events: int
    is_volatile: bool
    is_unseen: bool = False
    is_gone: bool = False
    heard_s: float = float("-inf")
    header_sequence: int | None = None


class State:
    """The memory of one ledger."""

    def __init__(self, ledger: Ledger, decoder: Decoder) -> None:
        """Read it all; see `load`."""
        self.ledger = ledger
        self.decoder = decoder
        self.members: dict[bytes, Member] = {}
        self.windows: Windows = Windows()
        self.seals: SealBook = SealBook()
        #: The number of the latest seal that may have unsettled batches; 0 when there is none.
        self.seal_number: int = 0
        # Steps of the wall clock must neither move what is scheduled nor make windows due.
        self._clock_offset_s = time.time() - time.monotonic()
        self.load(in_flight=())

    def now_s(self) -> float:
        """Unix seconds that never jump while this process lives."""
        return time.monotonic() + self._clock_offset_s

    def load(self, *, in_flight: Iterable[int]) -> None:
        """Drop everything and read it again.

        Raises:
            LedgerError: When the ledger can't be read.
        """
        now_s = self.now_s()
        for batch in self.ledger.outbox.recover(now_s, in_flight=list(in_flight)):
            reason = f"batch {batch.id} ({batch.events_count} events): {batch.reason}"
            log.warning("batch_in_doubt", extra=notice("batch_in_doubt", reason))
        before, self.members = self.members, {}
        for row in self.ledger.producers().values():
            self.members[row.id] = _member(row, before.get(row.id))
        self.windows = Windows()
        for stored in self.ledger.stored():
            window = self.windows.at(stored.hour, now_s)
            if isinstance(stored, StoredSum):
                _restore(window, stored)
            else:
                window.reach(stored.cut_s)
                window.count(self.decoder.recall(stored))
        self.seals = SealBook()
        for seal in self.ledger.outbox.seals():
            self.seals.add(seal)
            self.seal_number = max(self.seal_number, seal.number)
        self.seals.troubles = dict(self.ledger.troubles())

    def welcome(self, new: NewProducer) -> None:
        """Take up a producer whose row was just committed."""
        self.members[new.id] = Member(
            id=new.id,
            name=new.name,
            position=new.position,
            sealed_position=new.position,
            open_events_count=0,
            counted_events=new.events_before,
            is_volatile=new.is_volatile,
            is_unseen=new.is_unseen,
        )

    def replayed(self, number: int) -> None:
        """A seal was written that holds dead letters and nothing of the windows."""
        self.look_again(number)
        self.seal_number = max(number, self.seal_number)

    def look_again(self, number: int) -> None:
        """Batches of a seal are to be waited for, again or for the first time."""
        seal = self.ledger.outbox.seal(number)
        if seal is not None:
            self.seals.add(seal)

    def apply(self, runs: Iterable[Run]) -> None:
        """Take over what was just committed."""
        now_s = self.now_s()
        for run in runs:
            intake = run.intake
            if run.events:
                # Others are not stored, so that what is read again would have no window for them either.
                window = self.windows.at(intake.hour, now_s)
                window.reach(intake.cut_s)
                window.count(run.events)
            member = self.members[intake.producer]
            member.position = intake.last
            member.is_gone = False
            member.open_events_count += intake.events_count
            member.counted_events += intake.events_count + len(intake.invalid)

    def open_hour(self, hour: int) -> int:
        """The hour whose window an event of `hour` goes to: its own, unless there are too many."""
        hours = [window.hour for window in self.windows]
        return hours[-1] if hour not in hours and len(hours) >= HOURS_MAX else hour

    def reaches(self) -> Mapping[bytes, Reach]:
        """What a seal of all open windows holds of each producer."""
        return {
            member.id: Reach(member.sealed_position, member.position, member.open_events_count)
            for member in self.members.values()
            if member.position > member.sealed_position
        }

    def sealed(self, number: int) -> None:
        """All that was open is sealed now."""
        self.seal_number = max(number, self.seal_number)
        self.windows.clear()
        for member in self.members.values():
            member.sealed_position, member.open_events_count = member.position, 0


def _member(row: ProducerRow, before: Member | None) -> Member:
    return Member(
        id=row.id,
        name=row.name,
        position=row.position,
        sealed_position=row.sealed_position,
        open_events_count=row.open_events_count,
        counted_events=row.events_before + row.events.events,
        is_volatile=row.is_volatile,
        is_unseen=row.is_unseen,
        is_gone=row.gone_s is not None,
        heard_s=before.heard_s if before else float("-inf"),
        header_sequence=before.header_sequence if before else None,
    )


def _restore(window: Window, stored: StoredSum) -> None:
    entry: Entry = stored.entry
    window.entries[stored.key] = entry
    window.events_count += entry.count
    window.reach(stored.first_s)
    window.reach(stored.last_s)
