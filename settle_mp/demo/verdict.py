"""The verdict: requests answered against rows billed, user by user, and nothing that our own parts counted.

Rule 1: an answered request is billed exactly once. A request that was cut off is billed once or not at all:
whether its event was tracked before the kill is only known from the bill.
Rule 2: events are held together by what the bill tells apart (user, type, metadata that stay). Where the
request's id stays, that is one request: ids sent and ids billed are compared as sets. Where it does not, the
bill must be the exact sum of the answered ones and some of those cut off, in quantity and in each metadata
sum.
Rule 3: values in, values out.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from settle_mp.demo.traffic import KINDS, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from settle_mp.demo.traffic import Request

#: What our own collector adds to a row's metadata; the user's own are beside it.
OWN_NAME: Final = "settle_mp"

#: The quantity, then each sum of the kind's rule.
Amount = tuple[Decimal, ...]


class Ending(Enum):
    """How a request ended for the client that sent it."""

    ANSWERED = "answered"
    #: No answer, or half of one.
    CUT_OFF = "cut off"


class Key(NamedTuple):
    """What the bill tells apart. `metadata` is JSON with sorted names."""

    event_type: str
    user_id: str
    metadata: str

    def __str__(self) -> str:
        return f"{self.event_type} of {self.user_id}" + ("" if self.metadata == "{}" else f" {self.metadata}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row that the upstream has billed."""

    user_id: str
    event_type: str
    quantity: Decimal
    metadata: Mapping[str, Any]
    #: The HTTP request that brought it.
    http_request: int


