"""`settle-mp keys`: makes CURVE keys, and says where each of them goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from settle_mp import keys as curve
from settle_mp.cli import exit_codes
from settle_mp.cli.options import with_settings
from settle_mp.errors import SettingsError
from settle_mp.statedir import group_id

if TYPE_CHECKING:
    from settle_mp.config import Settings


@click.command(
    epilog="\b\nExamples:\n  settle-mp keys\n  settle-mp keys --out ./keys\n"
    "  settle-mp keys --worker web-2     (keys of its own for one more host)\n\n"
    "\b\nExit codes: 0 made, 1 not made (the reason is printed), 78 a setting can't be used."
)
@with_settings
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the keys.  [default: the setting keys_dir, else keys in the state folder]",
)
@click.option("--worker", "name", metavar="NAME", help="Add keys for another worker's host, to these.")
def keys(settings: Settings, *, out: Path | None, name: str | None) -> int:
    """Make the keys that tcp beyond this host needs. Run it on the collector's host.

    Secret keys are written to files that only you can read, and never shown.
    """
    folder = out or curve.folder_of(settings.state_dir, settings.keys_dir)
    try:
        gid = group_id(settings.group)
        if name is None:
            curve.make(folder, gid)
        else:
            _add(folder, name, gid)
    except LookupError:
        problem = f"there is no group {settings.group}"
        raise SettingsError("group", settings.source("group"), problem, "a group of this system") from None
    except FileExistsError as error:
        click.echo(
            f"settle-mp: {error.filename or folder} is there; nothing was changed. {_OTHERWISE}", err=True
        )
        return exit_codes.FAILED
    except OSError as error:
        click.echo(f"settle-mp: {error.filename or folder} can't be written ({error.strerror})", err=True)
        return exit_codes.FAILED
    click.echo(_explain(folder, name or curve.WORKER_NAME, is_new=name is None))
    return exit_codes.OK


_OTHERWISE = "`settle-mp keys --worker NAME` adds a worker's keys; to replace all, move the folder away"


def _add(folder: Path, name: str, gid: int | None) -> None:
    if not curve.NAME_PATTERN.fullmatch(name):
        raise click.BadParameter("letters, digits, '.', '_' and '-', up to 64 of them", param_hint="--worker")
    if curve.of_collector(folder) is None:
        raise click.ClickException(
            f"there are no keys of a collector in {folder}; `settle-mp keys` makes them"
        )
    curve.add_worker(folder, name, gid)


def _explain(folder: Path, name: str, *, is_new: bool) -> str:
    secret, public = f"{name}{curve.SECRET_SUFFIX}", f"workers/{name}{curve.PUBLIC_SUFFIX}"
    rows = [(curve.COLLECTOR_SECRET, "stays with the collector; nobody else needs it")] if is_new else []
    rows += [
        (public, "stays with the collector: who holds the secret of it may come in"),
        (curve.COLLECTOR_PUBLIC, "is copied to the keys folder of the worker's host"),
        (secret, f"is copied there too, as {curve.WORKER_SECRET}, for the workers' user to read"),
    ]
    width = max(len(file) for file, _ in rows)
    lines = [f"CURVE keys in {folder}:", *(f"  {file:<{width}}  {what}" for file, what in rows), ""]
    lines += [
        "On each worker's host (the keys folder is `keys` in its state folder, or keys_dir):",
        f"  scp {folder}/{curve.COLLECTOR_PUBLIC} HOST:STATE_DIR/keys/{curve.COLLECTOR_PUBLIC}",
        f"  scp {folder}/{secret} HOST:STATE_DIR/keys/{curve.WORKER_SECRET}",
        'and there  endpoint = "tcp://COLLECTORS-HOST:4747"',
        'The collector listens with  endpoint = "tcp://0.0.0.0:4747"  (this port and the next).',
    ]
    if not is_new:
        lines += ["A running collector lets the new ones in after SIGHUP."]
    return "\n".join(lines)
