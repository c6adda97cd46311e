"""`settle-mp adopt`: take over a journal that is bound to a ledger this state folder does not know."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.deciding import ask, is_agreed, ledger_of, new_ticket
from settle_mp.cli.options import with_settings
from settle_mp.collector.inventory import HeldJournal
from settle_mp.core import wire
from settle_mp.core.record import NO_LEDGER
from settle_mp.leftovers import producer_of
from settle_mp.statedir import StateDir

if TYPE_CHECKING:
    from settle_mp.config import Settings
    from settle_mp.core.books import Amount

_BILL = """\
Journal {journal} of {name} stands at position {position}:
ledger {ledger} took it up to there ({before} events).
Adopting it means:
  - the {amount} behind that position are billed by this host's collector;
  - what the other ledger took and did not ship is not billed from here;
  - if another collector goes on reading this journal, or a copy of it, its events are billed twice."""

_BILL_UNKNOWN = """\
The header of journal {journal} can't be read, so nobody knows how much of it another ledger has taken.
Adopting it means:
  - all that is still in it, {amount}, is billed by this host's collector;
  - what another ledger took of that before is billed twice."""


@click.command(
    epilog="\b\nExamples:\n  settle-mp adopt 00112233445566778899aabbccddeeff\n"
    "  settle-mp adopt 00112233445566778899aabbccddeeff --yes --json\n\n"
    "The IDs of journals that wait are in the lines `waiting:` of `settle-mp status`.\n\n"
    "\b\nExit codes: 0 it is adopted (or was before), 1 it is not (the reason is printed)."
)
@with_settings
@click.argument("journal", metavar="ID")
@click.option("--yes", "is_sure", is_flag=True, help="Don't ask.")
@click.option("--json", "is_json", is_flag=True, help="Say what was done as one JSON object.")
def adopt(settings: Settings, *, journal: str, is_sure: bool, is_json: bool) -> int:
    """Take over a journal that belongs to a ledger this state folder does not know.

    Such a journal waits, since its events may have been billed from where that ledger is. Says what adopting
    it may do to the bill, and asks.
    """
    producer = producer_of(journal)
    if producer is None:
        raise click.BadParameter(f"{journal!r} is not the ID of a journal (32 hexadecimal digits)")
    amount = _explain(settings, producer, is_quiet=is_json)
    if amount is None:
        click.echo(f"settle-mp: there is no journal {journal} in {settings.state_dir}", err=True)
        return exit_codes.FAILED
    if not (is_sure or is_agreed("Adopt it?", "adopt it")):
        return exit_codes.FAILED
    answer = ask(settings, wire.Adopt(new_ticket(), producer))
    return _tell(answer, journal, amount, is_json=is_json)


def _explain(settings: Settings, producer: bytes, *, is_quiet: bool) -> Amount | None:
    """Say what adopting does to the bill. Returns what would be billed; None without such a journal."""
    folder = StateDir(settings.state_dir).journals / producer.hex()
    if not folder.is_dir():
        return None
    with ledger_of(settings) as ledger:
        known = None if ledger is None else ledger.producers().get(producer)
    held = HeldJournal(folder)
    try:
        held.settle()
        bond = held.header.bond
        amount = held.behind(bond.position if known is None else known.position).amount
    finally:
        held.close()
    identity = held.header.identity
    words: dict[str, Any] = {"journal": producer.hex(), "amount": amount}
    if identity is not None or bond.ledger != NO_LEDGER:
        words["name"] = identity.name if identity is not None else "an unknown worker"
        words |= {"ledger": bond.ledger.hex(), "position": bond.position, "before": bond.events_count}
    if known is None:
        text = _BILL if "ledger" in words else _BILL_UNKNOWN
        click.echo(text.format(**words), err=is_quiet)
    return amount


def _tell(answer: wire.Decided, journal: str, amount: Amount, *, is_json: bool) -> int:
    if is_json:
        shown = {"adopted": not answer.reason, "events": amount.events, "reason": answer.reason or None}
        click.echo(json.dumps(shown, indent=2))
    elif not answer.reason:
        fate = "is adopted" if answer.done_count else "is known to this ledger already"
        click.echo(f"Journal {journal} {fate}.")
    if answer.reason:
        click.echo(f"settle-mp: {answer.reason}", err=True)
        return exit_codes.FAILED
    return exit_codes.OK
