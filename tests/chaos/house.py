"""The house: a host under load, at which faults are played, and which is settled and judged at the end.

A sandbox, one collector, four workers of four threads each, every one a process of its own. Whatever dies is
to be started again by who killed it; whoever dies by itself is a complaint.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from settle_mp import config, control
from settle_mp.core import wire
from settle_mp.sandbox.pipeline import Options
from tests.chaos import clock, errors, oracle, points
from tests.chaos.clock import Clock
from tests.chaos.keepers import DEADLINE_S, Child, Keeper, KeptSandbox
from tests.chaos.mounts import small_disk
from tests.chaos.oracle import Life, Verdict
from tests.chaos.tally import Tally
from tests.chaos.traffic import SETTINGS, THREADS, Stream
from tests.upstreams import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


WORKERS: Final = 4
#: Seconds that a traced process has to come to its point.
POINT_S: Final = 10.0
#: Seconds that a collector has to say how it does before it is asked anew.
ANSWER_S: Final = 2.0
#: Exit code of a collector that found another one.
ALREADY_RUNNING: Final = 75


class House:
    """One host. Made by `open_house`.

    Attributes:
        random: The dice of the round that is played.
        upstream: The sandbox; see `tests.upstreams`.
        state_dir: settle-mp's folder.
        counts: What was done, for the table: `count("SIGKILL")`, points that were hit by their names.
        complaints: What is wrong so far, a sentence each.
        collector: The running collector; None while none should run, and always with the control client.
    """

    def __init__(
        self,
        folder: Path,
        keeper: Keeper,
        upstream: Upstream,
        *,
        seed: str,
        client: str,
        settings: Mapping[str, str],
    ) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self.upstream = upstream
        self.random = random.Random(seed)  # noqa: S311  dice, not secrets
        self.counts: Counter[str] = Counter()
        self.complaints: list[str] = []
        self.collector: Child | None = None
        self.is_control = client == "control"
        self._client = client
        self._requests: set[tuple[str, str]] = set()
        self._logged = self._said_before = 0
        self._lives: list[tuple[int, int, Child]] = []
        self._workers: list[Child | None] = [None] * WORKERS
        (folder / "settle-mp.toml").write_text(SETTINGS)
        self.environ = {
            **keeper.environ,
            **upstream.environ,
            "SETTLE_MP_STATE_DIR": str(self.state_dir),
            "SETTLE_MP_CONFIG": str(folder / "settle-mp.toml"),
            "SETTLE_MP_FLUSH_INTERVAL_S": "0.15",
            **settings,
        }
        self.clock = Clock(folder / "clock")
        if clock.VARIABLE in settings:
            self.environ[clock.VARIABLE] = str(folder / "clock")
        self._tally = Tally(folder / "tally")
        self._keeper = keeper

    # --- Who lives here ---

    def start_collector(self, *, waits: bool = False, is_contained: bool = False) -> Child | None:
        """Start a collector, unless the client is the control, which has none.

        Args:
            waits: Whether it does nothing until it is traced.
            is_contained: Whether it is process 1 of a pid namespace of its own.
        """
        if self.is_control:
            return None
        self._said_before = len(self.log("collector"))
        self.collector = self._start_collector(waits=waits, is_contained=is_contained)
        return self.collector

    @property
    def collectors_words(self) -> str:
        """What all collectors have said since the last one was started."""
        return self.log("collector")[self._said_before :].decode(errors="replace")

    def wait_up(self) -> None:
        """Wait until the collector listens; from then on it ends in good order when it is told to."""
        self.wait_until(lambda: self._is_up, "the collector is up")

    @property
    def _is_up(self) -> bool:
        return "collector_started" in self.collectors_words

    def _wait_committed(self) -> None:
        """Wait until it is up and has committed something, which its end writes into the ledger's file."""
        self.wait_up()
        log = self.state_dir / "ledger/ledger.db-wal"
        self.wait_until(lambda: log.stat().st_size > 0, "the collector commits")

    def wait_decided(self) -> None:
        """Wait until the collector listens, or has ended."""
        child = self.collector
        if child is not None:
            self.wait_until(lambda: self._is_up or not child.is_running, "the collector is up, or has ended")

    def start_two_collectors(self) -> tuple[Child, Child]:
        """Start two at once; the caller says which one is `collector` from then on."""
        return self._start_collector(), self._start_collector()

    def _start_collector(self, *, waits: bool = False, is_contained: bool = False) -> Child:
        kind = "contained" if is_contained else "cli"
        return self._spawn("collector", kind, ["collector"], waits=waits)

    def start_worker(self, slot: int, *, waits: bool = False) -> Child:
        """Start the next life in a slot."""
        life = len(self._lives)
        self._tally.start(slot)
        arguments = {
            "tally": str(self.folder / "tally"),
            "slot": slot,
            "life": life,
            "seed": self.random.randrange(2**32),
            "client": self._client,
        }
        worker = self._spawn("worker", "worker", arguments, waits=waits)
        self._lives.append((life, slot, worker))
        self._workers[slot] = worker
        return worker

    def _spawn(self, role: str, kind: str, arguments: Any, *, waits: bool) -> Child:
        return self._keeper.spawn(
            kind,
            arguments,
            name=role,
            environ=self.environ,
            output=self.folder / f"{role}.log",
            waits=waits,
        )

    def fork_lives(self, how: str, count: int, *, is_killed: bool = False) -> None:
        """Run a process that forks so many lives, each with a stream of its own, and wait for its end.

        Args:
            how: In which way of `forks`.
            count: How many, the parent's own included.
            is_killed: Whether the children are killed in the middle of what they do.
        """
        life, slot = len(self._lives), self.any_slot()
        arguments = {
            "how": how,
            "tally": str(self.folder / "tally"),
            "slot": slot,
            "life": life,
            "lives": count,
        }
        forker = self._spawn("forker", "forker", arguments, waits=False)
        ended = Child(0, "forked", signal.SIGKILL if is_killed else 0)
        self._lives += [(life, slot, forker), *((life + each, slot, ended) for each in range(1, count))]
        self.bury(forker)
        if forker.code:
            self.complaints.append(f"a forker ended with {forker.code}: {self.said('forker')}")
        self.count(how, count)

    def worker(self, slot: int) -> Child:
        """Who works in a slot."""
        worker = self._workers[slot]
        assert worker is not None
        return worker

    def any_slot(self) -> int:
        """Choose a slot."""
        return self.random.randrange(WORKERS)

    def start(self) -> None:
        """Start everybody who does not run."""
        if self.collector is None or not self.collector.is_running:
            self.start_collector()
        for slot in range(WORKERS):
            if self._workers[slot] is None or not self.worker(slot).is_running:
                self.start_worker(slot)

    # --- What is done to them ---

    def count(self, what: str, by: int = 1) -> None:
        """Count something for the table."""
        self.counts[what] += by

    def wait_s(self, least: float, most: float) -> None:
        """Let the load go on for a while."""
        time.sleep(self.random.uniform(least, most))

    def wait_dropped(self) -> None:
        """Wait until some event more is dropped than were before."""
        self._wait_in_storm(lambda before, now: _dropped(now) > _dropped(before), "an event is dropped")

    def wait_trouble(self, *, is_stormy: bool = False) -> None:
        """Wait until the collector takes nothing in, and says so; where that takes a lot, in a storm."""
        with self._storm() if is_stormy else contextlib.nullcontext():
            if not self.is_control:
                self.wait_until(self._is_in_trouble, "the collector takes nothing in")

    def _is_in_trouble(self) -> bool:
        """Whether the collector says so. `status` would count all journals first, and a storm fills them."""
        settings = config.load(state_dir=self.state_dir)
        answer = control.ask(settings, lambda _: wire.Ping(), wire.Pong, timeout_s=ANSWER_S)
        return answer is not None and bool(json.loads(answer.report)["trouble"])

    def wait_full(self) -> None:
        """Wait until either has happened: a worker finds no room, or the collector."""
        self._wait_in_storm(
            lambda before, now: bool(now["waiting"]) or _dropped(now) > _dropped(before),
            "a worker or the collector finds no room",
        )

    def wait_taking_in(self) -> None:
        """Wait until the collector takes in again: after an error it rests for a while."""
        if not self.is_control:
            self.wait_until(lambda: not self.status()["waiting"], "the collector takes in again")

    def _wait_in_storm(self, is_so: Callable[[dict[str, Any], dict[str, Any]], bool], what: str) -> None:
        """Wait until a claim about `status` before and now holds."""
        if not self.is_control:
            before = self.status()
            with self._storm():
                self.wait_until(lambda: is_so(before, self.status()), what)

    @contextlib.contextmanager
    def _storm(self) -> Iterator[None]:
        """Have all workers track a lot for a while."""
        for slot in range(WORKERS):
            self._tally.storm(slot)
        try:
            yield
        finally:
            for slot in range(WORKERS):
                self._tally.calm(slot)

    def wait_tracking(self) -> None:
        """Wait until each worker has tracked, and so has its journal: one that begins in trouble has none."""
        returned = self._tally.returned
        lives = [(life, slot) for life, slot, worker in self._lives if worker is self._workers[slot]]
        numbers = [[Stream(life, thread, slot).number for thread in range(THREADS)] for life, slot in lives]
        self.wait_until(
            lambda: all(any(returned[number] for number in each) for each in numbers),
            "each worker has tracked",
        )

    def retire(self, slot: int) -> None:
        """Have a worker end in good order, and start nobody in its slot."""
        self._tally.stop(slot)
        self.worker(slot).is_doomed = True
        self.bury(self.worker(slot))
        self._tally.start(slot)

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait until a claim about children holds."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not is_so():
            assert time.monotonic() < deadline_s, f"after {DEADLINE_S} s still not: {what}"
            time.sleep(0.01)
            self._keeper.reap()

    def strike(self, child: Child | None, number: int = signal.SIGKILL) -> None:
        """Send a deadly signal, and don't wait."""
        if child is None:
            return
        child.is_doomed = True
        if number == signal.SIGKILL and child.is_running:
            self.count("SIGKILL")
        child.signal(number)

    def bury(self, *children: Child | None) -> None:
        """Wait until they have ended."""
        for child in children:
            if child is not None:
                self._keeper.wait(child)

    def kill_at(self, name: str, *, is_known: bool = True, skip: int | None = None) -> bool:
        """Kill the collector or a worker at a point, which is counted. Starts nobody.

        Args:
            name: One of `points.POINTS`.
            is_known: Whether whoever is to die runs already; else it is started, and watched from then on.

            skip: How often it is passed before; the dice's choice by default.

        Returns:
            Whether it was hit; else it died at another moment.
        """
        point = points.BY_NAME[name]
        if self.is_control:
            # Its sending half lives in its workers, so that each of its points is one of theirs.
            self.wait_s(0.0, 0.1)
            victim = self.worker(self.any_slot())
            self.strike(victim)
            self.bury(victim)
            self.count(name)
            return True
        child = self._victim(point, is_known=is_known and not point.is_at_start)
        if point.comes_of is not None:
            self._wait_committed()
        skip = self.random.randint(0, point.skip_max) if skip is None else skip
        is_hit = self._keeper.trace(child, name, skip=skip, timeout_s=POINT_S, state_dir=self.state_dir)
        self.count("SIGKILL")
        self.count(name if is_hit else f"missed: {name}")
        return is_hit

    def fail_at(self, name: str, *, is_killed: bool = False) -> bool:
        """Have calls of the collector fail, and count that.

        Args:
            name: One of `errors.FAILURES`.
            is_killed: Whether it is killed right after the last of them, before it can see the error.

        Returns:
            Whether any did; it runs on then unless it is killed, or ends by itself. Else it was killed.
        """
        failure = errors.BY_NAME[name]
        if self.is_control:
            self.count(name)
            return True
        child = self._watched() if failure.is_at_start else self.collector
        assert child is not None
        if failure.comes_of is not None:
            self._wait_committed()
        plan = errors.Plan(
            failure=name,
            skip=self.random.randint(0, failure.skip_max),
            count=self.random.randint(1, 1 + failure.more_max),
            error=self.random.choice(failure.errors),
            is_killed=is_killed,
        )
        is_hit = self._keeper.fail(child, plan, timeout_s=POINT_S, state_dir=self.state_dir)
        self.count("SIGKILL", by=is_killed or not is_hit)
        child.is_doomed = failure.may_end or not child.is_running
        self.count(name if is_hit else f"missed: {name}")
        return is_hit

    def _victim(self, point: points.Point, *, is_known: bool) -> Child:
        if point.role == "worker":
            slot = self.any_slot()
            if is_known and not point.is_in_storm:
                return self.worker(slot)
            self.strike(self._workers[slot])
            self.bury(self._workers[slot])
            worker = self.start_worker(slot, waits=not is_known)
            if point.is_in_storm:
                # Segments double: those of an old worker take many events to fill.
                first = Stream(len(self._lives) - 1, 0, slot).number
                self.wait_until(lambda: self._tally.returned[first] > 0, "a young worker tracks")
                self._tally.storm(slot)
            return worker
        if is_known:
            assert self.collector is not None
            return self.collector
        return self._watched()

    def _watched(self) -> Child:
        """A collector that does nothing until it is traced, in the place of the one that runs."""
        self.strike(self.collector)
        self.bury(self.collector)
        child = self.start_collector(waits=True)
        assert child is not None
        return child

    def kill_worker(self) -> None:
        """Kill a worker anywhere, and start the next in its slot."""
        slot = self.any_slot()
        self.strike(self.worker(slot))
        self.bury(self.worker(slot))
        self.start_worker(slot)

    # --- What is seen of them ---

    def look(self) -> dict[str, Any]:
        """Look at `settle-mp status`, which must balance, and at who died by himself."""
        self._notice_deaths()
        self._read_log()
        if self.is_control:
            return {}
        status = self.status()
        self.count("looks")
        if not status["balanced"]:
            self.complaints.append(f"status does not balance: {status['faults']}")
        return status

    def status(self) -> dict[str, Any]:
        """Ask `settle-mp status --json`."""
        path = self.folder / "status.json"
        path.unlink(missing_ok=True)
        child = self._keeper.spawn(
            "cli", ["status", "--json"], name="status", environ=self.environ, output=path
        )
        code = self._keeper.wait(child).code
        books: dict[str, Any] = json.loads(path.read_bytes())
        assert code == (0 if books["balanced"] else 1), code
        return books

    def command(self, *arguments: str) -> str:
        """Run a command that must end well. Returns what it said, its log aside."""
        path = self.folder / "command.out"
        path.unlink(missing_ok=True)
        child = self._keeper.spawn(
            "cli", ["--log-level=error", *arguments], name="command", environ=self.environ, output=path
        )
        code, said = self._keeper.wait(child).code, path.read_text()
        if code:
            self.complaints.append(f"settle-mp {' '.join(arguments)} ended with {code}: {said}")
        return said

    @contextlib.contextmanager
    def upstream_away(self) -> Iterator[None]:
        """Kill the sandbox, and start it again on the same port with what it had applied."""
        self._read_log()
        self.upstream.kill()
        self._logged = 0  # it counts anew
        try:
            yield
        finally:
            self.upstream.start()

    def _notice_deaths(self) -> None:
        self._keeper.reap()
        suspects = [self.collector, *self._workers]
        for child in suspects:
            if child is not None and not child.is_running and not child.is_doomed:
                child.is_doomed = True
                self.complaints.append(
                    f"a {child.name} ended by itself with {child.code}: {self.said(child.name)}"
                )

    def said(self, role: str) -> str:
        """The last that was said by all of a role."""
        return self.log(role)[-2000:].decode(errors="replace")

    def log(self, role: str) -> bytes:
        """All that was said by all of a role; nothing before the first of them has said anything."""
        path = self.folder / f"{role}.log"
        return path.read_bytes() if path.exists() else b""

    def _read_log(self) -> None:
        for each in self.upstream.log(self._logged):
            self._logged = each["number"]
            if each["idempotencyKey"] is not None:
                self._requests.add((each["idempotencyKey"], each["bodySha256"]))

    # --- The end ---

    def settle(self, timeout_s: float = DEADLINE_S) -> dict[str, Any]:
        """End all workers in good order, and wait until nothing is left to be sent.

        Returns:
            The last status.
        """
        self.look()
        self.start()
        for slot in range(WORKERS):
            self._tally.stop(slot)
            self.worker(slot).is_doomed = True
        for slot in range(WORKERS):
            worker = self.worker(slot)
            self.bury(worker)
            if worker.code != 0:
                self.complaints.append(f"a worker ended with {worker.code}: {self.said('worker')}")
        status = self._drain(timeout_s)
        self.count("in doubt", status.get("in_doubt_ever", {}).get("events", 0))
        for slot in range(WORKERS):
            self._tally.start(slot)
        return status

    def _drain(self, timeout_s: float) -> dict[str, Any]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            status = {} if any(self._journals()) and time.monotonic() < deadline_s else self.look()
            if self.is_control or (
                status and not (status["events"]["pending"] or status["events"]["in_doubt"])
            ):
                return status
            if time.monotonic() > deadline_s:
                self.complaints.append(f"after {timeout_s} s not everything is sent: {status}")
                return status
            time.sleep(0.1)

    def _journals(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            yield from (name for name in os.listdir(self.state_dir / "journals") if name[0] != ".")  # noqa: PTH208

    def verdict(self) -> Verdict:
        """Judge everything since the house was opened."""
        verdict = oracle.judge(self.lives(), oracle.read_bill(self.upstream.db_path))
        self._read_log()
        for key in oracle.two_bodies(self._requests):
            verdict.complain(f"key {key} came with two bodies")
        for complaint in self.complaints:
            verdict.complain(complaint)
        return verdict

    def lives(self) -> Iterator[Life]:
        """Every stream of every life that has ended, as the oracle wants it."""
        for life, slot, worker in self._lives:
            is_killed = worker.is_running or worker.code != 0
            for thread in range(THREADS):
                stream = Stream(life, thread, slot)
                yield Life(stream, self._tally.returned[stream.number], is_killed)

    def close(self) -> None:
        """Let go of what is not the keeper's."""
        self._tally.close()


def _dropped(status: dict[str, Any]) -> int:
    return int(status["events"]["dropped"])


@contextlib.contextmanager
def open_house(
    *,
    seed: str,
    client: str = "settle",
    settings: Mapping[str, str] | None = None,
    is_started: bool = True,
    disk_mebibytes: int = 0,
    **upstream: Any,
) -> Iterator[House]:
    """Open a house under load, and close it afterwards; its folder stays when it was not left in good order.

    Args:
        seed: Of its dice.
        client: "settle", or "control" for the one that loses.
        settings: Environment variables for all.
        is_started: Whether collector and workers run from the beginning.
        disk_mebibytes: The size of a disk that the state folder has for itself; 0 for none of its own.
        upstream: Options of the sandbox; see `settle_mp.sandbox.pipeline.Options`.
    """
    # Not under pytest's folder: a unix socket's path may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="smp-house-", dir="/tmp"))
    disk = small_disk(folder / "state", disk_mebibytes)
    with disk, contextlib.closing(Keeper(folder)) as keeper:
        running = Upstream(KeptSandbox(keeper, folder, Options(**upstream)))
        house = House(folder, keeper, running, seed=seed, client=client, settings=settings or {})
        try:
            if is_started:
                house.start()
            yield house
        finally:
            running.close()
            house.close()
    if not house.complaints:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        sys.stderr.write(f"kept: {folder}\n")
