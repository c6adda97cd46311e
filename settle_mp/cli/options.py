"""Options that every command has, as decorators: a command is handed its settings and looks for none."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

from settle_mp.config import Settings, load

_R = TypeVar("_R")

#: Reads the settings as they are now; a later call sees what changed in the environment, the file or the key.
SettingsLoader = Callable[[], Settings]


def with_settings(command: Callable[..., _R]) -> Callable[..., _R]:
    """Give a command `--state-dir` and `--config`, and call it with `settings=` (Settings)."""

    @functools.wraps(command)
    def run(*, load_settings: SettingsLoader, **values: Any) -> _R:
        return command(settings=load_settings(), **values)

    return with_settings_loader(run)


def with_settings_loader(command: Callable[..., _R]) -> Callable[..., _R]:
    """Give a command the same options, and call it with `load_settings=`, for one that reads them again."""

    @click.option(
        "--state-dir",
        type=click.Path(file_okay=False),
        help="The state folder, shared by workers and collector.",
    )
    @click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False),
        help="A settings file; without it ./settle-mp.toml, then settle-mp.toml in the state folder.",
    )
    @functools.wraps(command)
    def run(*, state_dir: str | None, config_path: str | None, **values: Any) -> _R:
        load_settings = functools.partial(load, config_path=config_path, state_dir=state_dir)
        return command(load_settings=load_settings, **values)

    return run
