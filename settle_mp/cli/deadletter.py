"""`settle-mp deadletter`: what was refused for good, and why."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.options import with_settings
from settle_mp.collector.ledger import Ledger, LedgerError
from settle_mp.core.event import InvalidEventError, unpack_event
from settle_mp.core.fold import number_text
from settle_mp.statedir import StateDir

if TYPE_CHECKING:
    from settle_mp.collector.outbox import DeadLetter
    from settle_mp.config import Settings

#: Dead letters read at once.
PAGE_COUNT = 1000


@click.group()
def deadletter() -> None:
    """Look at events and rows that were refused for good; they are kept and not billed."""


@deadletter.command(
    name="list", epilog="\b\nExamples:\n  settle-mp deadletter list\n  settle-mp deadletter list --json"
)
@with_settings
@click.option("--json", "is_json", is_flag=True, help="As one JSON array.")
def list_letters(settings: Settings, *, is_json: bool) -> int:
    """List all dead letters, oldest first."""
    letters = _read(settings)
    if is_json:
        click.echo(json.dumps([_plain(letter) for letter in letters], indent=2))
        return exit_codes.OK
    if not letters:
        click.echo("There are no dead letters.")
    for letter in letters:
        click.echo(
            f"{letter.id:>6}  {_utc(letter.at_s)}  {letter.events_count} events, "
            f"quantity {number_text(letter.quantity)}: {letter.reason}"
        )
    return exit_codes.OK


@deadletter.command(epilog="\b\nExamples:\n  settle-mp deadletter show 7")
@with_settings
@click.argument("letter_id", type=click.IntRange(min=1), metavar="ID")
def show(settings: Settings, *, letter_id: int) -> int:
    """Show one dead letter whole, as JSON."""
    found = [letter for letter in _read(settings) if letter.id == letter_id]
    if not found:
        click.echo(
            f"settle-mp: there is no dead letter {letter_id}; `settle-mp deadletter list` has them", err=True
        )
        return exit_codes.FAILED
    click.echo(json.dumps(_plain(found[0]), indent=2))
    return exit_codes.OK


def _read(settings: Settings) -> list[DeadLetter]:
    folder = StateDir(settings.state_dir).ledger
    if not folder.exists():
        return []
    try:
        ledger = Ledger.open_read_only(folder)
    except LedgerError as error:
        msg = f"the ledger can't be read: {error}"
        raise click.ClickException(msg) from error
    letters: list[DeadLetter] = []
    try:
        while page := ledger.outbox.dead_letters(PAGE_COUNT, after=letters[-1].id if letters else 0):
            letters += page
    finally:
        ledger.close()
    return letters


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "origin": letter.origin,
        "producer": letter.producer.hex() or None,
        "at": _utc(letter.at_s),
        "reason": letter.reason,
        "events": letter.events_count,
        "quantity": number_text(letter.quantity),
        "content": _content(letter),
    }


def _content(letter: DeadLetter) -> Any:
    if letter.origin == "batch":
        return json.loads(letter.payload)
    try:
        event = unpack_event(letter.payload)
    except InvalidEventError:
        return {"bytes": letter.payload.hex()}
    return {
        "userId": event.user_id,
        "eventType": event.event_type,
        "quantity": number_text(event.quantity),
        "metadata": event.metadata,
    }


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
