"""Runs of records decoded for the ledger: what is valid, what is not, and what it adds to the windows.

Events repeat: the same user does the same thing. So whole payloads are counted first, in C, and each
different one is decoded once and remembered.
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
    from collections.abc import Mapping

    from settle_mp.collector.frames import StoredFrame
    from settle_mp.core.rules import MetadataRule

#: Different payloads remembered at most; some 300 bytes each.
KNOWN_MAX: Final = 400_000


class BadRunError(ValueError):
    """A run holds bytes that are no record."""


@dataclass(frozen=True, slots=True)
class Run:
    """A decoded run: what the ledger stores, and what the windows add."""

    intake: Intake
    folded: list[tuple[Folded, int]]


class Decoder:
    """Turns journal bytes into runs, under the metadata rules in force."""

    def __init__(self, rules: Mapping[str, MetadataRule]) -> None:
        self._rules = rules
        self._known: dict[bytes, Folded] = {}

    def use(self, rules: Mapping[str, MetadataRule]) -> None:
        """Go on under other rules; what is folded stays as it is."""
        self._rules = rules
        self._known.clear()

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
        folded, refused = self._fold(payloads)
        events_count, quantity = _sum(folded)
        intake = Intake(
            producer=producer,
            first=first,
            last=last,
            base=base,
            hour=hour_of(cut_s),
            cut_s=cut_s,
            body=body,
            events_count=events_count,
            quantity=quantity,
            invalid=_with_indices(payloads, refused) if refused else (),
        )
        return Run(intake, folded)

    def _fold(self, payloads: list[bytes]) -> tuple[list[tuple[Folded, int]], dict[bytes, str]]:
        known, folded, refused = self._known, [], {}
        for payload, count in Counter(payloads).items():
            event = known.get(payload)
            if event is None:
                if mark_s(payload) is not None:
                    continue
                try:
                    event = fold_payload(payload, self._rules)
                except InvalidEventError as error:
                    refused[payload] = str(error)
                    continue
                if len(known) >= KNOWN_MAX:
                    known.clear()
                known[payload] = event
            folded.append((event, count))
        return folded, refused

    def recall(self, frame: StoredFrame) -> list[tuple[Folded, int]]:
        """What a committed frame adds to its window, also when today's rules would refuse some of it."""
        payloads, _ = read_records(
            frame.body, segment_seed(frame.producer, frame.base), frame.first - frame.base
        )
        events = [payload for payload in payloads if mark_s(payload) is None]
        kept = [payload for index, payload in enumerate(events) if index not in frame.skipped]
        folded, refused = self._fold(kept)
        counts = Counter(kept)
        return folded + [(fold_payload_without_rules(payload), counts[payload]) for payload in refused]


def _sum(folded: list[tuple[Folded, int]]) -> tuple[int, Quantity]:
    events_count = 0
    quantity: Quantity = 0
    for event, count in folded:
        events_count += count
        quantity = add(quantity, times(event.quantity, count))
    return events_count, quantity


def _with_indices(payloads: list[bytes], refused: dict[bytes, str]) -> tuple[tuple[int, bytes, str], ...]:
    events = [payload for payload in payloads if mark_s(payload) is None]
    return tuple((index, each, refused[each]) for index, each in enumerate(events) if each in refused)
