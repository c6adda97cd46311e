"""`settle-mp demo`: the main job, shown with real servers and real kills."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.options import with_settings_loader

if TYPE_CHECKING:
    from settle_mp.cli.options import SettingsLoader

#: Fewer could end before everything has been killed that is to be.
REQUESTS_MIN: Final = 100


@click.command(
    epilog="\b\nExamples:\n  settle-mp demo\n  settle-mp demo --requests 100000\n"
    "  settle-mp demo --sabotage; echo $?      # 1: the check can fail\n"
    "  settle-mp demo --keep                   # then look at its logs and settle-mp.toml\n\n"
    "\b\nExit codes: 0 every answered request was billed exactly once, 1 not so, 130 Ctrl-C."
)
@with_settings_loader
@click.option(
    "--requests",
    "requests_count",
    type=click.IntRange(REQUESTS_MIN, 10_000_000),
    default=20_000,
    show_default=True,
    help="HTTP requests to send.",
)
@click.option("--sabotage", "is_sabotaged", is_flag=True, help="Drop one event, to see that it is noticed.")
@click.option("--keep", "is_kept", is_flag=True, help="Keep the temporary folder with logs and databases.")
def demo(load_settings: SettingsLoader, *, requests_count: int, is_sabotaged: bool, is_kept: bool) -> int:
    """Serve real requests, kill workers and the collector, and hold the bill against the answers.

    It runs a sandbox, a collector and gunicorn in a temporary folder on free ports, takes less than a minute,
    and leaves nothing behind. It reads no settings and touches no account.
    """
    # It takes the two options all the same because every command does.
    del load_settings
    for package in ("rich", "gunicorn", "fastapi", "uvicorn"):
        importlib.import_module(package)
    from settle_mp.demo.children import DemoError, StoppedError
    from settle_mp.demo.run import Options, run
    from settle_mp.demo.screen import Screen

    options = Options(requests_count=requests_count, is_sabotaged=is_sabotaged, is_kept=is_kept)
    try:
        with Screen() as screen:
            return exit_codes.OK if run(options, screen) else exit_codes.FAILED
    except DemoError as error:
        click.echo(f"settle-mp: {error}", err=True)
        return exit_codes.FAILED
    except StoppedError as error:
        click.echo("settle-mp: stopped; everything it started has ended", err=True)
        return 128 + error.signum
