"""`settle-mp indoubt`: held batches, which may have been applied or not, and what a person makes of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.deciding import decide, ledger_of, tell, utc
from settle_mp.cli.options import with_settings
from settle_mp.core import decision
from settle_mp.core.fold import number_text

if TYPE_CHECKING:
    from settle_mp.collector.batches import Batch
    from settle_mp.collector.ledger import Ledger
    from settle_mp.config import Settings

#: Batches read at once; each has a body of some KiB.
PAGE_COUNT = 200

_IDS = click.argument("ids", type=click.IntRange(min=1), nargs=-1, metavar="[ID]...")
_ALL = click.option("--all", "is_all", is_flag=True, help="All that are held now.")
_JSON = click.option("--json", "is_json", is_flag=True, help="Say what was done as one JSON object.")
_EXITS = "\b\nExit codes: 0 done for all of them, 1 not for some (the reason is printed)."


@click.group()
def indoubt() -> None:
    """Look at batches that may or may not have been applied, and decide about them.

    Such a batch is held when `on_in_doubt` is hold, when it was refused after a try whose end nobody knows,
    when its key may be forgotten, or when it fails its checksum. It is not sent until somebody decides.
    """


@indoubt.command(
    name="list", epilog="\b\nExamples:\n  settle-mp indoubt list\n  settle-mp indoubt list --json"
)
@with_settings
@click.option("--json", "is_json", is_flag=True, help="As one JSON array.")
def list_batches(settings: Settings, *, is_json: bool) -> int:
    """List all held batches, oldest first."""
    with ledger_of(settings) as ledger:
        held = _held(ledger)
        trying = _trying_events(ledger)
    if is_json:
        click.echo(json.dumps([_plain(batch) for batch in held], indent=2))
        return exit_codes.OK
    if not held:
        click.echo("No batch is held.")
    for batch in held:
        click.echo(
            f"{batch.id:>6}  {utc(batch.first_in_doubt_s) or '-':<20}  {batch.events_count} events, "
            f"quantity {number_text(batch.quantity)}, {batch.tries} tries: {batch.reason}"
        )
    if trying:
        click.echo(f"{trying} more events are in doubt and tried again by the collector itself.")
    return exit_codes.OK


@indoubt.command(epilog="\b\nExamples:\n  settle-mp indoubt show 7")
@with_settings
@click.argument("batch_id", type=click.IntRange(min=1), metavar="ID")
def show(settings: Settings, *, batch_id: int) -> int:
    """Show one held batch with its key and rows, as JSON: enough to look for it upstream."""
    with ledger_of(settings) as ledger:
        found = [batch for batch in _held(ledger) if batch.id == batch_id]
    if not found:
        click.echo(f"settle-mp: batch {batch_id} is not held; `settle-mp indoubt list` has them", err=True)
        return exit_codes.FAILED
    click.echo(json.dumps({**_plain(found[0]), "rows": _rows(found[0])}, indent=2))
    return exit_codes.OK


@indoubt.command(
    epilog="\b\nExamples:\n  settle-mp indoubt retry 7\n  settle-mp indoubt retry --all\n\n" + _EXITS
)
@with_settings
@_IDS
@_ALL
@_JSON
def retry(settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_json: bool) -> int:
    """Send held batches once more, with the same key and the same bytes.

    Right where the upstream honours idempotency keys and still knows this one: it applies the batch if it had
    not, and only answers if it had. What is not accepted then is held again.
    """
    return _decide(settings, decision.RETRY, "Ordered a retry of", ids, is_all=is_all, is_json=is_json)


@indoubt.command(
    epilog="\b\nExamples:\n  settle-mp indoubt renew 7\n  settle-mp indoubt renew 7 8 --json\n\n" + _EXITS
)
@with_settings
@_IDS
@_ALL
@_JSON
def renew(settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_json: bool) -> int:
    """Send held batches like new ones, under new keys: you know that they were not applied.

    Then a refusal is a certain one: the guilty row is found and the others are billed.
    """
    return _decide(settings, decision.RENEW, "Renewed", ids, is_all=is_all, is_json=is_json)


@indoubt.command(
    epilog="\b\nExamples:\n  settle-mp indoubt confirm 7\n  settle-mp indoubt confirm --all\n\n" + _EXITS
)
@with_settings
@_IDS
@_ALL
@_JSON
def confirm(settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_json: bool) -> int:
    """Settle held batches as applied: you have seen them in the upstream's usage."""
    return _decide(settings, decision.CONFIRM, "Confirmed", ids, is_all=is_all, is_json=is_json)


@indoubt.command(
    epilog="\b\nExamples:\n  settle-mp indoubt discard 7\n  settle-mp indoubt discard 7 8\n\n" + _EXITS
)
@with_settings
@_IDS
@_ALL
@_JSON
def discard(settings: Settings, *, ids: tuple[int, ...], is_all: bool, is_json: bool) -> int:
    """Give held batches up: they are never sent again, and `status` counts them as dropped."""
    return _decide(settings, decision.DISCARD, "Discarded", ids, is_all=is_all, is_json=is_json)


def _decide(
    settings: Settings, action: str, done: str, ids: tuple[int, ...], *, is_all: bool, is_json: bool
) -> int:
    answers = decide(settings, action, ids, lambda ledger: ledger.decisions.last_held, is_all=is_all)
    return tell(answers, action, done, "held batches", is_json=is_json)


def _held(ledger: Ledger | None) -> list[Batch]:
    batches: list[Batch] = []
    while ledger and (page := ledger.outbox.held(PAGE_COUNT, after=batches[-1].id if batches else 0)):
        batches += page
    return batches


def _trying_events(ledger: Ledger | None) -> int:
    """Events in doubt that are not held."""
    if ledger is None:
        return 0
    held = sum(batch.events_count for batch in _held(ledger) if batch.is_in_doubt)
    return ledger.totals()["in_doubt"].events - held


def _plain(batch: Batch) -> dict[str, Any]:
    return {
        "id": batch.id,
        "idempotency_key": batch.key,
        "reason": batch.reason,
        "tries": batch.tries,
        "first_in_doubt": utc(batch.first_in_doubt_s),
        "last_try": utc(batch.attempted_s),
        "held_since": utc(batch.changed_s),
        "events": batch.events_count,
        "quantity": number_text(batch.quantity),
    }


def _rows(batch: Batch) -> list[dict[str, Any]]:
    """Its rows, with exact quantities; none where its body is lost."""
    rows = json.loads(batch.body)["events"] if batch.body else []
    return [
        {**row, "quantity": number_text(lot.quantity)} for row, lot in zip(rows, batch.lots, strict=False)
    ]
