"""`manage.py settle_mp ...`: the program settle-mp with this project's settings.

python manage.py settle_mp collector
python manage.py settle_mp status
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from settle_mp import config
from settle_mp.integrations.django import read_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    BaseCommand = object  # Django has no types, and its users' checkers shall not guess
else:
    from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Becomes the program; all arguments are the program's, `--help` too."""

    help = "Run settle-mp (collector, status, flush, ...) with the settings in SETTLE_MP."

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Replace this process, which has served to read the settings."""
        given = read_settings()
        variables = config.as_variables(config.load(**given))
        if given.get("config_path"):
            variables[config.CONFIG_VARIABLE] = os.fspath(given["config_path"])
        command = [sys.executable, "-m", "settle_mp.cli", *argv[2:]]
        os.execve(command[0], command, {**os.environ, **variables})  # noqa: S606  our own program
