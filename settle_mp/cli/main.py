"""The program: finds the command, and turns every way of ending into an exit code.

A command NAME is a click command called NAME in `settle_mp/cli/NAME.py`. It is imported when it is used, so
that `settle-mp status` does not wait for a web framework. A whole number that it returns is the exit code.
"""

from __future__ import annotations

import importlib
import shlex
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from settle_mp.cli import exit_codes, logs
from settle_mp.errors import SettingsError
from settle_mp.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class _Command:
    summary: str
    extra: str | None = None


#: In the order of `--help`. The summaries stand here because reading them must not import the commands.
_COMMANDS: Final[Mapping[str, _Command]] = {
    "collector": _Command(summary="Run the collector in the foreground."),
    "status": _Command(summary="Show the books: what was tracked, confirmed, pending, dropped."),
    "top": _Command(summary="Watch the books in the terminal.", extra="top"),
    "flush": _Command(summary="Ask the collector to ship everything of every worker."),
    "deadletter": _Command(summary="Look at what was refused for good; replay or discard it."),
    "indoubt": _Command(summary="Look at what may have been applied; retry, confirm or discard it."),
    "residue": _Command(summary="Look at what was destroyed; acknowledge it."),
    "adopt": _Command(summary="Take over a journal that belongs to an unknown ledger."),
    "config": _Command(summary="Show every setting with its value and source."),
    "doctor": _Command(summary="Check the set-up, and say how to mend what is wrong."),
    "keys": _Command(summary="Make CURVE keys for a collector on another host."),
    "sandbox": _Command(summary="Run a local stand-in for the upstream API.", extra="sandbox"),
    "demo": _Command(summary="See it work: real servers, real kills, tracked against billed.", extra="demo"),
}

#: Packages that only extras bring, so that a missing one is the reader's to install and not our fault.
_OPTIONAL_PACKAGES: Final[Mapping[str, str]] = {
    "fastapi": "sandbox",
    "gunicorn": "gunicorn",
    "rich": "demo",
    "starlette": "sandbox",
    "uvicorn": "sandbox",
}


class _LazyGroup(click.Group):
    """A group that imports a command when it is invoked or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names of all commands."""
        return [*_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - the same
        """Import a command; None when there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"settle_mp.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was named; a name that is none gets the nearest that is."""
        if args[0] not in _COMMANDS:
            from difflib import get_close_matches  # only who makes a mistake pays for it

            for near in get_close_matches(args[0], _COMMANDS, n=1):
                ctx.fail(f"No such command {args[0]!r}. Did you mean {near!r}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - the same
        """Write the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.summary) for name, command in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a package that an extra would bring is asked for by its pip command."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            advice = _install_advice(error, ctx.invoked_subcommand)
            if advice is None:
                raise
            raise click.ClickException(advice) from error


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  settle-mp demo\n  settle-mp collector --state-dir /var/lib/settle-mp\n"
    "  settle-mp status --json",
)
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option(
    "--log-level",
    type=click.Choice(logs.LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
    help="The least level that is logged, to standard error.",
)
def cli(log_level: str) -> None:
    """Usage events from prefork servers, counted exactly once."""
    logs.configure(log_level)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run settle-mp and exit; arguments are those of the command line by default."""
    try:
        result = cli.main(args=arguments, prog_name="settle-mp", standalone_mode=False)
    except SettingsError as error:
        click.echo(f"settle-mp: {error}", err=True)
        sys.exit(exit_codes.CONFIG)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exit_codes.INTERRUPTED)
    sys.exit(result if isinstance(result, int) else exit_codes.OK)


def _install_advice(error: ModuleNotFoundError, command: str | None) -> str | None:
    package = (error.name or "").partition(".")[0]
    if package not in _OPTIONAL_PACKAGES or command is None:
        return None
    extra = _COMMANDS[command].extra or _OPTIONAL_PACKAGES[package]
    return (
        f"{package} is not installed. To add what `settle-mp {command}` needs:\n"
        f"  {shlex.quote(sys.executable)} -m pip install 'settle-mp[{extra}]'"
    )
