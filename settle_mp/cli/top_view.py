"""What `settle-mp top` shows: the books of one look, and how fast they changed since an earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from settle_mp.collector.status import Report

#: Workers, notes and faults that are named; `settle-mp status` has them all.
NAMED_MAX: Final = 8
#: Buckets in which nothing should stand, and the colour that they get when something does.
_ALARMS: Final = {"in_doubt": "yellow", "dead_lettered": "red", "dropped": "red"}
_STATES: Final = {"up": "green", "ok": "green"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The books at a moment (monotonic seconds)."""

    at_s: float
    report: Report


def draw(look: Look, earlier: Look, *, title: str) -> RenderableType:
    """The whole view.

    Args:
        look: What is shown.
        earlier: What rates are held against; the same look where there is no other yet.
        title: Whose books they are.
    """
    return Group(
        Text(title, style="bold"),
        _summary(look),
        Text(),
        _books(look, earlier),
        Text(),
        _verdict(look),
        *_named("worker", look.report.json["workers"]),
        *_named("waiting", look.report.notes, "yellow"),
        *_named("fault", look.report.faults, "red"),
        Text("\nq or Ctrl-C ends this view; settle-mp goes on.", style="dim"),
    )


def _summary(look: Look) -> Text:
    shown = look.report.json
    collector, upstream = shown["collector"]["state"], shown["upstream"]
    return Text.assemble(
        "collector ",
        (collector, _STATES.get(collector, "red")),
        "   upstream ",
        (upstream["state"], _STATES.get(upstream["state"], "yellow")),
        f" ({upstream['requests_count']:,} requests, {upstream['retries_count']:,} retries)"
        f"   workers {shown['producers_count']:,}",
        "" if shown["durable"] else (" (some not durable)", "red"),
        f"   oldest pending {shown['oldest_pending_age_s']:,.1f} s",
        f"\n{upstream['last_error']}" if upstream["last_error"] else "",
    )


def _books(look: Look, earlier: Look) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for head in ("events", "events/s", "quantity"):
        table.add_column(head, justify="right", no_wrap=True)
    shown = look.report.json
    for name, count in shown["events"].items():
        table.add_row(
            name.replace("_", " "),
            f"{count:,}",
            _rate(look, earlier, name),
            shown["quantity"][name],
            style=_ALARMS.get(name) if count else None,
        )
    return table


def _rate(look: Look, earlier: Look, name: str) -> str:
    passed_s = look.at_s - earlier.at_s
    if passed_s <= 0:
        return ""
    change = look.report.json["events"][name] - earlier.report.json["events"][name]
    return f"{change / passed_s:+,.1f}" if change else "0"


def _verdict(look: Look) -> Text:
    if look.report.is_balanced:
        return Text("The books balance.", style="green")
    return Text("THE BOOKS DO NOT BALANCE.", style="bold red")


def _named(what: str, texts: list[str], style: str = "") -> list[Text]:
    lines = [Text(f"{what:<8} {text}", style=style) for text in texts[:NAMED_MAX]]
    if len(texts) > NAMED_MAX:
        lines.append(
            Text(f"{'':<8} and {len(texts) - NAMED_MAX:,} more; see `settle-mp status`", style=style)
        )
    return lines
