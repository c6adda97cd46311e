"""`settle-mp sandbox`: run the local stand-in for the upstream."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from settle_mp.cli.options import with_settings_loader

if TYPE_CHECKING:
    from settle_mp.cli.options import SettingsLoader

#: What to export where any test key does.
ANY_KEY: Final = "ss_test_sandbox"

_EPILOG: Final = """\b
Examples:
  settle-mp sandbox --port 8790 --db sandbox.db
  settle-mp sandbox --seed user_123=500               # a wallet with credits in it
  settle-mp sandbox --port 0 --port-file port.txt     # a free port, written to a file
  curl localhost:8790/sandbox/usage                   # what was billed
  curl -X POST localhost:8790/sandbox/faults -d '{"action": "answer", "status": 503, "times": 3}'
  curl -X POST localhost:8790/sandbox/faults -d '{"action": "reset", "when": "after"}'
"""


@click.command(epilog=_EPILOG)
@with_settings_loader
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=8790, show_default=True, help="0 takes a free port."
)
@click.option("--port-file", type=click.Path(path_type=Path), help="Write the port there once it answers.")
@click.option(
    "--db", metavar="FILE", default=":memory:", help="SQLite file to keep usage in; none keeps it in memory."
)
@click.option("--api-key", metavar="KEY", help="Take this key alone, instead of any ss_test_… key.")
@click.option(
    "--ignore-idempotency-keys",
    is_flag=True,
    help="Apply every request, like a server that knows no such keys.",
)
@click.option(
    "--rows-max",
    type=click.IntRange(1),
    default=1_000,
    show_default=True,
    help="Rows of a batch; beyond, 413.",
)
@click.option(
    "--body-bytes-max",
    type=click.IntRange(1),
    default=2**20,
    show_default=True,
    help="Bytes of a body; beyond, 413.",
)
@click.option(
    "--seed",
    "seeds",
    metavar="USER=CREDITS",
    multiple=True,
    callback=lambda _context, _option, values: _balances(values),
    help="Credits for a wallet that was never used; may be given many times.",
)
def sandbox(  # noqa: PLR0913 - One argument an option.
    *,
    load_settings: SettingsLoader,
    host: str,
    port: int,
    port_file: Path | None,
    db: str,
    api_key: str | None,
    ignore_idempotency_keys: bool,
    rows_max: int,
    body_bytes_max: int,
    seeds: dict[str, int],
) -> None:
    """Run a local stand-in for the upstream API.

    It takes usage events as the upstream does, with idempotency keys, sums them exactly, shows them on a
    page, keeps wallets, and misbehaves when told to (POST /sandbox/faults;
    `python -c 'help("settle_mp.sandbox")'` lists its calls). It listens on this machine only, unless
    --api-key pins the key.
    """
    # It reads no settings, and takes the two options all the same because every command does.
    del load_settings
    from settle_mp.sandbox.pipeline import Options
    from settle_mp.sandbox.server import ListenError, SandboxServer, base_url, listen
    from settle_mp.sandbox.store import StoreError

    options = Options(
        api_key=api_key,
        ignores_idempotency_keys=ignore_idempotency_keys,
        rows_max=rows_max,
        body_bytes_max=body_bytes_max,
        seeds=seeds,
    )
    try:
        listener = listen(host, port, has_pinned_key=api_key is not None)
    except ListenError as error:
        raise click.ClickException(str(error)) from error

    def announce() -> None:
        if port_file is not None:
            _write_whole(port_file, f"{listener.getsockname()[1]}\n")
        _tell(base_url(listener), is_pinned=api_key is not None)

    with listener:
        try:
            server = SandboxServer(db, options, announce)
        except StoreError as error:
            raise click.ClickException(str(error)) from error
        server.run_on(listener)


def _balances(values: tuple[str, ...]) -> dict[str, int]:
    from settle_mp.sandbox.transfers import CREDITS_MAX

    seeds: dict[str, int] = {}
    for value in values:
        user_id, _, held = value.rpartition("=")
        is_number = held.isascii() and held.isdecimal() and len(held) <= len(str(CREDITS_MAX))
        if not (user_id and is_number and int(held) <= CREDITS_MAX):
            raise click.BadParameter(f"{value!r} is not USER=CREDITS, with credits from 0 to {CREDITS_MAX}")
        seeds[user_id] = int(held)
    return seeds


def _tell(url: str, *, is_pinned: bool) -> None:
    # A pinned key is the user's secret, and this output may go to a log.
    key = "'the key given with --api-key'" if is_pinned else ANY_KEY
    click.echo(f"# The sandbox answers on {url} (usage page: {url}/)")
    click.echo(f"export SETTLESETTLE_BASE_URL={url}")
    click.echo(f"export SETTLESETTLE_API_KEY={key}")


def _write_whole(path: Path, text: str) -> None:
    # Renamed into place, so that who waits for the file never reads half of it.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)
