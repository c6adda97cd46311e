"""`settle-mp doctor`: looks at the set-up, and prints each finding with its mend."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.options import with_settings
from settle_mp.doctor import collector, folder, upstream, workers
from settle_mp.doctor.finding import worst

if TYPE_CHECKING:
    from settle_mp.config import Settings
    from settle_mp.doctor.finding import Finding, Severity

_MARKS: Final = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}
_CODES: Final[dict[Severity, int]] = {
    "ok": exit_codes.OK,
    "warning": exit_codes.WARNED,
    "error": exit_codes.FAILED,
}


@click.command(
    epilog="\b\nExamples:\n  settle-mp doctor\n  settle-mp doctor --json | jq .severity\n"
    "  settle-mp doctor --offline    (asks no upstream)\n\n"
    "\b\nExit codes: 0 all is well, 10 something should be mended, 1 something must be."
)
@with_settings
@click.option("--json", "is_json", is_flag=True, help="As one JSON object.")
@click.option("--offline", "is_offline", is_flag=True, help="Make no request to the upstream.")
def doctor(settings: Settings, *, is_json: bool, is_offline: bool) -> int:
    """Look at state folder, collector, workers, key and upstream. Run it as the user that runs them."""
    found = examine(settings, is_offline=is_offline)
    severity = worst(found)
    if is_json:
        shown = {"severity": severity, "findings": [asdict(each) for each in found]}
        click.echo(json.dumps(shown, indent=2))
    else:
        _show(found)
    return _CODES[severity]


def examine(settings: Settings, *, is_offline: bool) -> list[Finding]:
    """All findings, in the order in which things are to be mended."""
    found = list(folder.look(settings))
    found += collector.look(settings, collector.ask(settings))
    found += workers.look(settings)
    return found if is_offline else [*found, *upstream.look(settings)]


def _show(found: list[Finding]) -> None:
    width = max(len(each.check) for each in found)
    for each in found:
        click.echo(f"{_MARKS[each.severity]}  {each.check:<{width}}  {each.text}")
        if each.mend:
            click.echo(f"{'':<9}{'':<{width}}  mend: {each.mend}")
