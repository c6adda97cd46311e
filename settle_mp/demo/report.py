"""What is told at the beginning and at the end. Values in, text out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.demo.load import CLIENTS_COUNT
from settle_mp.demo.traffic import AI_QUERY, FLUSH_INTERVAL_S, KINDS, USERS_COUNT

if TYPE_CHECKING:
    from decimal import Decimal

    from settle_mp.demo.verdict import TypeVerdict, Verdict

#: Events that the vendor's SDK, and others of its kind, put into one request.
BATCH_EVENTS: Final = 50
#: Requests that two killed workers can have in hand. gunicorn 22, for one, also closes kept-alive connections
#: when it recycles a worker, whether a request is on its way or not.
KILLS_CUT_OFF_MAX: Final = 2 * CLIENTS_COUNT
#: Faults that are told one by one.
FAULTS_SHOWN: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table: the first columns are text and the rest numbers; the last row may be a total."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    text_columns: int
    has_total: bool
    note: str


def prologue(requests_count: int, workers_count: int) -> str:
    """What is going to happen, and why it matters."""
    kinds = ", ".join(kind.event_type for kind in KINDS)
    return f"""\
A usage event is money: one that dies with its worker is never billed, and one
that is sent twice is billed twice. What follows is real and not simulated:

 1. gunicorn with {workers_count} workers, recycled all the time, answers {requests_count:,} HTTP
    requests of {USERS_COUNT} users. Each makes its worker track one event:
    {kinds}.
 2. On the way two workers and the collector are killed with SIGKILL.
 3. The clients' own list of answers is held against what the upstream has
    billed, user by user. No count of settle-mp's has a say in that.

It takes half a minute, in a temporary folder that is gone afterwards.
"""


def bill_table(verdict: Verdict, http_requests_count: int) -> Table:
    """Answered against billed, by event type."""
    events_count = verdict.total("events_count")
    total = (
        "all",
        _count(verdict.total("answered_count")),
        _count(verdict.total("cut_off_count")),
        _units(sum(each.billed for each in verdict.types)),
        _count(verdict.total("lost_count")),
        _count(verdict.total("surplus_count")),
        _count(http_requests_count),
        _count(_batches(events_count)),
    )
    return Table(
        title="Tracked against billed",
        heads=(
            "event type",
            "requests\nanswered",
            "cut off\nby kills",
            "units\nbilled",
            "events\nlost",
            "events\ntwice",
            "HTTP re-\nquests\nupstream",
            "a client\nbatching\nby 50",
        ),
        rows=(*(_bill_row(each) for each in verdict.types), total),
        text_columns=1,
        has_total=True,
        note=_bill_note(verdict),
    )


def _bill_row(each: TypeVerdict) -> tuple[str, ...]:
    return (
        each.kind.event_type,
        _count(each.answered_count),
        _count(each.cut_off_count),
        _units(each.billed),
        _count(each.lost_count),
        _count(each.surplus_count),
        _count(round(each.http_requests)),
        _count(_batches(each.events_count)),
    )


def _bill_note(verdict: Verdict) -> str:
    cut_off, billed = verdict.total("cut_off_count"), verdict.total("cut_off_billed_count")
    lines = ["VIDEO_MINUTES come in tenths. HTTP requests with several types are shared out."]
    if cut_off:
        lines.append(
            f"{cut_off} requests were cut off: {billed} had tracked their event by then and are billed once,"
        )
        lines.append(f"{cut_off - billed} had not and are not billed.")
    if cut_off > KILLS_CUT_OFF_MAX:
        lines.append("More than kills explain: this gunicorn drops connections when it recycles workers.")
    return "\n".join(lines)


def folding_table(verdict: Verdict) -> Table:
    """Rows upstream by event type, with the metadata rule and without."""
    return Table(
        title="What folding saves",
        heads=("event type", "metadata", "events\nbilled", "rows\nupstream", "without\nthe rule"),
        rows=tuple(_folding_row(each) for each in verdict.types),
        text_columns=2,
        has_total=False,
        note=f"The rule, in settle-mp.toml:\n  {rule_text()}\n"
        f"Sums are shipped every {FLUSH_INTERVAL_S} s. Without a rule nothing that differs is added up:\n"
        "each PDF export is a row of its own.",
    )


def _folding_row(each: TypeVerdict) -> tuple[str, ...]:
    kind = each.kind
    # Each event of a type with a rule has a request_id of its own: without the rule none could be added up.
    without = _count(each.events_count) if kind.has_rule else ""
    carries = kind.carries + (" (rule)" if kind.has_rule else "")
    return (kind.event_type, carries, _count(each.events_count), _count(each.rows_count), without)


def rule_text() -> str:
    """The demo's metadata rule on one line."""
    lists = ", ".join(f"{name} = {json.dumps(getattr(AI_QUERY, name))}" for name in ("keep", "sum", "drop"))
    return f"[events.{AI_QUERY.event_type}] {lists}"


def fault_lines(verdict: Verdict) -> list[str]:
    """What is wrong, the first of it one by one."""
    more = len(verdict.faults) - FAULTS_SHOWN
    return [*verdict.faults[:FAULTS_SHOWN], *([f"and {more} more like these"] if more > 0 else [])]


def result_line(verdict: Verdict) -> str:
    """The verdict in one sentence."""
    answered = verdict.total("answered_count")
    if verdict.holds:
        return f"EXACT: {answered:,} answered requests billed exactly once; 0 lost, 0 twice"
    lost, surplus, faults = verdict.total("lost_count"), verdict.total("surplus_count"), len(verdict.faults)
    return f"WRONG: {answered:,} answered requests; {lost:,} lost, {surplus:,} twice, {faults:,} wrong sums"


def _batches(events_count: int) -> int:
    return -(-events_count // BATCH_EVENTS)


def _count(count: int) -> str:
    return f"{count:,}"


def _units(units: Decimal | int) -> str:
    return f"{units:,f}" if units else "0"
