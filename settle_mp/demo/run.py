"""The play: start everything, send requests, kill things on the way, hold the bill against the answers."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import chain, count
from typing import TYPE_CHECKING, Final

from settle_mp.demo import report
from settle_mp.demo.bill import Bill
from settle_mp.demo.children import DemoError, Watch, quote
from settle_mp.demo.gunicorn_conf import workers as workers_count
from settle_mp.demo.house import FLUSH_S, House
from settle_mp.demo.kills import Kills
from settle_mp.demo.load import Load
from settle_mp.demo.traffic import PDF_EXPORT, request
from settle_mp.demo.verdict import judge

if TYPE_CHECKING:
    from settle_mp.demo.screen import Screen
    from settle_mp.demo.traffic import Request
    from settle_mp.demo.verdict import Ending, Verdict

#: How long nothing may happen before something is taken for broken, in seconds.
STALLED_S: Final = 60.0


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
        self._moved_s = 0.0
        self._moved_state: object = None

    def play(self) -> bool:
        """Play all acts; gives whether the bill is right."""
        self._open()
        load = Load(self._house.port, self._options.requests_count)
        self._load = load
        self._kills = Kills(self._house, load, self._screen, self._options.requests_count)
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

    # The load.

    def _send(self) -> None:
        load, requests_count = self._load, self._options.requests_count
        self._screen.begin_load(requests_count)
        self._watch.on_look = self._look
        load.start()
        try:
            self._watch.wait_until(self._is_over, "all requests have ended", float("inf"))
        finally:
            load.stop()
        self._watch.on_look = None
        self._screen.end_load()
        if load.failure is not None or load.ended_count != requests_count:
            reason = load.failure or f"{load.ended_count:,} of {requests_count:,} requests have ended"
            raise DemoError(f"The load stopped: {reason}.{quote(self._house.gunicorn)}")
        answered = f"{load.answered_count:,} requests answered by {len(load.workers)} workers"
        self._screen.note(f"{answered}, {load.cut_off_count} cut off")

    def _is_over(self) -> bool:
        """Kill what is due; gives whether all requests have ended, or the load has failed."""
        if self._load.is_done and self._load.failure is not None:
            return True
        are_done = self._kills.turn()
        return are_done and self._load.is_done

    def _look(self) -> None:
        """Show how far it is, and see to it that it gets on."""
        load, now_s = self._load, time.monotonic()
        self._screen.show_load(load.ended_count, self._options.requests_count)
        state = (load.ended_count, self._kills.state)
        if state != self._moved_state:
            self._moved_s, self._moved_state = now_s, state
        elif now_s > self._moved_s + STALLED_S:
            logs = quote(self._house.gunicorn) + quote(self._house.collector)
            raise DemoError(f"Nothing has happened for {STALLED_S:g} s.{logs}")

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
        elif holds:
            screen.say("Could it say anything else? settle-mp demo --sabotage drops one event.")
        return holds and not self._options.is_sabotaged
