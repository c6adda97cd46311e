"""The oracle: what was tracked against what the upstream applied, and nothing that settle-mp says of itself.

Known are how many calls returned in each thread (`tally`), which events those were (`traffic`), and which
bodies the upstream applied (its own SQLite file, read here). Compared are sets of keys (user, event type,
metadata) and, for each, the count of events, the exact quantity and each summed field.

Rule 1: of a thread that was killed one call more may have been tracked than is known to have returned.
Rule 2: nothing of `settle_mp` is imported here.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.chaos.traffic import SHARED, SUMMED, Event, Stream, event, exact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

#: What the collector adds to a row's metadata.
ANNOTATION: Final = "settle_mp"
#: Keys that differ and are told, each in words.
DIFFERENCES_MAX: Final = 20


class Key(NamedTuple):
    """What the bill tells apart. `metadata` is JSON with sorted names, without what is summed."""

    user_id: str
    event_type: str
    metadata: str


#: Events, quantity, then each summed field.
Amount = tuple[Decimal, ...]
Bill = dict[Key, Amount]


class Life(NamedTuple):
    """One stream as it ended."""

    stream: Stream
    returned: int
    #: By SIGKILL or `os._exit`: within a call, perhaps.
    is_killed: bool


@dataclass(slots=True)
class Verdict:
    """What the comparison found."""

    tracked: int = 0
    #: Events billed though their calls are not known to have returned; each killed thread may have one.
    allowed: int = 0
    lost: int = 0
    twice: int = 0
    complaints: list[str] = field(default_factory=list)

    def differ(self, text: str) -> None:
        """Tell of a key that differs, unless many do."""
        if len(self.complaints) < DIFFERENCES_MAX:
            self.complaints.append(text)

    def complain(self, text: str) -> None:
        """Tell whatever else is wrong, however many keys differ."""
        self.complaints.append(text)


def read_bill(database: Path) -> Bill:
    """Add up all rows that the upstream has applied."""
    bill: Bill = {}
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        for (body,) in connection.execute("SELECT body FROM requests ORDER BY id"):
            for row in json.loads(body, parse_float=Decimal)["events"]:
                key, amount = _entry(row)
                _add(bill, key, amount)
    finally:
        connection.close()
    return bill


def two_bodies(requests: Iterable[tuple[str, str]]) -> list[str]:
    """Find the idempotency keys that came with more than one body; pairs of key and digest."""
    seen: dict[str, str] = {}
    return sorted({key for key, digest in requests if seen.setdefault(key, digest) != digest})


def judge(lives: Iterable[Life], bill: Mapping[Key, Amount]) -> Verdict:
    """Hold what was tracked against what was billed."""
    verdict = Verdict()
    rest = dict(bill)
    shared: Bill = {}
    optional: dict[str, list[Amount]] = {}
    for life in lives:
        verdict.tracked += life.returned
        own: Bill = {}
        for each in _events(life.stream, life.returned):
            _add(shared if each.event_type == SHARED else own, *_tracked(each))
        billed = {key: rest.pop(key) for key in _keys(life, own) if key in rest}
        last = event(life.stream, life.returned)
        if life.is_killed and last.event_type == SHARED:
            optional.setdefault(last.user_id, []).append(_tracked(last)[1])
        elif life.is_killed and billed != own:
            with_last = dict(own)
            _add(with_last, *_tracked(last))
            if billed == with_last:
                verdict.allowed += 1
                continue
        _settle(verdict, own, billed)
    _judge_shared(verdict, shared, optional, rest)
    for key, amount in rest.items():
        verdict.twice += int(amount[0])
        verdict.differ(f"{_told(key)}: billed {_told_amount(amount)}, never tracked")
    return verdict


def _judge_shared(
    verdict: Verdict, shared: Bill, optional: Mapping[str, list[Amount]], rest: dict[Key, Amount]
) -> None:
    """Sums over many threads: some of the calls that were cut off may be in them, and nothing else."""
    keys = set(shared) | {key for key in rest if key.event_type == SHARED and key.user_id in optional}
    for key in sorted(keys):
        expected, billed = shared.get(key), rest.pop(key, None)
        zero = _zero(key.event_type)
        extra = _plus(billed or zero, expected or zero, -1)
        explained = _explanation(extra, optional.get(key.user_id, []), zero)
        if explained is not None:
            verdict.allowed += explained
            continue
        _settle(verdict, {key: expected} if expected else {}, {key: billed} if billed else {})


def _explanation(extra: Amount, choices: list[Amount], zero: Amount) -> int | None:
    """How many of some amounts add up to one; None when no choice does."""
    wanted = int(extra[0])
    if not 0 <= wanted <= len(choices):
        return None
    for chosen in itertools.combinations(choices, wanted):
        total = zero
        for amount in chosen:
            total = _plus(total, amount)
        if total == extra:
            return wanted
    return None


def _settle(verdict: Verdict, expected: Bill, billed: Bill) -> None:
    """Count what differs, key by key."""
    for key in sorted(expected.keys() | billed.keys()):
        zero = _zero(key.event_type)
        due, got = expected.get(key, zero), billed.get(key, zero)
        if due == got:
            continue
        difference = int(got[0] - due[0])
        # The same count and another sum: one event in the place of another.
        verdict.lost += max(0, -difference) or (1 if difference == 0 else 0)
        verdict.twice += max(0, difference) or (1 if difference == 0 else 0)
        verdict.differ(f"{_told(key)}: tracked {_told_amount(due)}, billed {_told_amount(got)}")


def _keys(life: Life, own: Bill) -> set[Key]:
    """All keys of the events that are a stream's alone, the one behind the last known included."""
    last = event(life.stream, life.returned)
    more = {_tracked(last)[0]} if life.is_killed and last.event_type != SHARED else set()
    return set(own) | more


def _events(stream: Stream, count: int) -> Iterator[Event]:
    return (event(stream, n) for n in range(count))


def _tracked(each: Event) -> tuple[Key, Amount]:
    metadata = each.metadata or {}
    return _split(each.user_id, each.event_type, metadata, Decimal(1), exact(each.quantity))


def _entry(row: Mapping[str, Any]) -> tuple[Key, Amount]:
    metadata = dict(row.get("metadata") or {})
    annotation = metadata.pop(ANNOTATION, None)
    events = Decimal(annotation["count"] if annotation else 1)
    return _split(row["userId"], row["eventType"], metadata, events, Decimal(row["quantity"]))


def _split(
    user_id: str, event_type: str, metadata: Mapping[str, Any], events: Decimal, quantity: Decimal
) -> tuple[Key, Amount]:
    summed = SUMMED.get(event_type, ())
    kept = {name: value for name, value in metadata.items() if name not in summed}
    sums = (Decimal(metadata.get(name, 0)) for name in summed)
    text = json.dumps(kept, sort_keys=True, default=str)
    return Key(user_id, event_type, text), (events, quantity, *sums)


def _zero(event_type: str) -> Amount:
    return (Decimal(0),) * (2 + len(SUMMED.get(event_type, ())))


def _plus(left: Amount, right: Amount, sign: int = 1) -> Amount:
    return tuple(a + sign * b for a, b in zip(left, right, strict=True))


def _add(bill: Bill, key: Key, amount: Amount) -> None:
    known = bill.get(key)
    bill[key] = amount if known is None else _plus(known, amount)


def _told(key: Key) -> str:
    return f"{key.event_type} of {key.user_id} {key.metadata}"


def _told_amount(amount: Amount) -> str:
    sums = "".join(f", {each}" for each in amount[2:])
    return f"{amount[0]} events ({amount[1]} units{sums})"