@dataclass(slots=True)
class TypeVerdict:
    """What became of one event type. Counts are of events; `billed` is in units."""

    kind: Kind
    answered_count: int = 0
    cut_off_count: int = 0
    cut_off_billed_count: int = 0
    billed: Decimal = Decimal(0)
    lost_count: int = 0
    #: Billed beyond what was sent: twice, or never sent at all.
    surplus_count: int = 0
    rows_count: int = 0
    #: HTTP requests that brought it; one that brought several types counts for each by its part of the rows.
    http_requests: Fraction = Fraction(0)

    @property
    def events_count(self) -> int:
        """Events that are in the bill."""
        return int(self.billed / self.kind.quantity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether the bill is right, and where it is not."""

    types: tuple[TypeVerdict, ...]
    #: What is wrong, a sentence each.
    faults: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether every answered request was billed exactly once, and every other at most once."""
        return not self.faults

    def total(self, name: str) -> int:
        """Add up one count over all types."""
        return sum(getattr(each, name) for each in self.types)


@dataclass(slots=True)
class _Account:
    """Everything with one key."""

    answered: Amount
    billed: Amount
    answered_count: int = 0
    cut_off: list[Amount] = field(default_factory=list)


class _Accounts:
    """All accounts, opened as they come up."""

    def __init__(self) -> None:
        self._by_key: dict[Key, _Account] = {}

    def __iter__(self) -> Iterator[tuple[Key, _Account]]:
        return iter(self._by_key.items())

    def account(self, kind: Kind, user_id: str, metadata: Mapping[str, Any], without: set[str]) -> _Account:
        """Give the account of a user, a type, and the metadata that stay when some names are taken away."""
        kept = {name: value for name, value in metadata.items() if name not in without}
        key = Key(kind.event_type, user_id, json.dumps(kept, sort_keys=True, default=str))
        if key not in self._by_key:
            zero = _amount(kind, Decimal(0), {})
            self._by_key[key] = _Account(answered=zero, billed=zero)
        return self._by_key[key]


def judge(sent: Iterable[tuple[Request, Ending]], rows: Iterable[Row]) -> Verdict:
    """Hold what was sent against what was billed."""
    types = {kind.event_type: TypeVerdict(kind) for kind in KINDS}
    faults: list[str] = []
    accounts = _Accounts()
    for request, ending in sent:
        _enter_sent(accounts, types[request.kind.event_type], request, ending)
    http_requests: Counter[int] = Counter()
    brought: dict[str, Counter[int]] = {event_type: Counter() for event_type in types}
    for row in rows:
        if row.event_type not in types:
            faults.append(f"{row.event_type} of {row.user_id}: {row.quantity} units billed, of no known type")
            continue
        http_requests[row.http_request] += 1
        brought[row.event_type][row.http_request] += 1
        _enter_row(accounts, types[row.event_type], row)
    for key, account in accounts:
        faults += _settle(key, account, types[key.event_type])
    for event_type, counts in brought.items():
        parts = (Fraction(count, http_requests[number]) for number, count in counts.items())
        types[event_type].http_requests = sum(parts, Fraction(0))
    return Verdict(types=tuple(types.values()), faults=tuple(faults))


def _enter_sent(accounts: _Accounts, verdict: TypeVerdict, request: Request, ending: Ending) -> None:
    kind, metadata = request.kind, request.metadata or {}
    account = accounts.account(kind, request.user_id, metadata, {*kind.sum, *kind.drop})
    amount = _amount(kind, kind.quantity, metadata)
    if ending is Ending.ANSWERED:
        verdict.answered_count += 1
        account.answered_count += 1
        account.answered = _sum(account.answered, amount)
    else:
        verdict.cut_off_count += 1
        account.cut_off.append(amount)


def _enter_row(accounts: _Accounts, verdict: TypeVerdict, row: Row) -> None:
    kind = verdict.kind
    verdict.rows_count += 1
    verdict.billed += row.quantity
    # What a rule should have dropped is not taken away here, so that a row which still has it fits nothing.
    account = accounts.account(kind, row.user_id, row.metadata, {*kind.sum, OWN_NAME})
    account.billed = _sum(account.billed, _amount(kind, row.quantity, row.metadata))


def _settle(key: Key, account: _Account, verdict: TypeVerdict) -> list[str]:
    """Close one account; gives what is wrong with it."""
    extra = _sum(account.billed, tuple(-each for each in account.answered))
    explained = _explanations(account.cut_off, _amount(verdict.kind, Decimal(0), {})).get(extra)
    if explained is not None:
        verdict.cut_off_billed_count += explained
        return []
    unit, cut_off_count = verdict.kind.quantity, len(account.cut_off)
    ended = f"{account.answered_count} answered, {cut_off_count} cut off"
    told = f"{key}: {ended}, {account.billed[0]} units billed"
    if extra[0] < 0:
        count = _events(-extra[0], unit)
        verdict.lost_count += count
        return [f"{told}: {count} lost"]
    beyond = extra[0] - cut_off_count * unit
    if beyond > 0:
        count = _events(beyond, unit)
        verdict.surplus_count += count
        return [f"{told}: {count} " + ("twice" if account.answered_count + cut_off_count else "never sent")]
    sums = zip(verdict.kind.sum, account.billed[1:], strict=True)
    told += "".join(f" with {each} {name}" for name, each in sums)
    return [f"{told}: no choice of these requests adds up to that"]


def _explanations(cut_off: list[Amount], zero: Amount) -> dict[Amount, int]:
    """Every sum that some of these can make, with how many it takes.

    They are few: a kill cuts off what one worker had in hand, and these share an account only by chance.
    """
    made = {zero: 0}
    for amount in cut_off:
        for total, count in list(made.items()):
            made.setdefault(_sum(total, amount), count + 1)
    return made


def _sum(left: Amount, right: Amount) -> Amount:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _events(units: Decimal, unit: Decimal) -> int:
    return int((units / unit).to_integral_value(ROUND_CEILING))


def _amount(kind: Kind, quantity: Decimal, metadata: Mapping[str, Any]) -> Amount:
    return (quantity, *(_number(metadata.get(name, 0)) for name in kind.sum))


def _number(value: object) -> Decimal:
    # What is no number equals nothing, so that no sum of requests explains it.
    is_number = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
    return Decimal(value) if is_number else Decimal("NaN")  # type: ignore[arg-type] # Just checked.
