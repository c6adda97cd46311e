"""Runs of records decoded for the ledger: what is valid, what is not, and how much it is.

Events repeat: the same user does the same thing. So a payload is decoded once and remembered whole, with its
entry in the open window; runs of known ones are looked up, added up and counted in C.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

from settle_mp.collector.frames import Intake
from settle_mp.core.event import InvalidEventError, Quantity
from settle_mp.core.fold import Entry, Folded, add, fold_payload, fold_payload_without_rules, total
from settle_mp.core.record import mark_s, read_records, segment_seed
from settle_mp.core.window import hour_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from settle_mp.collector.frames import StoredFrame
    from settle_mp.core.rules import MetadataRule
    from settle_mp.core.window import Window
    from settle_mp.core.wire import Frame

#: Different payloads remembered at most; some 400 bytes each.
KNOWN_MAX: Final = 400_000


class BadRunError(ValueError):
    """A run holds bytes that are no record."""


_NOWHERE: Final = Entry()


class Known:
    """A payload that was decoded before, and the entry that it is added to. Equal only to itself."""

    __slots__ = ("entry", "folded", "is_whole", "quantity", "window")

    def __init__(self, folded: Folded) -> None:
        self.folded: Folded = folded
        self.quantity: Quantity = folded.quantity
        #: Whether all that it adds is whole numbers to a quantity.
        self.is_whole: bool = type(folded.quantity) is int and folded.sums is None
        self.window: object = None
        self.entry: Entry = _NOWHERE

    def enter(self, window: Window) -> None:
        """Find the entry in a window that it was not added to before."""
        self.window, self.entry = window.token, window.entry(self.folded.key)


@dataclass(frozen=True, slots=True)
class Run:
    """A decoded run: what the ledger stores, and its valid events."""

    intake: Intake
    events: list[Known]


_quantity_of = attrgetter("quantity")


class Decoder:
    """Turns journal bytes into runs, under the metadata rules in force."""

    def __init__(self, rules: Mapping[str, MetadataRule]) -> None:
        self._rules = rules
        #: Events whose quantity is whole, so that sums of them need no care, and the others.
        self._whole: dict[bytes, Known] = {}
        self._fractions: dict[bytes, Known] = {}

    def use(self, rules: Mapping[str, MetadataRule]) -> None:
        """Go on under other rules; what is folded stays as it is."""
        self._rules = rules
        self._forget()

    def _forget(self) -> None:
        self._whole.clear()
        self._fractions.clear()

    def decode(self, frame: Frame) -> Run:
        """Decode a frame: whole records of one segment that belong to one hour.

        Raises:
            BadRunError: When some of its bytes are no record.
        """
        seed = segment_seed(frame.producer, frame.base)
        payloads, used = read_records(frame.body, seed, frame.first - frame.base)
        if used != len(frame.body):
            msg = f"no record at position {frame.first + used}"
            raise BadRunError(msg)
        return self.run(payloads, frame, last=frame.last)

    def run(self, payloads: list[bytes], frame: Frame, *, last: int) -> Run:
        """A run of payloads that were read already, from `frame` or from what it stands for.

        Args:
            payloads: Of whole records, in their order.
            frame: Where they stand, and the bytes to be stored.
            last: The position that is committed with them.
        """
        refused: dict[bytes, str] = {}
        looked_up = list(map(self._whole.get, payloads))
        events = list(filter(None, looked_up)) if None in looked_up else cast("list[Known]", looked_up)
        quantity: Quantity = sum(map(_quantity_of, events))
        if events is not looked_up:
            unknown = [payload for payload, event in zip(payloads, looked_up, strict=True) if event is None]
            learned, refused = self._look(unknown)
            quantity = add(quantity, total(event.quantity for event in learned))
            events += learned
        intake = Intake(
            producer=frame.producer,
            first=frame.first,
            last=last,
            base=frame.base,
            hour=hour_of(frame.cut_s),
            cut_s=frame.cut_s,
            body=frame.body,
            events_count=len(events),
            quantity=quantity,
            invalid=_with_indices(payloads, refused) if refused else (),
        )
        return Run(intake, events)

    def _look(self, payloads: list[bytes]) -> tuple[list[Known], dict[bytes, str]]:
        """The valid events, and why the refused ones are refused; time marks are neither."""
        events: list[Known] = []
        refused: dict[bytes, str] = {}
        for payload in payloads:
            if mark_s(payload) is not None:
                continue
            try:
                events.append(self._learn(payload))
            except InvalidEventError as error:
                refused[payload] = str(error)
        return events, refused

    def _learn(self, payload: bytes) -> Known:
        known = self._whole.get(payload) or self._fractions.get(payload)
        if known is None:
            known = Known(fold_payload(payload, self._rules))
            if len(self._whole) + len(self._fractions) >= KNOWN_MAX:
                self._forget()
            (self._whole if type(known.quantity) is int else self._fractions)[payload] = known
        return known

    @staticmethod
    def add(window: Window, runs: Sequence[list[Known]]) -> None:
        """Add the events of some runs to their window."""
        events_count = sum(map(len, runs))
        events = chain.from_iterable(runs)
        # With so many keys that few of these events are alike, counting them first would only cost.
        is_sparse = events_count < len(window.entries)
        counted: Iterable[tuple[Known, int]]
        counted = zip(events, repeat(1)) if is_sparse else Counter(events).items()
        window.events_count += events_count
        token = window.token
        for known, count in counted:
            if known.window is not token:
                known.enter(window)
            entry = known.entry
            # In line, not a call, since with many keys there are hundreds of thousands of these a second.
            if known.is_whole and type(entry.quantity) is int:
                entry.count += count
                entry.quantity += known.quantity * count
            else:
                entry.add(known.folded, count)

    def recall(self, frame: StoredFrame) -> list[Known]:
        """The valid events of a committed frame; what was accepted before stays so under any rules."""
        payloads, _ = read_records(
            frame.body, segment_seed(frame.producer, frame.base), frame.first - frame.base
        )
        events = [payload for payload in payloads if mark_s(payload) is None]
        return [self._learn_again(each) for index, each in enumerate(events) if index not in frame.skipped]

    def _learn_again(self, payload: bytes) -> Known:
        try:
            return self._learn(payload)
        except InvalidEventError:
            return Known(fold_payload_without_rules(payload))


def _with_indices(payloads: list[bytes], refused: dict[bytes, str]) -> tuple[tuple[int, bytes, str], ...]:
    events = [payload for payload in payloads if mark_s(payload) is None]
    return tuple((index, each, refused[each]) for index, each in enumerate(events) if each in refused)
