"""What the person who runs the demo sees: a live line in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table as RichTable
from rich.text import Text

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import JustifyMethod

    from settle_mp.demo.report import Table

#: Without a terminal, a line each time that another tenth is done.
PLAIN_STEPS: Final = 10


class Screen:
    """Prints; use it as a context manager, so that a terminal is left as it was.

    Args:
        console: Where to; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._began_s = time.monotonic()
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>7,.0f}/s"),
            console=self._console,
            transient=True,
            refresh_per_second=8,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._told_steps = 0
        self._load_began_s = 0.0

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end_load()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began_s

    def say(self, text: str = "", style: str | None = None) -> None:
        """Print a paragraph."""
        self._console.print(Text(text), style=style)

    def note(self, text: str, style: str | None = None) -> None:
        """Print a line with the time."""
        self._console.print(Text(f"{self.elapsed_s:6.1f} s  {text}"), style=style)

    def begin_load(self, requests_count: int) -> None:
        """Begin to show how far the requests are."""
        self._load_began_s = time.monotonic()
        self._task = self._progress.add_task("requests", total=requests_count, rate=0.0)
        if self._console.is_interactive:
            self._progress.start()

    def show_load(self, ended_count: int, requests_count: int) -> None:
        """Show how far they are."""
        rate = ended_count / max(0.001, time.monotonic() - self._load_began_s)
        if self._console.is_interactive:
            self._progress.update(self._task, completed=ended_count, rate=rate)
            return
        step = ended_count * PLAIN_STEPS // requests_count
        if step > self._told_steps:
            self._told_steps = step
            self.note(f"{ended_count:,} of {requests_count:,} requests, {rate:,.0f}/s")

    def end_load(self) -> None:
        """Take the live line away."""
        if self._console.is_interactive:
            self._progress.stop()

    def table(self, shown: Table) -> None:
        """Print a table and its note."""
        table = RichTable(
            title=shown.title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            # All of the bill fits into 80 columns so.
            padding=(0, 1, 0, 0),
        )
        for index, head in enumerate(shown.heads):
            justify: JustifyMethod = "left" if index < shown.text_columns else "right"
            # In a terminal too narrow a line that goes on below can be read, and a figure cut short can't.
            width = max(len(cell) for cell in (*head.splitlines(), *(row[index] for row in shown.rows)))
            table.add_column(head, justify=justify, vertical="bottom", no_wrap=True, min_width=width)
        for index, row in enumerate(shown.rows):
            is_total = shown.has_total and index == len(shown.rows) - 1
            table.add_row(*row, style="bold" if is_total else None)
        self._console.print()
        self._console.print(table, crop=False)
        self._console.print(Text(shown.note), style="dim")
