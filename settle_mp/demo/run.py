"""The play: start everything, send requests, kill things on the way, hold the bill against the answers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Final

from settle_mp.demo import report
from settle_mp.demo.bill import Bill
from settle_mp.demo.children import DemoError, Watch, quote
from settle_mp.demo.gunicorn_conf import workers as workers_count
from settle_mp.demo.house import FLUSH_S, House
from settle_mp.demo.load import Load
from settle_mp.demo.traffic import PDF_EXPORT, request
from settle_mp.demo.verdict import judge

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.demo.screen import Screen
    from settle_mp.demo.traffic import Request
    from settle_mp.demo.verdict import Ending, Verdict

#: When the kills come, in parts of the requests answered.
KILLS_AT: Final = (0.25, 0.45, 0.75)
#: How long the collector stays dead, in seconds: long enough for events to pile up.
DEAD_S: Final = 1.0
#: How long nothing may happen before something is taken for broken, in seconds.
STALLED_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `settle-mp demo` was asked for."""

    requests_count: int
    is_sabotaged: bool
    is_kept: bool


def run(options: Options, screen: Screen) -> bool:
    """Play it once, and clean up however it ends.

    Returns:
        Whether every answered request was billed exactly once, and the books balance.

    Raises:
        DemoError: When it could not be played to its end.
        StoppedError: When a signal ended it.
    """
    screen.say("settle-mp demo: is what was tracked what is billed?\n", "bold")
    screen.say(report.prologue(options.requests_count, workers_count))
    with Watch() as watch:
        house = House(watch, options.requests_count)
        is_hurried = True
        try:
            holds = _Play(options, screen, watch, house).play()
            is_hurried = False
        finally:
            screen.end_load()
            house.close(is_hurried=is_hurried, is_kept=options.is_kept)
            if options.is_kept:
                screen.say(f"Kept: {house.folder} (logs, sandbox.db, state folder)")
    return holds


