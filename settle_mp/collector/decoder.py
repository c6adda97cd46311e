"""Runs of records decoded for the ledger: what is valid, what is not, and how much it is.

Events repeat: the same user does the same thing. So a payload is decoded once and remembered whole, with
how often it came; runs of known ones are looked up and added up in C.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from settle_mp.collector.frames import Intake
from settle_mp.core.event import InvalidEventError
from settle_mp.core.fold import Repeats, fold_payload, fold_payload_without_rules, total
from settle_mp.core.record import mark_s, read_records, segment_seed
from settle_mp.core.window import hour_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from settle_mp.collector.frames import StoredFrame
    from settle_mp.core.rules import MetadataRule
    from settle_mp.core.wire import Frame

#: Different payloads remembered at most; some 400 bytes each.
KNOWN_MAX: Final = 400_000


class BadRunError(ValueError):
    """A run holds bytes that are no record."""


class _Memory(dict[bytes, "Repeats | None"]):
    """Payloads that were decoded before; others are when they are looked up."""

    def __init__(self, rules: Mapping[str, MetadataRule]) -> None:
        super().__init__()
        self.rules = rules

    def __missing__(self, payload: bytes) -> Repeats | None:
        """Decode it; None for a time mark and for what is refused."""
        if mark_s(payload) is not None:
            return None
        try:
            repeats = Repeats(fold_payload(payload, self.rules))
        except InvalidEventError:
            return None
        if len(self) >= KNOWN_MAX:
            self.clear()
        self[payload] = repeats
        return repeats


@dataclass(frozen=True, slots=True)
class Run:
    """A decoded run: what the ledger stores, and its valid events."""

    intake: Intake
    events: list[Repeats]


_quantity_of = attrgetter("quantity")


class Decoder:
    """Turns journal bytes into runs, under the metadata rules in force."""

    def __init__(self, rules: Mapping[str, MetadataRule]) -> None:
        self._known = _Memory(rules)

    def use(self, rules: Mapping[str, MetadataRule]) -> None:
        """Go on under other rules; what is folded stays as it is."""
        self._known = _Memory(rules)

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
        events = list(filter(None, map(self._known.__getitem__, payloads)))
        intake = Intake(
            producer=frame.producer,
            first=frame.first,
            last=last,
            base=frame.base,
            hour=hour_of(frame.cut_s),
            cut_s=frame.cut_s,
            body=frame.body,
            events_count=len(events),
            quantity=total(map(_quantity_of, events)),
            invalid=() if len(events) == len(payloads) else self._invalid(payloads),
        )
        return Run(intake, events)

    def _invalid(self, payloads: list[bytes]) -> tuple[tuple[int, bytes, str], ...]:
        """Index among the events, payload and reason of each that is refused."""
        invalid = []
        for index, payload in enumerate(_without_marks(payloads)):
            if payload not in self._known:
                try:
                    fold_payload(payload, self._known.rules)
                except InvalidEventError as error:
                    invalid.append((index, payload, str(error)))
        return tuple(invalid)

    def recall(self, frame: StoredFrame) -> list[Repeats]:
        """The valid events of a committed frame; what was accepted before stays so under any rules."""
        payloads, _ = read_records(
            frame.body, segment_seed(frame.producer, frame.base), frame.first - frame.base
        )
        return [
            self._known[payload] or Repeats(fold_payload_without_rules(payload))
            for index, payload in enumerate(_without_marks(payloads))
            if index not in frame.skipped
        ]


def _without_marks(payloads: list[bytes]) -> list[bytes]:
    return [payload for payload in payloads if mark_s(payload) is None]
