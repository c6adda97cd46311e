"""`manage.py work COUNT [--fail | --wait]`: what a nightly run of a user's does."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandError

from tests.apps.site import track
from tests.apps.tracking import start_thread, write

if TYPE_CHECKING:
    from argparse import ArgumentParser


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Track so many events, and end."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take a count and how to end."""
        parser.add_argument("count", type=int)
        parser.add_argument("--fail", action="store_true")

    def handle(self, *_: Any, count: int, fail: bool, **__: Any) -> None:
        """Track, say so, and wait for a word to end."""
        signal.signal(signal.SIGUSR1, lambda *_: None)
        start_thread(track)
        for _number in range(count):
            track("request")
        write("~ has worked")
        signal.pause()
        if fail:
            raise CommandError("it failed")
