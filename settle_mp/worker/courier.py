"""The courier: the one thread of a worker process, and the only owner of its ZeroMQ sockets.

It cuts new journal bytes into frames, sends them over PUSH, hears acks over its DEALER control socket,
frees what is committed, and carries flushes. When there is nothing to do it sleeps until `track()` wakes it.

Rule 1: nothing is sent before the collector said from where (`Welcome`), nor beyond the credit window.
Rule 2: when acks stay away it asks again, and goes on from where the collector says, back or forth.
Rule 3: whatever goes wrong here is kept from the application; the journal has everything.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final

import zmq

from settle_mp import transport
from settle_mp.core import wire
from settle_mp.core.record import RECORD_BYTES_MAX
from settle_mp.notices import notice
from settle_mp.worker import native
from settle_mp.worker.alarm import Alarm
from settle_mp.worker.flushes import Flushes
from settle_mp.worker.handover import HandOver
from settle_mp.worker.heir import Heir
from settle_mp.worker.hellos import Hellos, goodbye, hello
from settle_mp.worker.hours import HourMarks
from settle_mp.worker.link import Link
from settle_mp.worker.waiter import Waiter

if TYPE_CHECKING:
    from settle_mp.endpoints import Endpoints
    from settle_mp.worker.flushes import FlushRequest
    from settle_mp.worker.journal import Journal

log: Final = logging.getLogger("settle_mp")

#: Unacked bytes that may be in flight: what bounds the collector's memory, some 15,000 events a worker.
CREDIT_BYTES: Final = 1024 * 1024
#: How long new bytes are gathered into one frame at first; doubles while few come, up to the second figure.
GATHER_S: Final = 0.005
GATHER_S_MAX: Final = 0.1
#: The pause after trouble, and how soon it notices that it should end.
PAUSE_S: Final = 1.0
PAUSE_STEP_S: Final = 0.25
#: The first sleep is short: a `track()` that looked just before we lay down does not wake us.
FIRST_SLEEP_S: Final = 1.5
SLEEP_S: Final = 60.0
#: How long a goodbye on its way may take.
GOODBYE_S: Final = 0.1


class Courier:
    """Carries one journal to the collector, from a thread of its own.

    Attributes:
        asleep: Not empty while the courier sleeps: `track()` looks at it and calls `wake`.
        state: What a flush says when nothing else is known: connecting, welcomed, or why not.
    """

    def __init__(self, journal: Journal, endpoints: Endpoints, asleep: list[bool]) -> None:
        """Prepare; `start` starts the thread."""
        self.asleep = asleep
        self.state: str = "the collector has not answered"
        self._running = native.allocate_lock()
        self._is_starting = False
        self._journal = journal
        self._endpoints = endpoints
        self._hours = HourMarks()
        self._flushes = Flushes(journal.producer)
        self._requests: collections.deque[FlushRequest] = collections.deque()
        self._alarm = Alarm()
        self._hand_over: HandOver | None = None
        self._ended: Waiter | None = None
        self._is_welcome = False
        self._sent = 0
        self._gather_s = GATHER_S
        self._lull_s = FIRST_SLEEP_S
        self._hellos = Hellos()
        self._told: set[str] = set()
        #: Over tcp from a folder of our own, the collector sees neither our header nor what the dead leave.
        self._is_unseen = False
        self._heir = None if journal.folder is None else Heir(journal.folder.parent, endpoints)
        self._link: Link

    # --- Called from other threads ---

    def start(self) -> None:
        """Start the thread, unless it runs.

        Raises:
            RuntimeError: When the system allows none.
        """
        self._hand_over = None
        if self.is_running:
            return
        self._ended = None
        try:
            self._is_starting = True
            native.start_thread(self._run)
        except BaseException:
            self._is_starting = False
            raise

    @property
    def is_running(self) -> bool:
        """Whether the thread runs, or is about to."""
        return self._is_starting or bool(self._running.locked())

    def wake(self) -> None:
        """End the courier's sleep."""
        self.asleep.clear()
        self._alarm.ring()

    def request(self, flush: FlushRequest) -> None:
        """Have a flush asked for until it is answered or its deadline passes."""
        self._requests.append(flush)
        self.wake()

    def stop(self, timeout_s: float) -> None:
        """Hand over what is journaled, for at most `timeout_s`, then end the thread."""
        try:
            self._hand_over = hand_over = HandOver(self._journal, self._endpoints, timeout_s)
            with Waiter() as waiter:
                self._ended = waiter
                self.wake()
                if self.is_running:
                    waiter.wait(hand_over.timeout_s + GOODBYE_S)
        except OSError:  # no descriptors to wait with; the journal has everything
            self.wake()

    def let_go(self) -> None:
        """In a forked child: close our copies of the parent's pipe. Its sockets are not ours to touch."""
        self._alarm.let_go()

    # --- The thread ---

    def _run(self) -> None:
        # Two may have been started at once, as by a signal handler in the middle of `start`.
        is_first = self._running.acquire(blocking=False)
        self._is_starting = False
        if not is_first:
            return
        try:
            while not self._is_stopping:
                try:
                    self._serve()
                except Exception as error:  # noqa: BLE001  rule 3
                    self._tell("courier_failed", logging.ERROR, f"{type(error).__name__}: {error}")
                    self._pause(PAUSE_S)
        finally:
            if self._heir is not None:
                self._heir.stop()
            self.asleep.clear()
            self._running.release()
            if self._ended is not None:
                self._ended.notify()
            if self._requests and self._hand_over is None:
                with contextlib.suppress(RuntimeError):
                    self.start()  # a flush that came when we had already decided to end

    @property
    def _is_stopping(self) -> bool:
        """Whether `stop` was called, and all is handed over or the time for it is up."""
        hand_over = self._hand_over
        return hand_over is not None and hand_over.is_over

    def _serve(self) -> None:
        if not transport.has_free_descriptors():
            # libzmq would abort the process; the journal can wait.
            self._tell("courier_waits", logging.WARNING, "no free file descriptors; raise `ulimit -n`")
            self._pause(PAUSE_S)
            return
        self._alarm.open()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._link = Link(context, self._endpoints, self._journal.producer)
            self._is_welcome = False
            self._hellos.connected()
            poller = zmq.Poller()
            poller.register(self._link.socket, zmq.POLLIN)
            poller.register(self._alarm.descriptor, zmq.POLLIN)
            while not self._is_stopping and not self._hellos.is_unheard:
                self._turn(poller)
            if self._is_stopping:
                self._link.say(goodbye(self._journal))
            else:
                self._tell("collector_not_heard", logging.WARNING, self._endpoints.control)
        finally:
            # A goodbye on its way gets a moment; nothing durable depends on it.
            context.destroy(linger=int(GOODBYE_S * 1000) if self._is_welcome else 0)

    def _turn(self, poller: zmq.Poller) -> None:
        self._alarm.silence()
        for message in self._link.heard():
            self._hellos.answered()
            self._obey(message)
        now_s = time.monotonic()
        self._take_requests(now_s)
        self._greet(now_s)
        if self._is_welcome and self._is_unseen and self._heir is not None:
            self._heir.turn(now_s)
        has_sent = self._send()
        self._journal.prefault()
        for question in self._flushes.questions(now_s):
            self._link.say(question)
        self._wait(poller, has_sent=has_sent)

    def _wait(self, poller: zmq.Poller, *, has_sent: bool) -> None:
        """Gather for some milliseconds while events come; sleep until woken when none do."""
        if has_sent:
            self._gather_s, self._lull_s = GATHER_S, FIRST_SLEEP_S
        else:
            self._gather_s = min(2 * self._gather_s, GATHER_S_MAX)
        if self._is_welcome and self._gather_s < GATHER_S_MAX:
            self.asleep.clear()
            poller.poll(int(self._gather_s * 1000))
            return
        # Where only an ack lets us go on, a `track()` that woke us would do it again and again.
        if self._is_welcome and self._sent >= self._journal.tail and not self.asleep:
            self.asleep.append(True)
        if not self._can_send() and not self._requests and not self._is_stopping:
            poller.poll(max(1, int(self._next_duty_s() * 1000)))
            # We stay asleep to `track()` until one has woken us: one that looked before we lay down has
            # long written when we look again after the first, short sleep.
            self._lull_s = SLEEP_S

    def _next_duty_s(self) -> float:
        """How long nothing is to be done unless something arrives."""
        now_s = time.monotonic()
        duties = [self._lull_s, self._hours.left_s(time.time())]
        if self._wants_answer(now_s):
            duties.append(self._hellos.next_s - now_s)
        hand_over = self._hand_over
        if hand_over is not None:
            duties.append(hand_over.left_s)
        return min(*duties, self._flushes.left_s(now_s))

    def _can_send(self) -> bool:
        journal = self._journal
        return self._is_welcome and self._sent < journal.tail and self._credit >= RECORD_BYTES_MAX

    @property
    def _credit(self) -> int:
        """Bytes that may still go before the next ack."""
        return CREDIT_BYTES - (self._sent - self._journal.committed)

    def _pause(self, pause_s: float) -> None:
        """Wait before starting over; only `stop` ends it early."""
        deadline_s = time.monotonic() + pause_s
        sleep = native.original("time", "sleep")
        while not self._is_stopping and (left_s := deadline_s - time.monotonic()) > 0:
            # Without the alarm, which takes descriptors, that may just be what is missing.
            sleep(min(left_s, PAUSE_STEP_S))

    # --- Sending ---

    def _send(self) -> bool:
        """Cut and send what is new, within the credit window. Returns whether anything went."""
        journal = self._journal
        self._hours.look(time.time(), journal)
        # Where the collector has read the journal itself, `track()` may have freed what we did not send yet.
        self._sent = max(self._sent, journal.committed)
        first_sent = self._sent
        while self._can_send():
            room = min(wire.FRAME_BODY_BYTES_MAX, self._credit, self._hours.next_end(self._sent) - self._sent)
            base, body = journal.read(self._sent, room)
            if not body:
                break
            frame = wire.Frame(
                producer=journal.producer,
                first=self._sent,
                base=base,
                cut_s=self._hours.time_of(self._sent),
                body=body,
            )
            if not self._link.send(frame):
                break
            self._sent = frame.last
        return self._sent != first_sent

    def _wants_answer(self, now_s: float) -> bool:
        """Whether the collector is to be heard: on us, on what is in flight, on what it can't see."""
        journal = self._journal
        if not self._is_welcome or self._sent > journal.committed:
            return True
        return self._is_unseen and self._hellos.has_news(now_s, journal.header.dropped.dropped_count)

    def _greet(self, now_s: float) -> None:
        """Say hello while the collector has not answered, or has fallen silent over what is in flight."""
        if not self._wants_answer(now_s):
            self._hellos.heard(now_s)
        elif now_s >= self._hellos.next_s:
            self._hellos.said(now_s, self._journal.header.dropped.dropped_count)
            self._link.say(hello(self._journal))

    def _take_requests(self, now_s: float) -> None:
        while self._requests:
            flush = self._requests.popleft()
            self._flushes.add(flush)
            self._hellos.hurry(now_s)

    # --- Hearing ---

    def _obey(self, message: wire.Message) -> None:
        if isinstance(message, wire.Ack):
            self._commit(message.ledger, message.position)
        elif isinstance(message, wire.Welcome):
            self._is_welcome = self._commit(message.ledger, message.position)
            self._sent = self._journal.committed
            self._is_unseen = not message.is_seen
            self._hellos.welcomed()
            self.state = "" if self._is_welcome else "the collector knows another journal under this id"
        elif isinstance(message, wire.GoBack):
            self._go_back(message.position)
        elif isinstance(message, wire.Refused):
            self._is_welcome = False
            self.state = f"the collector refuses: {message.reason}"
            self._tell("collector_refuses", logging.ERROR, message.reason)
        elif isinstance(message, wire.Flushed):
            self._flushes.answer(message)
        elif isinstance(message, wire.AskPosition):
            self._link.say(wire.Position(self._journal.producer, message.request, self._journal.tail))

    def _go_back(self, position: int) -> None:
        self._sent = min(self._sent, max(position, self._journal.committed))
        if position < self._journal.committed:
            # What it asks for is freed. It would ask again for each frame: let it think about a hello first.
            self._is_welcome = False
            self.state = f"the collector asks for position {position}, which it has acknowledged before"
            self._tell("collector_asks_for_the_past", logging.ERROR, self.state)

    def _commit(self, ledger: bytes, position: int) -> bool:
        is_ours = self._journal.commit(ledger, position)
        if is_ours:
            self._sent = max(self._sent, self._journal.committed)
            self._hours.forget(self._journal.committed)
            self._hellos.heard(time.monotonic())
        return is_ours

    def _tell(self, name: str, level: int, text: str) -> None:
        """Log once a kind of trouble. A greenlet's lock is no place for this thread, so not under gevent."""
        if name not in self._told and not native.is_patched():
            self._told.add(name)
            log.log(level, name, extra=notice(name, text))
