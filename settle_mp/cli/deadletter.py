"""`settle-mp deadletter`: what was refused for good, why, and what a person makes of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.deciding import decide, ledger_of, tell, utc
from settle_mp.cli.options import with_settings
from settle_mp.core import decision
from settle_mp.core.event import InvalidEventError, unpack_event
from settle_mp.core.fold import number_text

if TYPE_CHECKING:
    from settle_mp.collector.ledger import Ledger
    from settle_mp.collector.outbox import DeadLetter
    from settle_mp.config import Settings

#: Dead letters read at once.
PAGE_COUNT = 1000


@click.group()
def deadletter() -> None:
    """Look at events and rows that were refused for good, and decide about them.

    They are kept, and not billed, until somebody replays or discards them.
    """


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
            f"{letter.id:>6}  {utc(letter.at_s)}  {letter.events_count} events, "
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


_IDS = click.argument("ids", type=click.IntRange(min=1), nargs=-1, metavar="[ID]...")
_ALL = click.option("--all", "is_all", is_flag=True, help="All that are there now.")
_JSON = click.option("--json", "is_json", is_flag=True, help="Say what was done as one JSON object.")


@deadletter.command(
    epilog="\b\nExamples:\n  settle-mp deadletter replay 7 8\n  settle-mp deadletter replay --all\n\n"
    "\b\nExit codes: 0 all of them go out again, 1 some do not (the reason is printed)."
)
@with_settings
@_IDS
@_ALL
@_JSON
def replay(settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_json: bool) -> int:
    """Send dead letters again, once what was wrong upstream or in a metadata rule is mended.

    Each goes out under a new idempotency key, as a batch of its own. What is refused again comes back as
    another dead letter. An event that was refused at intake is judged by the rules that are in force now.
    """
    answers = decide(settings, decision.REPLAY, ids, _last, is_all=is_all)
    return tell(answers, decision.REPLAY, "Replayed", "dead letters", is_json=is_json)


@deadletter.command(
    epilog="\b\nExamples:\n  settle-mp deadletter discard 7\n  settle-mp deadletter discard --all\n\n"
    "\b\nExit codes: 0 all of them are discarded, 1 some are not (the reason is printed)."
)
@with_settings
@_IDS
@_ALL
@_JSON
def discard(settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_json: bool) -> int:
    """Give dead letters up for good: they are never billed, and `status` counts them as dropped."""
    answers = decide(settings, decision.DROP, ids, _last, is_all=is_all)
    return tell(answers, decision.DROP, "Discarded", "dead letters", is_json=is_json)


def _last(ledger: Ledger) -> int:
    return ledger.decisions.last_letter


def _read(settings: Settings) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    with ledger_of(settings) as ledger:
        while ledger and (
            page := ledger.outbox.dead_letters(PAGE_COUNT, after=letters[-1].id if letters else 0)
        ):
            letters += page
    return letters


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "origin": letter.origin,
        "producer": letter.producer.hex() or None,
        "at": utc(letter.at_s),
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
