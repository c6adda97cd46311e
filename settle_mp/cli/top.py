"""`settle-mp top`: the books, live."""

from __future__ import annotations

import collections
import contextlib
import select
import signal
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Any, Final

import click

from settle_mp.cli import exit_codes
from settle_mp.cli.options import with_settings
from settle_mp.collector.status import read_status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from settle_mp.cli.top_view import Look
    from settle_mp.config import Settings

#: The least pause between two looks, in seconds: each reads the files.
INTERVAL_S_MIN: Final = 0.1
#: Rates are those of so many looks.
LOOKS_MAX: Final = 10


@click.command(
    epilog="\b\nExamples:\n  settle-mp top\n  settle-mp top --interval 5 --state-dir /var/lib/settle-mp\n\n"
    "\b\nFor scripts there is `settle-mp status --json`. Exit code 0 when you end it."
)
@with_settings
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(INTERVAL_S_MIN, 3600.0),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
def top(settings: Settings, *, interval_s: float) -> int:
    """Watch what is tracked and what becomes of it, until q or Ctrl-C.

    Reads the files as `settle-mp status` does, so it works with no collector, too.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not (console.is_terminal and sys.stdin.isatty()):
        raise click.UsageError("top needs a terminal; for scripts there is `settle-mp status --json`")
    view = Live(console=console, screen=True, auto_refresh=False)
    # In this order, so that screen and keys are as they were before an end is taken for one.
    with contextlib.suppress(KeyboardInterrupt), _ended_by_sigterm(), _single_keys(), view:
        _watch(settings, view, interval_s)
    return exit_codes.OK


def _watch(settings: Settings, live: Any, interval_s: float) -> None:
    from settle_mp.cli.top_view import Look, draw

    looks: collections.deque[Look] = collections.deque(maxlen=LOOKS_MAX)
    while True:
        looks.append(Look(at_s=time.monotonic(), report=read_status(settings)))
        live.update(draw(looks[-1], looks[0], title=f"settle-mp top   {settings.state_dir}"), refresh=True)
        if _pressed(interval_s) in {"q", "Q"}:
            return


def _pressed(timeout_s: float) -> str:
    """The key that is pressed within a time; nothing when none is."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return sys.stdin.read(1) if ready else ""


@contextlib.contextmanager
def _single_keys() -> Iterator[None]:
    """Hear keys as they are pressed, without Enter."""
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the view as Ctrl-C does."""

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
