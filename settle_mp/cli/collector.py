"""`settle-mp collector`: runs the collector in the foreground."""

from __future__ import annotations

import os
import signal

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.options import SECONDS, SettingsLoader, with_settings_loader
from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.notify import Notifier
from settle_mp.collector.service import Collector
from settle_mp.collector.startup import AlreadyRunningError, open_collector, spare_garbage_collection
from settle_mp.transport import AddressError


@click.command(
    epilog="\b\nExamples:\n"
    "  SETTLESETTLE_API_KEY_FILE=/etc/settle-mp/key settle-mp collector\n"
    "  settle-mp collector --state-dir /var/lib/settle-mp\n"
    "  settle-mp collector --drain-timeout 20    (on a host whose disk dies with it)\n\n"
    "\b\nSignals: SIGTERM and SIGINT end it in good order, a second one at once;\n"
    "SIGHUP reads settings and key again.\n\n"
    "\b\nExit codes: 0 ended as asked, 75 another collector has the state folder,\n"
    "78 a setting can't be used, 1 anything else."
)
@with_settings_loader
@click.option(
    "--drain-timeout",
    "drain_timeout_s",
    type=SECONDS,
    default=0.0,
    metavar="S",
    help="Ship what can be shipped for up to S seconds before ending.  [default: 0, the folder keeps it]",
)
def collector(load_settings: SettingsLoader, *, drain_timeout_s: float) -> int:
    """Collect the events of this host's workers and ship them upstream, until SIGTERM or Ctrl-C."""
    # One that comes while the ledger is opened would end us; it is heard once we listen.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    try:
        spare_garbage_collection()
        opened = open_collector(load_settings())
        Collector(
            opened,
            drain_timeout_s=drain_timeout_s,
            reload_settings=load_settings,
            notifier=Notifier(os.environ),
        ).run()
    except AlreadyRunningError as error:
        click.echo(f"settle-mp: {error}; it goes on, this one ends", err=True)
        return exit_codes.ALREADY_RUNNING
    except LedgerError as error:
        click.echo(f"settle-mp: the ledger can't be used: {error}", err=True)
        return exit_codes.FAILED
    except (AddressError, OSError) as error:
        click.echo(f"settle-mp: {error}", err=True)
        return exit_codes.FAILED
    return exit_codes.OK
