"""`settle-mp config`: every setting with its value and source, secrets hidden."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import click

from settle_mp.cli.options import with_settings

if TYPE_CHECKING:
    from settle_mp.config import Settings
    from settle_mp.core.rules import MetadataRule


@click.command(
    epilog="\b\nExamples:\n  settle-mp config\n  settle-mp config --json\n"
    "  SETTLE_MP_FLUSH_INTERVAL_S=5 settle-mp config"
)
@with_settings
@click.option("--json", "is_json", is_flag=True, help="As one JSON object.")
def config(settings: Settings, *, is_json: bool) -> None:
    """Show every setting with its value and where the value came from. Secrets stay hidden."""
    rows = _rows(settings)
    if is_json:
        shown = {name: {"value": value, "source": source} for name, value, source in rows}
        click.echo(json.dumps(shown, indent=2))
        return
    name_width = max(len(name) for name, _, _ in rows)
    value_width = max(len(_text(value)) for _, value, _ in rows)
    for name, value, source in rows:
        click.echo(f"{name:<{name_width}}  {_text(value):<{value_width}}  {source}")


def _rows(settings: Settings) -> list[tuple[str, Any, str]]:
    names = [field.name for field in dataclasses.fields(settings) if field.name not in {"rules", "sources"}]
    rows = [(name, _plain(getattr(settings, name)), settings.source(name)) for name in names]
    rules = [
        (f"events.{kind}", _lists(rule), settings.source("rules")) for kind, rule in settings.rules.items()
    ]
    return rows + rules


def _plain(value: Any) -> Any:
    """Return what JSON can carry; a Secret shows no more than its mode."""
    if isinstance(value, frozenset):
        return sorted(value)
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _lists(rule: MetadataRule) -> dict[str, list[str]]:
    return {name: sorted(getattr(rule, name)) for name in ("keep", "sum", "drop")}


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value)