class _Play:
    """One run, act by act."""

    def __init__(self, options: Options, screen: Screen, watch: Watch, house: House) -> None:
        self._options = options
        self._screen = screen
        self._watch = watch
        self._house = house
        self._killed: set[int] = set()
        self._collector_due_s: float | None = None
        self._answered_at_kill = 0

    def play(self) -> bool:
        """Play all acts; gives whether the bill is right."""
        self._open()
        load = Load(self._house.port, self._options.requests_count)
        self._load = load
        self._send()
        untracked = self._sabotage()
        bill = Bill(self._house.sandbox_port)
        is_flushed, are_books_balanced = self._flush()
        self._house.end_senders()
        verdict = judge(chain(load.sent(), untracked), bill.rows())
        self._show(verdict, bill.http_requests_count())
        return self._conclude(verdict, is_right=is_flushed and are_books_balanced)

    def _open(self) -> None:
        house, screen = self._house, self._screen
        house.open()
        screen.note(f"settle-mp sandbox on port {house.sandbox_port}: the upstream that bills")
        screen.note(f"settle-mp collector, pid {house.collector.pid}")
        settings = f"preload_app, max_requests {house.worker_requests_max:,}"
        screen.note(f"gunicorn on port {house.port}: {workers_count} workers, {settings}")

    # The load, and what dies meanwhile.

    def _send(self) -> None:
        load, requests_count = self._load, self._options.requests_count
        actions: list[Callable[[], bool]] = [self._kill_worker, self._kill_collector, self._kill_worker]
        steps = deque(zip(KILLS_AT, actions, strict=True))
        self._screen.begin_load(requests_count)
        self._watch.on_look = self._look
        self._moved_s, self._moved_count = time.monotonic(), 0
        load.start()

        def is_over() -> bool:
            if steps and load.ended_count >= steps[0][0] * requests_count and steps[0][1]():
                steps.popleft()
            self._revive_collector()
            return load.is_done and (not steps or load.failure is not None) and self._collector_due_s is None

        try:
            self._watch.wait_until(is_over, "all requests have ended", float("inf"))
        finally:
            load.stop()
        self._watch.on_look = None
        self._screen.end_load()
        if load.failure is not None or load.ended_count != requests_count:
            reason = load.failure or f"{load.ended_count:,} of {requests_count:,} requests have ended"
            raise DemoError(f"The load stopped: {reason}.{quote(self._house.gunicorn)}")
        answered = f"{load.answered_count:,} requests answered by {len(load.workers)} workers"
        self._screen.note(f"{answered}, {load.cut_off_count} cut off")

    def _look(self) -> None:
        load, now_s = self._load, time.monotonic()
        self._screen.show_load(load.ended_count, self._options.requests_count)
        if load.ended_count != self._moved_count or load.is_done:
            self._moved_s, self._moved_count = now_s, load.ended_count
        elif now_s > self._moved_s + STALLED_S:
            raise DemoError(f"No request was answered for {STALLED_S:g} s.{quote(self._house.gunicorn)}")

    def _kill_worker(self) -> bool:
        gunicorn = self._house.gunicorn
        unharmed = [pid for pid in self._load.busy_workers if pid not in self._killed]
        victim = next((pid for pid in unharmed if gunicorn.has_member(pid)), None)
        if victim is None:
            return False
        os.kill(victim, signal.SIGKILL)
        self._killed.add(victim)
        self._screen.note(f"kill -9 {victim}: a worker, amid its requests", "red")
        return True

    def _kill_collector(self) -> bool:
        pid = self._house.kill_collector()
        self._collector_due_s = time.monotonic() + DEAD_S
        self._answered_at_kill = self._load.answered_count
        self._screen.note(f"kill -9 {pid}: the collector; events wait in mapped files", "red")
        return True

    def _revive_collector(self) -> None:
        if self._collector_due_s is None or time.monotonic() < self._collector_due_s:
            return
        self._house.start_collector()
        self._collector_due_s = None
        answered = self._load.answered_count - self._answered_at_kill
        self._screen.note(
            f"the collector is back (pid {self._house.collector.pid}), {answered:,} requests later",
            "green",
        )

    # The bill.

    def _sabotage(self) -> list[tuple[Request, Ending]]:
        if not self._options.is_sabotaged:
            return []
        # Of a type whose bill names each request: its neighbours can't stand in for it.
        after = self._options.requests_count
        number = next(number for number in count(after) if request(number).kind is PDF_EXPORT)
        untracked, ending = self._load.send_untracked(number)
        self._screen.note(f"sabotage: request {untracked.id} was answered and its track() skipped", "red")
        return [(untracked, ending)]

    def _flush(self) -> tuple[bool, bool]:
        """Ship what is left, and ask for the books; what the verdict says is found without either."""
        house, screen = self._house, self._screen
        code, said = house.command("flush", f"--timeout={FLUSH_S}")
        is_flushed = code == 0
        screen.note(f"settle-mp flush: {'all is confirmed' if is_flushed else said}")
        code, said = house.command("status", "--json")
        if code not in (0, 1):
            raise DemoError(f"settle-mp status ended with code {code}:\n{said}")
        status = json.loads(said[said.index("{") :])
        events, is_balanced = status["events"], bool(status["balanced"])
        word = "balance" if is_balanced else "DO NOT BALANCE"
        counts = f"{events['tracked']:,} tracked, {events['confirmed']:,} confirmed"
        screen.note(f"settle-mp status: the books {word} ({counts})")
        return is_flushed, is_balanced

    def _show(self, verdict: Verdict, http_requests_count: int) -> None:
        self._screen.table(report.bill_table(verdict, http_requests_count))
        self._screen.table(report.folding_table(verdict))
        self._screen.say()

    def _conclude(self, verdict: Verdict, *, is_right: bool) -> bool:
        screen = self._screen
        for fault in report.fault_lines(verdict):
            screen.say(f"- {fault}", "red")
        if not is_right:
            screen.say("- settle-mp flush and status do not say that all is well, see above", "red")
        holds = verdict.holds and is_right
        took = f" ({screen.elapsed_s:.0f} s)"
        screen.say(report.result_line(verdict) + took, "bold green" if holds else "bold red")
        if self._options.is_sabotaged:
            word = "and nobody noticed." if verdict.holds else "and the check has found it."
            screen.say(f"One event was dropped on purpose (--sabotage), {word}")
        return holds and not self._options.is_sabotaged
