"""`settle-mp residue`: what was destroyed on the way, until a person has acknowledged it, and after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.deciding import decide, is_agreed, ledger_of, refuse_unclear, tell, utc
from settle_mp.cli.options import with_settings
from settle_mp.core import decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from settle_mp.collector.residues import Residue
    from settle_mp.config import Settings

_BILL = """\
Acknowledging this means:
  - the bill stays as it is: events that were destroyed are not billed, now or later;
  - `settle-mp status` counts it as no fault any more, and says how many are acknowledged;
  - what is destroyed from now on is a fault again."""


@click.group()
def residue() -> None:
    """Look at what was destroyed, and acknowledge it.

    A damaged span of a journal, a ledger that was lost, a batch that is not what was sealed: each is named
    in the ledger, and the books do not balance while one of them is open.
    """


@residue.command(
    name="list",
    epilog="\b\nExamples:\n  settle-mp residue list\n  settle-mp residue list --all --json",
)
@with_settings
@click.option("--all", "is_all", is_flag=True, help="Those that are acknowledged, too.")
@click.option("--json", "is_json", is_flag=True, help="As one JSON array.")
def list_residues(settings: Settings, *, is_all: bool, is_json: bool) -> int:
    """List what was destroyed and is not acknowledged, oldest first."""
    found = [each for each in _read(settings) if is_all or each.is_open]
    if is_json:
        click.echo(json.dumps([_plain(each) for each in found], indent=2))
        return exit_codes.OK
    if not found:
        click.echo("There are no residues." if is_all else "No residue is open.")
    _show(found)
    return exit_codes.OK


@residue.command(
    epilog="\b\nExamples:\n  settle-mp residue acknowledge 3\n  settle-mp residue acknowledge --all --yes\n\n"
    "\b\nExit codes: 0 all of them are acknowledged, 1 some are not (the reason is printed)."
)
@with_settings
@click.argument("ids", type=click.IntRange(min=1), nargs=-1, metavar="[ID]...")
@click.option("--all", "is_all", is_flag=True, help="All that are open now.")
@click.option("--yes", "is_sure", is_flag=True, help="Don't ask.")
@click.option("--json", "is_json", is_flag=True, help="Say what was done as one JSON object.")
def acknowledge(
    settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_sure: bool, is_json: bool
) -> int:
    """Say that you know what was destroyed: it is no fault of the books any more, and stays in the ledger.

    Shows it, says what that means for the bill, and asks.
    """
    refuse_unclear(ids, is_all=is_all)
    meant = [each for each in _read(settings) if each.is_open and (is_all or each.id in ids)]
    if meant:
        _show(meant, is_quiet=is_json)
        click.echo(_BILL, err=is_json)
        if not (is_sure or is_agreed("Acknowledge it?", "acknowledge it")):
            return exit_codes.FAILED
    # Not what came while the question stood.
    last = max((each.id for each in meant), default=0)
    answers = decide(settings, decision.ACKNOWLEDGE, ids, lambda _: last, is_all=is_all)
    return tell(answers, decision.ACKNOWLEDGE, "Acknowledged", "residues", is_json=is_json)


def _read(settings: Settings) -> list[Residue]:
    with ledger_of(settings) as ledger:
        return ledger.named_residues() if ledger is not None else []


def _show(residues: Sequence[Residue], *, is_quiet: bool = False) -> None:
    for each in residues:
        known = f" (acknowledged {utc(each.acknowledged_s)})" if not each.is_open else ""
        click.echo(f"{each.id:>6}  {utc(each.at_s)}  {each.text}{known}", err=is_quiet)


def _plain(residue: Residue) -> dict[str, Any]:
    return {
        "id": residue.id,
        "at": utc(residue.at_s),
        "text": residue.text,
        "acknowledged": utc(residue.acknowledged_s),
    }
