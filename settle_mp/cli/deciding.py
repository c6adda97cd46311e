"""What the commands share by which a person decides: reading the ledger, asking whoever holds it, telling.

No command: `deadletter`, `indoubt`, `residue` and `adopt` are.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final

import click

from settle_mp import control
from settle_mp.cli import exit_codes
from settle_mp.collector import desk
from settle_mp.collector.ledger import Ledger, LedgerError
from settle_mp.collector.startup import AlreadyRunningError
from settle_mp.core import decision, wire
from settle_mp.core.books import Amount, amount_of
from settle_mp.core.fold import number_text, parse_number
from settle_mp.statedir import StateDir
from settle_mp.transport import AddressError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from settle_mp.config import Settings

#: How long a busy collector gets to do what it is asked, in seconds.
ANSWER_S: Final = 30.0
#: How long it is waited for before the lock is looked at again, in seconds: it may have ended meanwhile.
LOOK_AGAIN_S: Final = 2.0
#: So many tickets that no two commands ever have the same.
_TICKETS: Final = 2**60


@contextlib.contextmanager
def ledger_of(settings: Settings) -> Iterator[Ledger | None]:
    """The ledger as it stands, for reading; None where there is none yet.

    Raises:
        ClickException: It can't be read.
    """
    folder = StateDir(settings.state_dir).ledger
    if not (folder / "ledger.db").exists():
        yield None
        return
    try:
        ledger = Ledger.open_read_only(folder)
    except LedgerError as error:
        msg = f"the ledger can't be read: {error}"
        raise click.ClickException(msg) from error
    try:
        yield ledger
    finally:
        ledger.close()


def new_ticket() -> int:
    """A number that no other command has: what it stands for is done once, however often it is asked."""
    return secrets.randbelow(_TICKETS)


def ask(settings: Settings, message: wire.Decide | wire.Adopt) -> wire.Decided:
    """Have something done by the collector; where none runs, on its files.

    Raises:
        ClickException: It could not be done, or no answer has come.
    """
    deadline_s = time.monotonic() + ANSWER_S
    while time.monotonic() < deadline_s:
        try:
            if not control.is_collector_up(settings):
                with desk.on_files(settings) as held:
                    return held.answer(message)
            answer = control.ask(settings, lambda _: message, wire.Decided, timeout_s=LOOK_AGAIN_S)
        except AlreadyRunningError:
            continue  # it has just started
        except LedgerError as error:
            msg = f"the ledger can't be used, nothing was done: {error}"
            raise click.ClickException(msg) from error
        except (AddressError, OSError) as error:
            raise click.ClickException(str(error)) from error
        if answer is not None:
            return answer
    msg = f"the collector has not answered within {ANSWER_S:g} s, and may or may not have done it: look again"
    raise click.ClickException(msg)


def decide(
    settings: Settings, action: str, ids: Iterable[int], last_of: Callable[[Ledger], int], *, is_all: bool
) -> list[wire.Decided]:
    """Decide about some ids, or all that are there now.

    Args:
        settings: Where.
        action: One of `core.decision`.
        ids: Which ones.
        last_of: Reads the highest id there is: what comes back while we decide is not met again.
        is_all: Whether all are meant.

    Raises:
        ClickException: See `ask`; what was done before stays done.
        UsageError: Neither ids nor all.
    """
    wanted = sorted(set(ids))
    refuse_unclear(wanted, is_all=is_all)
    ranges = [(each, each) for each in wanted]
    if is_all:
        with ledger_of(settings) as ledger:
            last = last_of(ledger) if ledger is not None else 0
        ranges = [(1, last)] if last else []
    return [answer for first, last in ranges for answer in _decide_range(settings, action, first, last)]


def refuse_unclear(ids: Collection[int], *, is_all: bool) -> None:
    """Make sure that ids are named or all are meant, and not both.

    Raises:
        UsageError: They are not.
    """
    if bool(ids) == is_all:
        msg = "name the IDs, or say --all"
        raise click.UsageError(msg)


def _decide_range(settings: Settings, action: str, first: int, last: int) -> Iterator[wire.Decided]:
    while first:
        answer = ask(settings, wire.Decide(new_ticket(), action, first, last))
        yield answer
        first = answer.rest


def tell(answers: list[wire.Decided], action: str, done: str, things: str, *, is_json: bool) -> int:
    """Say what was done and what that means for the bill. Returns the exit code."""
    amount = amount_of(Amount(each.events_count, parse_number(each.quantity)) for each in answers)
    count = sum(each.done_count for each in answers)
    left = [each.reason for each in answers if each.reason]
    if is_json:
        quantity = number_text(amount.quantity)
        shown = {"done": count, "events": amount.events, "quantity": quantity, "left": left}
        click.echo(json.dumps(shown, indent=2))
    else:
        if count or not left:
            held = f", {amount}" if amount.events else ""
            bill = f": {decision.BILL[action]}" if count else ""
            click.echo(f"{done} {count} {things}{held}{bill}.")
        for reason in left:
            click.echo(f"settle-mp: {reason}", err=True)
    return exit_codes.FAILED if left else exit_codes.OK


def is_agreed(question: str, act: str) -> bool:
    """Ask on standard error; where nobody is there to answer, say how to `act` without being asked."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        click.echo(f"\nsettle-mp: say --yes to {act} without being asked", err=True)
        agreed = False
    if not agreed:
        click.echo("settle-mp: nothing was changed", err=True)
    return agreed


def utc(at_s: float | None) -> str | None:
    """A time for people and scripts."""
    if at_s is None:
        return None
    return datetime.fromtimestamp(at_s, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
