"""`settle-mp top`: what it shows, what ends it, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from settle_mp.cli.top_view import NAMED_MAX, Look, draw
from settle_mp.collector.status import Report
from tests.collectors import command, make_journal, track
from tests.hosts import CLI, host
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host

__all__ = ["host", "upstream"]

DEADLINE_S = 60.0
_BUCKETS = ("tracked", "confirmed", "pending", "in_doubt", "dead_lettered", "dropped")


def look(at_s: float, *, faults: list[str] | None = None, workers: int = 1, **events: int) -> Look:
    """A look at books with these events, each of quantity one."""
    shown: dict[str, Any] = {
        "events": {name: events.get(name, 0) for name in _BUCKETS},
        "quantity": {name: str(events.get(name, 0)) for name in _BUCKETS},
        "collector": {"state": "up"},
        "upstream": {"state": "down", "last_error": "refused", "requests_count": 7, "retries_count": 2},
        "producers_count": workers,
        "workers": [f"gunicorn:app worker {number}" for number in range(workers)],
        "durable": True,
        "oldest_pending_age_s": 1.5,
    }
    return Look(at_s=at_s, report=Report(shown, faults or [], []))


def drawn(now: Look, earlier: Look) -> list[str]:
    """The lines of a view."""
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(draw(now, earlier, title="books"))
    return console.export_text().splitlines()


def test_rates_are_those_between_two_looks() -> None:
    """500 events more in ten seconds are 50 a second, and 20 less that wait are two less a second."""
    lines = drawn(look(110.0, tracked=1500, pending=30), look(100.0, tracked=1000, pending=50))
    words = {line.split()[0]: line.split()[1:] for line in lines if line.split()}
    assert words["tracked"] == ["1,500", "+50.0", "1500"]
    assert words["pending"] == ["30", "-2.0", "30"]
    assert words["confirmed"] == ["0", "0", "0"]


def test_one_look_has_no_rates() -> None:
    """Nothing is made up before there are two."""
    first = look(1.0, tracked=3)
    assert ["tracked", "3", "3"] in [line.split() for line in drawn(first, first)]


def test_what_is_wrong_is_named() -> None:
    """An upstream's error, and books that do not balance with each fault."""
    lines = drawn(look(1.0, faults=["batches: one row is missing"]), look(1.0))
    assert "refused" in lines[2]
    assert "THE BOOKS DO NOT BALANCE." in lines
    assert any("one row is missing" in line for line in lines)


def test_many_workers_are_not_all_named() -> None:
    """What there is no room for is counted."""
    lines = drawn(look(1.0, workers=NAMED_MAX + 3), look(1.0))
    assert sum("worker " in line and "gunicorn" in line for line in lines) == NAMED_MAX
    assert any("and 3 more" in line for line in lines)


class Terminal:
    """A terminal that `settle-mp top` runs in."""

    def __init__(self, host: Host) -> None:
        self._outer, self._inner = pty.openpty()
        self.before = self._attributes()
        environ = {**host.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
        self.process = subprocess.Popen(
            [*CLI, "top", "--interval=0.1"],
            stdin=self._inner,
            stdout=self._inner,
            stderr=self._inner,
            env=environ,
            cwd=host.folder,
            start_new_session=True,
        )
        self.said = ""

    def _attributes(self) -> list[Any]:
        return termios.tcgetattr(self._inner)

    def wait_said(self, text: str) -> None:
        """Read until it has shown something."""
        deadline_s = time.monotonic() + DEADLINE_S
        while text not in self.said:
            assert time.monotonic() < deadline_s, self.said[-2000:]
            if select.select([self._outer], [], [], 0.5)[0]:
                self.said += os.read(self._outer, 65_536).decode(errors="replace")

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._outer, key)

    def end(self) -> int:
        """Wait for its end, and hold the terminal to what it was."""
        self.wait_said("\x1b[?1049l")
        code = self.process.wait(DEADLINE_S)
        assert self._attributes() == self.before, "keys are read as before"
        return code

    def close(self) -> None:
        """End what a failed test has left."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._inner)
        os.close(self._outer)


@pytest.fixture
def terminal(host: Host) -> Iterator[Terminal]:
    """Run `settle-mp top` on a state folder with a worker's journal."""
    journal = make_journal(host.state_dir, "ada", "bob")
    made = Terminal(host)
    try:
        made.wait_said("pending")
        track(journal, "cy")
        yield made
    finally:
        made.close()
        journal.close()


@pytest.mark.parametrize("way", [b"q", signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_asked(terminal: Terminal, way: bytes | signal.Signals) -> None:
    """Q, Ctrl-C, SIGTERM: code 0, the screen and the keys as they were, no traceback."""
    if isinstance(way, bytes):
        terminal.press(way)
    else:
        terminal.process.send_signal(way)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.said


def test_it_follows_what_happens(terminal: Terminal) -> None:
    """An event that is tracked while it runs is shown by the next look, with its rate."""
    terminal.wait_said("+")
    terminal.press(b"q")
    assert terminal.end() == 0


def test_without_a_terminal_it_says_what_there_is(host: Host) -> None:
    """A usage error that names the command for scripts."""
    ended = command(host, "top")
    assert ended.code == 2
    assert "settle-mp status --json" in ended.said
