"""`settle-mp status`: the books."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.options import with_settings
from settle_mp.collector.status import read_status

if TYPE_CHECKING:
    from settle_mp.collector.status import Report
    from settle_mp.config import Settings


@click.command(
    epilog="\b\nExamples:\n  settle-mp status\n  settle-mp status --json | jq .events.pending\n\n"
    "\b\nExit codes: 0 the books balance, 1 they don't (what is wrong is named)."
)
@with_settings
@click.option(
    "--json", "is_json", is_flag=True, help="As one JSON object; quantities are exact decimal strings."
)
def status(settings: Settings, *, is_json: bool) -> int:
    """Show what was tracked and what became of it. Reads the files, so it works with no collector, too."""
    report = read_status(settings)
    if is_json:
        click.echo(json.dumps(report.json, indent=2))
    else:
        _show(report, settings)
    return exit_codes.OK if report.is_balanced else exit_codes.FAILED


def _show(report: Report, settings: Settings) -> None:
    shown = report.json
    width = max(len(text) for text in ["quantity", *shown["quantity"].values()])
    click.echo(f"{'':<15}{'events':>12}  {'quantity':>{width}}")
    for name, count in shown["events"].items():
        click.echo(f"{name.replace('_', ' '):<15}{count:>12}  {shown['quantity'][name]:>{width}}")
    click.echo()
    unused = "" if settings.state_dir.is_dir() else " (not there: neither worker nor collector has used it)"
    click.echo(f"state dir: {settings.state_dir}{unused}")
    _lines(shown)
    for note in report.notes:
        click.echo(f"waiting: {note}")
    for advice in shown["unfolded"]:
        _advise(advice)
    if report.is_balanced:
        click.echo("The books balance.")
        return
    click.echo("THE BOOKS DO NOT BALANCE:")
    for fault in report.faults:
        click.echo(f"  - {fault}")


def _advise(advice: dict[str, Any]) -> None:
    names = ", ".join(f"{each['name']} ({each['share']:.0%})" for each in advice["metadata"])
    click.echo(
        f"folding:   {advice['event_type']} has metadata with a new value in nearly every event: {names}.\n"
        "           Each such event is a row of its own. If the difference does not matter for the bill,\n"
        "           say so in settle-mp.toml (sum adds up, drop forgets) and reload the collector (SIGHUP):"
    )
    click.echo("".join(f"             {line}\n" for line in advice["rule"].splitlines()), nl=False)


def _lines(shown: dict[str, Any]) -> None:
    upstream = shown["upstream"]
    error = f" ({upstream['last_error']})" if upstream["last_error"] else ""
    click.echo(f"collector: {shown['collector']['state']}")
    click.echo(
        f"upstream:  {upstream['state']}{error}, {upstream['requests_count']} requests, "
        f"{upstream['retries_count']} retries"
    )
    click.echo(f"workers:   {shown['producers_count']}" + ("" if shown["durable"] else ", some not durable"))
    for name in shown["workers"]:
        click.echo(f"           {name}")
    if shown["oldest_pending_age_s"]:
        click.echo(f"oldest pending event: {shown['oldest_pending_age_s']:.1f} s")
    if shown["in_doubt_ever"]["events"]:
        click.echo(f"ever in doubt: {shown['in_doubt_ever']['events']} events")
    if shown["confirmed_by_hand"]["events"]:
        click.echo(f"confirmed by a person: {shown['confirmed_by_hand']['events']} events")
    if shown["held"]["batches"]:
        held = shown["held"]
        click.echo(f"held: {held['batches']} batches, {held['events']} events; `settle-mp indoubt list`")
    if shown["events"]["dead_lettered"]:
        click.echo("dead letters: `settle-mp deadletter list`")
    if any(shown["residues"].values()):
        named = shown["residues"]
        click.echo(
            f"residues: {named['open']} open, {named['acknowledged']} acknowledged; `settle-mp residue list`"
        )
    if shown["refused_count"]:
        click.echo(f"refused: {shown['refused_count']} messages that are no frames of a known worker")
