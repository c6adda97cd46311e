"""`settle-mp flush`: asks the collector to ship everything of every worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from settle_mp import control
from settle_mp.cli import exit_codes
from settle_mp.cli.options import SECONDS, with_settings
from settle_mp.core import wire
from settle_mp.transport import AddressError

if TYPE_CHECKING:
    from settle_mp.config import Settings

#: What the collector gets for its answer on top of the time that it waits itself, in seconds.
ANSWER_S = 1.0


@click.command(
    epilog="\b\nExamples:\n  settle-mp flush\n  settle-mp flush --timeout 60 && systemctl poweroff\n\n"
    "\b\nExit codes: 0 everything is confirmed, 1 something is not (the reason is printed)."
)
@with_settings
@click.option(
    "--timeout",
    "timeout_s",
    type=SECONDS,
    default=30.0,
    show_default=True,
    metavar="S",
    help="How long to wait for the upstream, in seconds.",
)
def flush(settings: Settings, *, timeout_s: float) -> int:
    """Ship everything that any worker of this host has tracked, and wait until it is confirmed."""
    if not control.is_collector_up(settings):
        click.echo("settle-mp: no collector runs on this state folder; start `settle-mp collector`", err=True)
        return exit_codes.FAILED
    try:
        answer = control.ask(
            settings,
            lambda left_s: wire.HostFlush(1, max(0.0, left_s - ANSWER_S)),
            wire.Flushed,
            timeout_s=timeout_s + ANSWER_S,
        )
    except AddressError as error:
        click.echo(f"settle-mp: {error}", err=True)
        return exit_codes.FAILED
    if answer is None:
        click.echo("settle-mp: the collector has not answered in time", err=True)
        return exit_codes.FAILED
    click.echo(f"confirmed {answer.confirmed_count} events, unconfirmed {answer.unconfirmed_count}")
    if answer.reason:
        click.echo(f"settle-mp: {answer.reason}", err=True)
        return exit_codes.FAILED
    return exit_codes.OK
