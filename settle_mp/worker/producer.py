"""One process life: its journal and courier, opened at first use and begun anew after a fork.

A life is made outside of any lock, since a signal handler may call `track()` while one is being made: two
that are made at once settle it with one atomic `dict.setdefault`, under the number of forks seen so far.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import time
from typing import TYPE_CHECKING, Final

from settle_mp import endpoints, statedir, transport
from settle_mp.core.event import unpack_event
from settle_mp.core.wire import Flushed
from settle_mp.notices import Teller
from settle_mp.worker import birth, facts, uwsgi
from settle_mp.worker.courier import Courier
from settle_mp.worker.foreign import is_foreign
from settle_mp.worker.journal import CLOSED, Journal
from settle_mp.worker.life import Life, stand_in
from settle_mp.worker.report import FlushReport
from settle_mp.worker.room import JournalFullError, Limits
from settle_mp.worker.segment import NoRoomError

if TYPE_CHECKING:
    from settle_mp.config import Settings
    from settle_mp.core.event import Quantity
    from settle_mp.worker.segment import Appender

log: Final = logging.getLogger("settle_mp")

#: How long an ending process hands over what it has when the collector answers, in seconds. The journal
#: keeps the rest.
EXIT_S: Final = 0.5

#: What a flush with nothing new to confirm is told.
NOTHING_WAITS: Final = Flushed(0, 0, 0, 0, "")

#: One for each state folder and set of bounds, for the life of the process: a lock held by a producer
#: that was collected as garbage could not be let go of in a forked child.
_producers: Final[dict[tuple[object, ...], Producer]] = {}
#: What a host's integration calls this process, for `status` and the logs.
_label: list[str] = []


def label_process(label: str) -> None:
    """Name this process for operators, such as "gunicorn:app worker 3", before its first `track()`."""
    _label[:] = [label[:200]]


def producer_for(settings: Settings) -> Producer:
    """The producer that all clients with these settings share in this process."""
    key = (
        settings.state_dir,
        settings.endpoint,
        settings.keys_dir,
        settings.disabled,
        settings.group,
        settings.key_mode,
        settings.journal_bytes_max,
        settings.journals_bytes_max,
    )
    return _producers.setdefault(key, Producer(settings))


class Producer:
    """The worker's end of one state folder, shared by all clients of it in this process.

    Attributes:
        slot: A list of one: what `track()` appends with now.
        asleep: Not empty when the next `track()` must call `wake`.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing, start nothing."""
        self.slot: list[Appender] = [CLOSED]
        self.asleep: list[bool] = []
        self._settings = settings
        # Read now: a worker that changes its user may not be allowed to read the keys' files any more.
        self._key_mode = settings.key_mode
        self._collector = endpoints.remote(settings)
        self._state = statedir.StateDir(settings.state_dir)
        self._lives: dict[int, Life] = {}
        self._forks_count = 0
        self._is_closed = False
        self._teller = Teller(log)

    # --- Tracking ---

    def append(self, payload: bytes) -> None:
        """Append one event by the slow path: at first use, at a segment's end, after a fork, when full."""
        while True:
            life = self._life()
            try:
                life.journal.append(payload)
            except (NoRoomError, JournalFullError) as error:
                if life.is_ours:
                    self.drop(unpack_event(payload).quantity, "events_dropped", str(error))
                    return
                self._forget_parent(life)
            else:
                return

    def drop(self, quantity: Quantity, name: str, reason: str) -> None:
        """Count an event that was not taken, and say why under a name of the log."""
        while True:
            life = self._life()
            try:
                life.journal.drop(quantity)
            except ValueError as error:
                if is_foreign(error) or life.is_ours:
                    raise
                # We are a child, forked in the midst of this: the event is counted as ours.
                self._forget_parent(life)
            else:
                break
        self._teller.tell(name, reason, level=logging.ERROR)

    def wake(self) -> None:
        """End the courier's sleep, after noting the time: what is journaled now may be adopted much later."""
        life = self._mine()
        try:
            self.asleep.clear()
            if life is not None:
                life.journal.mark(time.time())
        finally:
            # Also after an exception from a signal handler: others count on the courier being awake now.
            if life is not None and life.courier is not None:
                life.courier.wake()

    def _life(self) -> Life:
        while True:
            life = stand_in() or self._lives.get(self._forks_count)
            if life is not None:
                if life.is_ours:
                    return life
                self._forget_parent(life)
                continue
            made = self._begin()
            if not made.is_ours:
                made.let_go()  # we are a child, forked in the midst of this
                continue
            forks_count = self._forks_count
            winner = self._lives.setdefault(forks_count, made)
            appender = winner.journal.appender
            # One step, with no call in it: a signal handler that forks can't come between test and store.
            self.slot[0] = appender if forks_count == self._forks_count else CLOSED
            if forks_count != self._forks_count:
                made.let_go()
            elif winner is not made:
                made.discard()
            else:
                self._start_courier(made)

    def _begin(self) -> Life:
        journal = self._open_journal()
        try:
            return Life(journal, self._make_courier(journal))
        except BaseException:
            journal.discard()
            raise

    def _make_courier(self, journal: Journal) -> Courier | None:
        try:
            collector = self._collector or endpoints.of_client(self._settings)
        except transport.AddressError as error:
            self._tell_no_courier(error)
            return None
        return Courier(journal, collector, self.asleep)

    def _open_journal(self) -> Journal:
        settings = self._settings
        identity = facts.identity(self._key_mode, "".join(_label), settings)
        limits = Limits(
            bytes_max=settings.journal_bytes_max,
            host_bytes_max=settings.journals_bytes_max,
            mode=statedir.file_mode(settings.group),
        )
        try:
            self._state.prepare(settings.group)
            return Journal.build(self.slot, self._state.journals, identity=identity, limits=limits)
        except (OSError, LookupError, JournalFullError) as error:
            if is_foreign(error):
                raise
            reason = f"{self._state.journals}: {error}"
            self._teller.tell("journal_not_durable", reason, level=logging.ERROR)
            return Journal.in_memory(self.slot, identity=identity)

    def _start_courier(self, life: Life, *, is_waited_for: bool = False) -> None:
        if life.courier is None or self._is_closed:
            return
        reason = uwsgi.why_no_thread(is_waited_for=is_waited_for)
        if reason:
            self._teller.tell("courier_not_started", reason, level=logging.INFO)
            return
        _register_exit()
        try:
            life.courier.start()
        except RuntimeError as error:
            if is_foreign(error):
                raise
            self._tell_no_courier(error)

    def _tell_no_courier(self, error: Exception) -> None:
        self._teller.tell("courier_not_started", str(error), level=logging.ERROR)

    # --- Forks ---

    def after_fork_in_child(self) -> None:
        """Begin anew: the parent's events stay the parent's. May be called again, and in between."""
        self.slot[0] = CLOSED
        lives, self._lives = self._lives, {}
        self._forks_count += 1
        self.asleep.clear()
        self._is_closed = False
        for life in lives.values():
            if life.is_ours:
                self._lives.setdefault(self._forks_count, life)
            else:
                life.let_go()

    def _forget_parent(self, life: Life) -> None:
        """The same where no at-fork hook told us."""
        if life is self._lives.get(self._forks_count):
            _after_fork_in_child()

    def resume(self) -> None:
        """Start the courier where it could not be before: the process that has begun is the one to stay."""
        life = self._mine()
        if life is not None:
            self._start_courier(life)

    # --- Flushing and ending ---

    def _mine(self) -> Life | None:
        """This process's life, if it has begun."""
        life = stand_in() or self._lives.get(self._forks_count)
        return life if life is not None and life.is_ours else None

    @property
    def pending_count(self) -> int:
        """Events of this process that the collector has not committed."""
        life = self._mine()
        return 0 if life is None else life.journal.pending_count

    def flush(self, timeout_s: float) -> FlushReport:
        """Wait until everything tracked so far is confirmed; see `Events.flush`."""
        life = self._mine()
        if life is None:
            return FlushReport(confirmed_count=0, unconfirmed_count=0)
        scope = life.scope()
        late = life.take_late()
        if late is not None:
            return life.report(scope, late, late.reason)
        answer, reason = (
            self._ask(life, scope.position, timeout_s) if life.must_ask(scope) else (NOTHING_WAITS, "")
        )
        return life.report(scope, answer, reason)

    def _ask(self, life: Life, position: int, timeout_s: float) -> tuple[Flushed | None, str]:
        """Ask through the courier: the collector's answer, if any, and why something is unconfirmed."""
        self._is_closed = False
        self._start_courier(life, is_waited_for=True)
        courier = life.courier
        if courier is None or not courier.is_running:
            return None, "there is no way to the collector; see `settle-mp doctor`"
        try:
            answer = life.ask(courier, position, timeout_s)
        except OSError as error:
            return None, f"no way to wait for the answer: {error.strerror or error}"
        if answer is None:
            return None, courier.state or "the collector has not answered in time"
        return answer, answer.reason

    def close(self, timeout_s: float) -> None:
        """Hand everything to the collector, if it takes it in time, and end the courier."""
        self._is_closed = True
        life = self._mine()
        if life is not None and life.courier is not None and life.courier.is_running:
            life.courier.stop(timeout_s)
        if life is not None and life.journal.is_volatile and life.journal.pending_count:
            reason = f"{life.journal.pending_count} events are in memory alone"
            self._teller.tell("events_in_memory", reason, level=logging.ERROR)


_exits: list[int] = []


def _register_exit() -> None:
    if not _exits:
        _exits.append(1)
        atexit.register(_at_exit)


def all_producers() -> list[Producer]:
    """Every producer that a client in this process has asked for."""
    return list(_producers.values())


def close_all(timeout_s: float) -> None:
    """Hand over what all clients in this process journaled, within one deadline; see `Producer.close`."""
    deadline_s = time.monotonic() + timeout_s
    for producer in all_producers():
        with contextlib.suppress(Exception):
            producer.close(max(0.0, deadline_s - time.monotonic()))


def after_fork() -> None:
    """In a process that a host has just forked, or not forked, without telling Python."""
    _after_fork_in_child()
    for producer in all_producers():
        producer.resume()


def _at_exit() -> None:
    # Handlers that a parent registered run in a forked child as well; a life knows whose it is.
    close_all(EXIT_S)


def _after_fork_in_child() -> None:
    birth.forget_parent()
    for producer in all_producers():
        producer.after_fork_in_child()


# Can't be unregistered, hence one for all.
os.register_at_fork(after_in_child=_after_fork_in_child)
