"""Options that every command has, as decorators: a command is handed its settings and looks for none."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from settle_mp.config import Settings, load

_R = TypeVar("_R")

#: Seconds in a week: nobody waits for longer, and infinity is no time to wait.
_SECONDS_MAX: Final = 7 * 24 * 3600.0

#: Reads the settings as they are now; a later call sees what changed in the environment, the file or the key.
SettingsLoader = Callable[[], Settings]


class _Seconds(click.FloatRange):
    """A number of seconds that ends; not NaN, which is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check it.

        Raises:
            BadParameter: Naming what is allowed.
        """
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is not a number of seconds", param, ctx)
        return seconds


#: The type of options that take seconds.
SECONDS: Final = _Seconds(min=0, max=_SECONDS_MAX)


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
