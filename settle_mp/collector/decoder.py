"""Runs of records decoded for the ledger: what is valid, what is not, and how much it is.

Events repeat: the same user does the same thing. So a payload is decoded once and remembered whole, runs of
known ones are added up in C, and the windows take each different payload of a group once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.collector.frames import Intake
from settle_mp.core.event import InvalidEventError, Quantity
from settle_mp.core.fold import Folded, add, fold_payload, fold_payload_without_rules, times
from settle_mp.core.record import mark_s, read_records, segment_seed
from settle_mp.core.window import hour_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from settle_mp.collector.frames import StoredFrame
    from settle_mp.core.rules import MetadataRule

#: Different payloads remembered at most; some 400 bytes each.
KNOWN_MAX: Final = 400_000


class BadRunError(ValueError):
    """A run holds bytes that are no record."""


@dataclass(frozen=True, slots=True)
class Run:
    """A decoded run: what the ledger stores, and the payloads of its valid events."""

    intake: Intake
    events: list[bytes]


class Decoder:
    """Turns journal bytes into runs, under the metadata rules in force."""

    def __init__(self, rules: Mapping[str, MetadataRule]) -> None:
        self._rules = rules
        self._known: dict[bytes, Folded] = {}
        #: Of the known ones, those whose quantity is whole: sums of these need no care.
        self._whole: dict[bytes, int] = {}

    def use(self, rules: Mapping[str, MetadataRule]) -> None:
        """Go on under other rules; what is folded stays as it is."""
        self._rules = rules
        self._forget()

    def _forget(self) -> None:
        self._known.clear()
        self._whole.clear()

    def decode(self, *, producer: bytes, first: int, base: int, cut_s: float, body: bytes) -> Run:
        """Decode whole records of one segment that belong to one hour.

        Raises:
            BadRunError: When some of the bytes are no record.
        """
        payloads, used = read_records(body, segment_seed(producer, base), first - base)
        if used != len(body):
            msg = f"no record at position {first + used}"
            raise BadRunError(msg)
        return self.run(
            payloads, producer=producer, first=first, last=first + used, base=base, cut_s=cut_s, body=body
        )

    def run(
        self,
        payloads: list[bytes],
        *,
        producer: bytes,
        first: int,
        last: int,
        base: int,
        cut_s: float,
        body: bytes,
    ) -> Run:
        """A run of payloads that were read from `body` already."""
        refused: dict[bytes, str] = {}
        events = payloads
        try:
            quantity: Quantity = sum(map(self._whole.__getitem__, payloads))
        except KeyError:
            quantity, strange, refused = self._look(payloads)
            events = [payload for payload in payloads if payload not in strange]
        intake = Intake(
            producer=producer,
            first=first,
            last=last,
            base=base,
            hour=hour_of(cut_s),
            cut_s=cut_s,
            body=body,
            events_count=len(events),
            quantity=quantity,
            invalid=_with_indices(payloads, refused) if refused else (),
        )
        return Run(intake, events)

    def _look(self, payloads: list[bytes]) -> tuple[Quantity, set[bytes], dict[bytes, str]]:
        """The sum of the valid events, which payloads are none, and why the refused ones are refused."""
        quantity: Quantity = 0
        marks: set[bytes] = set()
        refused: dict[bytes, str] = {}
        for payload, count in Counter(payloads).items():
            if mark_s(payload) is not None:
                marks.add(payload)
                continue
            try:
                quantity = add(quantity, times(self._fold(payload).quantity, count))
            except InvalidEventError as error:
                refused[payload] = str(error)
        return quantity, marks | refused.keys(), refused

    def _fold(self, payload: bytes) -> Folded:
        folded = self._known.get(payload)
        if folded is None:
            folded = fold_payload(payload, self._rules)
            if len(self._known) >= KNOWN_MAX:
                self._forget()
            self._known[payload] = folded
            if type(folded.quantity) is int:
                self._whole[payload] = folded.quantity
        return folded

    def fold(self, events: Iterable[list[bytes]]) -> Iterator[tuple[Folded, int]]:
        """Each different event of some runs, with how often it came."""
        counts: Counter[bytes] = Counter()
        for each in events:
            counts.update(each)
        known = self._known
        for payload, count in counts.items():
            yield known.get(payload) or self._fold_again(payload), count

    def _fold_again(self, payload: bytes) -> Folded:
        """What was accepted before stays accepted, also where today's rules would refuse it."""
        try:
            return self._fold(payload)
        except InvalidEventError:
            return fold_payload_without_rules(payload)

    @staticmethod
    def recall(frame: StoredFrame) -> list[bytes]:
        """The valid events of a committed frame."""
        payloads, _ = read_records(
            frame.body, segment_seed(frame.producer, frame.base), frame.first - frame.base
        )
        events = [payload for payload in payloads if mark_s(payload) is None]
        return [payload for index, payload in enumerate(events) if index not in frame.skipped]


def _with_indices(payloads: list[bytes], refused: dict[bytes, str]) -> tuple[tuple[int, bytes, str], ...]:
    events = [payload for payload in payloads if mark_s(payload) is None]
    return tuple((index, each, refused[each]) for index, each in enumerate(events) if each in refused)
