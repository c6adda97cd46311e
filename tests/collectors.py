"""Collectors and their workers in tests: processes that do as they are told, and parts turned by hand.

    def test_it(host: Host) -> None:
        collector = host.collector()
        with worker(host) as ada, worker(host, "--silent") as bob:      # real processes
            ada.track(3)                             # returns once track() has returned so often
            flushing = ada.ask("flush", 10.0)        # a call that waits for its answer somewhere else
            ...
            assert flushing.wait().is_ok             # a Flushed
            bob.kill()                               # SIGKILL
        assert command(host, "flush").code == 0

    with bench(state_dir, upstream) as parts:        # a collector's parts in this process, no sockets
        make_journal(state_dir, "ada", "bob").close()       # a dead worker's
        parts.take_in()
        parts.ship()

Whatever waits has a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

from settle_mp import config
from settle_mp.collector.parts import Parts
from settle_mp.collector.startup import open_collector
from settle_mp.core.event import pack_event
from settle_mp.core.record import Identity, Slot, encode_mark, encode_slot
from settle_mp.worker.journal import CLOSED, Journal
from settle_mp.worker.room import Limits
from tests.hosts import CLI, DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.core import wire
    from tests.hosts import Host
    from tests.upstreams import Upstream

MEBIBYTE: Final = 1024 * 1024
#: How often a flush is tried again whose answer came too late, on a machine that has other things to do.
LATE_ANSWERS_MAX: Final = 5


# --- Workers ---


@dataclass(frozen=True, slots=True)
class Flushed:
    """What a worker's flush() reported."""

    is_ok: bool
    confirmed_count: int
    unconfirmed_count: int
    reason: str | None


class Asked:
    """A command that a worker has not answered yet."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._answer: Any = None
        self._is_there = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        line = self._worker.read()
        self._answer = json.loads(line) if line else None
        self._is_there.set()

    @property
    def is_waiting(self) -> bool:
        """Whether no answer has come."""
        return not self._is_there.is_set()

    def wait(self) -> Any:
        """The answer; a report for a flush."""
        assert self._is_there.wait(DEADLINE_S), "the worker has not answered"
        return Flushed(*self._answer) if isinstance(self._answer, list) else self._answer


class Worker:
    """A process that tracks; see `tests.tracker`."""

    def __init__(self, host: Host, *options: str, **environ: str) -> None:
        self._process = subprocess.Popen(
            host.wrap([sys.executable, "-m", "tests.tracker", *options]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**host.environ, **environ},
            cwd=host.folder,
            start_new_session=True,
        )

    def read(self) -> bytes:
        """One line that it says."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ask(self, name: str, *arguments: Any) -> Asked:
        """Tell it to do something; its answer may take its time."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([name, *arguments]).encode() + b"\n")
        self._process.stdin.flush()
        return Asked(self)

    def track(self, count: int, *arguments: Any) -> int:
        """Have it track; returns how many it has tracked in all."""
        tracked: int = self.ask("track", count, *arguments).wait()
        return tracked

    def spread(self, count: int, prefix: str) -> int:
        """Have it track one event for each of so many users."""
        tracked: int = self.ask("spread", count, prefix).wait()
        return tracked

    def flush(self, timeout_s: float = DEADLINE_S) -> Flushed:
        """Have it flush."""
        flushed: Flushed = self.ask("flush", timeout_s).wait()
        return flushed

    def flush_in_vain(self, timeout_s: float) -> Flushed:
        """Have it flush until the collector has said why that can't be, and not too late to be heard."""
        flushed = self.flush(timeout_s)
        for _ in range(LATE_ANSWERS_MAX):
            if flushed.reason != "the collector has not answered in time":
                break
            flushed = self.flush(timeout_s)
        return flushed

    @property
    def pending_count(self) -> int:
        """How many of its events are not committed."""
        pending: int = self.ask("pending").wait()
        return pending

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def end(self) -> None:
        """Let it end as a program does that has nothing more to do."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            pytest.fail("a worker did not end")
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()


@contextlib.contextmanager
def worker(host: Host, *options: str, **environ: str) -> Iterator[Worker]:
    """A worker on a host, ended afterwards."""
    started = Worker(host, *options, **environ)
    try:
        yield started
    finally:
        started.end()


# --- Commands ---


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended, and what it said."""

    code: int
    said: str

    @property
    def lines(self) -> list[str]:
        """What it said, line by line."""
        return self.said.splitlines()


def command(host: Host, *arguments: str, **environ: str) -> Ended:
    """Run `settle-mp` with these arguments, and wait for its end."""
    program = host.run([*CLI, *arguments], **environ)
    try:
        code = program.process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"settle-mp {arguments} did not end:\n{program.said}")
    return Ended(code, program.said)


# --- Journals ---


def make_journal(state_dir: Path, *users: str, key_mode: str = "", at_s: float | None = None) -> Journal:
    """A journal as a worker makes it, with one event for each user; its lock is held until `close`.

    Args:
        state_dir: Where.
        users: Whose events.
        key_mode: Of the worker's key.
        at_s: The time to be noted before the events.
    """
    journals = state_dir / "journals"
    journals.mkdir(parents=True, exist_ok=True)
    identity = Identity(
        producer=b"", key_mode=key_mode, name="a test", host="here", born_s=time.time(), facts={}
    )
    limits = Limits(bytes_max=64 * MEBIBYTE, host_bytes_max=4096 * MEBIBYTE, mode=0o600)
    slot = [CLOSED]
    journal = Journal.build(slot, journals, identity=identity, limits=limits)
    slot[0] = journal.appender
    if at_s is not None:
        journal.append(encode_mark(at_s))
    track(journal, *users)
    return journal


def track(journal: Journal, *users: str, quantity: float = 1) -> None:
    """Append one event for each user."""
    for user in users:
        journal.append(pack_event(user, "AI_QUERY", quantity, None))


def folder_of(state_dir: Path, journal: Journal) -> Path:
    """A journal's folder."""
    return state_dir / "journals" / journal.producer.hex()


def segment_of(state_dir: Path, journal: Journal) -> Path:
    """The file of a journal's first segment."""
    return min(folder_of(state_dir, journal).glob("*.seg"))


def bind(state_dir: Path, journal: Journal, ledger: bytes, position: int, events_count: int = 0) -> None:
    """Write into a journal's header that a ledger has committed it up to a position."""
    slot = Slot(sequence=100, ledger=ledger, position=position, events_count=events_count)
    at, data = encode_slot("collector", slot)
    with (folder_of(state_dir, journal) / "header").open("r+b") as file:
        file.seek(at)
        file.write(data)


# --- Parts ---


class Bench:
    """A collector's parts, turned by hand: everything but the sockets is real.

    Attributes:
        parts: The parts.
        answers: What was sent to whom, oldest first.
        now_s: The monotonic time of the adoption's scans; it is the test's to move.
    """

    def __init__(self, state_dir: Path, upstream: Upstream | None = None, **settings: Any) -> None:
        if upstream is not None:
            settings = {"api_key": upstream.api_key, "base_url": upstream.base_url, **settings}
        self.settings = config.load(state_dir=state_dir, **settings)
        self.opened = open_collector(self.settings)
        self.parts = Parts(self.opened)
        self.now_s = 0.0
        self.answers: list[tuple[bytes, wire.Message]] = []

    def take_in(self) -> list[bytes]:
        """Look through all journals once, and commit. Returns whose events were."""
        parts = self.parts
        touched: list[bytes] = []
        scan = parts.adoption.scan_anew()
        while parts.adoption.done_count < scan:
            parts.adoption.turn(self.now_s)
            if parts.reception.is_gathering:
                touched += parts.reception.commit()
            parts.adoption.settle()
        return touched

    def send_out(self, *, is_urgent: bool = True) -> None:
        """What the loop does for the upstream and for flushes in one turn."""
        parts, now_s = self.parts, time.monotonic()
        parts.shipping.turn(is_urgent=is_urgent)
        self.answers += parts.flushing.turn(now_s)
        parts.flushing.sent()
        self.answers += parts.host_flushing.turn(now_s, scans_done=parts.adoption.done_count)

    def ship(self) -> None:
        """Send until nothing is left to be sent."""
        deadline_s = time.monotonic() + DEADLINE_S
        while True:
            self.send_out()
            if self.parts.is_drained():
                return
            assert time.monotonic() < deadline_s, "not everything was confirmed"
            time.sleep(0.002)

    def faults(self) -> list[str]:
        """What does not balance."""
        from settle_mp.collector.status import read_status

        return read_status(self.settings).faults

    def close(self) -> None:
        """Let go of everything, as a death would."""
        self.parts.close()
        self.opened.close()


@contextlib.contextmanager
def bench(state_dir: Path, upstream: Upstream | None = None, **settings: Any) -> Iterator[Bench]:
    """A bench on a state folder, closed afterwards."""
    made = Bench(state_dir, upstream, **settings)
    try:
        yield made
    finally:
        made.close()


def is_gone(folder: Path) -> bool:
    """Whether a folder is no more."""
    return not os.path.lexists(folder)
