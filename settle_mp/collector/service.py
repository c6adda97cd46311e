"""The collector: one process a state folder, one loop, one thread that owns ledger and sockets.

Signal handlers only leave a byte; the loop acts. What happens in a turn, in this order: frames and control
messages in, journals of the dead and the silent, commit, acks, answers of the upstream, seal, send, flushes.

Rule L1: on any error of the ledger all of memory is dropped and read again before anything else is done.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.parts import Parts
from settle_mp.collector.recovery import Recovery
from settle_mp.collector.sockets import Sockets
from settle_mp.collector.startup import admitted
from settle_mp.core import wire
from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.collector.flushing import Answers
    from settle_mp.collector.notify import Notifier
    from settle_mp.collector.sockets import Ready
    from settle_mp.collector.startup import Opened
    from settle_mp.config import Settings

log: Final = logging.getLogger("settle_mp")

#: How long frames are gathered for one transaction, in seconds: one fsync for all that came meanwhile.
GATHER_S: Final = 0.02
#: How long a stop waits for requests under way, so that they don't end in doubt, in seconds.
STOP_S: Final = 5.0
#: How long the end itself may take, on a busy disk, in seconds.
END_S: Final = 10.0
#: How often long-gone producers are forgotten, in seconds.
FORGET_EVERY_S: Final = 600.0
#: The longest wait of the loop, in seconds.
TURN_S_MAX: Final = 1.0


class Collector:
    """Runs until it is told to stop. Use `startup.open_collector` to make one."""

    def __init__(
        self,
        opened: Opened,
        *,
        drain_timeout_s: float,
        reload_settings: Callable[[], Settings],
        notifier: Notifier,
    ) -> None:
        """Take over what startup has opened and locked."""
        self._opened = opened
        self._parts = Parts(opened)
        self._drain_timeout_s = drain_timeout_s
        self._drain_scan = 0
        self._reload_settings = reload_settings
        self._notifier = notifier
        self._sockets = Sockets(opened.endpoints, self._parts.delivery.wake_fd, admitted(opened.settings))
        self._stopping_since_s: float | None = None
        self._is_hurried = False
        self._recovery = Recovery(self._parts)
        self._forget_at_s = time.monotonic()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; see `stop`.

        Raises:
            AddressError: When the sockets can't be bound.
            LedgerDamagedError: The ledger can't be trusted any more; the next start puts it aside.
        """
        try:
            self._install_signals()
            self._parts.reception.publish(list(self._parts.state.members))
            self._sockets.open()
            log.info("collector_started", extra={"state_dir": str(self._opened.dir.root), "pid": os.getpid()})
            self._notifier.ready()
            while not self._is_done():
                self._turn()
        finally:
            self._close()

    # --- The turn ---

    def _turn(self) -> None:
        now_s = time.monotonic()
        self._notifier.alive(now_s)
        is_ready = self._recovery.is_ready()
        try:
            wait_s = self._wait_s() if is_ready else min(TURN_S_MAX, self._recovery.left_s)
            ready = self._sockets.poll(max(0.0, min(wait_s, self._notifier.left_s(now_s))))
            self._obey_signals()
            if is_ready and self._has_taken_in(ready):
                self._send_out()
            else:
                self._turn_away(ready)
        except LedgerError as error:
            self._recovery.note(error, is_intake=False)

    def _has_taken_in(self, ready: Ready) -> bool:
        """Take in what came. Returns whether memory can still be believed."""
        try:
            self._take_in(ready)
        except LedgerError as error:
            self._recovery.note(error, is_intake=True)
            return not self._recovery.must_reload
        return True

    def _take_in(self, ready: Ready) -> None:
        is_open = self._recovery.is_open
        if is_open:
            self._parts.trouble = ""
        if ready.control:
            self._take_control()
        if ready.frames:
            self._take_frames(is_open=is_open)
        if is_open:
            self._adopt_and_commit()

    def _turn_away(self, ready: Ready) -> None:
        """Keep queues from growing while the ledger can't be used; all of it is asked or sent again."""
        if ready.frames:
            self._take_frames(is_open=False)
        if ready.control:
            for identity, data in self._sockets.messages():
                with contextlib.suppress(wire.WireError):
                    self._send(self._parts.turn_away(identity, wire.decode_message(data)))

    def _adopt_and_commit(self) -> None:
        parts, now_s = self._parts, time.monotonic()
        parts.adoption.is_urgent = parts.host_flushing.is_waiting or self._may_drain()
        parts.adoption.turn(now_s)
        # A flush that waits for these very events must not wait for others as well.
        is_urgent = parts.host_flushing.is_waiting or parts.flushing.wants_commit
        if parts.reception.is_due(time.monotonic(), 0.0 if is_urgent else GATHER_S):
            self._commit()
        parts.adoption.settle()

    def _commit(self) -> None:
        parts = self._parts
        touched = parts.reception.commit()
        self._recovery.end()
        ledger = parts.state.ledger.id
        for producer in touched:
            member = parts.state.members[producer]
            if producer in parts.greeted:
                parts.greeted.discard(producer)
                self._sockets.send(producer, parts.welcome(member))
            else:
                self._sockets.send(producer, wire.Ack(ledger, member.position))
        for producer in parts.reception.departed:
            self._sockets.send(producer, wire.Farewell())

    def _send_out(self) -> None:
        parts, now_s = self._parts, time.monotonic()
        is_stopping = self._stopping_since_s is not None
        parts.shipping.turn(
            is_urgent=parts.flushing.wants_seal or parts.host_flushing.is_waiting or is_stopping,
            is_ending=is_stopping and not self._may_drain(),
        )
        self._send(parts.flushing.turn(now_s))
        parts.flushing.sent()
        self._send(parts.host_flushing.turn(now_s, scans_done=parts.adoption.done_count))
        parts.reception.count_refused()
        if now_s >= self._forget_at_s:
            self._forget_at_s = now_s + FORGET_EVERY_S
            parts.forget()

    def _wait_s(self) -> float:
        parts, now_s = self._parts, time.monotonic()
        waits = [
            TURN_S_MAX,
            parts.shipping.left_s(),
            parts.flushing.left_s(now_s),
            parts.host_flushing.left_s(now_s),
        ]
        if not self._recovery.is_open:
            waits.append(self._recovery.intake_left_s)
        else:
            waits.append(parts.adoption.left_s(now_s))
            if parts.reception.gathered_since_s is not None:
                waits.append(parts.reception.gathered_since_s + GATHER_S - now_s)
        return max(0.0, min(waits))

    # --- Messages ---

    def _take_frames(self, *, is_open: bool) -> None:
        reception = self._parts.reception
        for data in self._sockets.frames():
            if not is_open:
                # Thrown away, since a queue has no bound; whose they are has them in a journal.
                continue
            try:
                frame = wire.decode_frame(data)
            except wire.WireError as error:
                reception.refuse(str(error))
                continue
            self._parts.hear(frame.producer)
            reply = reception.take_frame(frame)
            if reply is not None:
                self._sockets.send(frame.producer, reply)
            if reception.is_full:
                return

    def _take_control(self) -> None:
        for identity, data in self._sockets.messages():
            try:
                message = wire.decode_message(data)
            except wire.WireError as error:
                self._parts.reception.refuse(str(error))
                continue
            self._send(self._parts.answer(identity, message))

    def _send(self, answers: Answers) -> None:
        for identity, message in answers:
            self._sockets.send(identity, message)

    # --- Signals and the end ---

    def _install_signals(self) -> None:
        signal.set_wakeup_fd(self._sockets.signal_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])

    def _obey_signals(self) -> None:
        for number in self._sockets.signals():
            if number == signal.SIGHUP:
                self._reload()
            elif number in (signal.SIGTERM, signal.SIGINT):
                self.stop()

    def stop(self) -> None:
        """Begin to end: commit what came, let requests under way finish; a second call hurries."""
        self._is_hurried = self._stopping_since_s is not None
        if self._stopping_since_s is None:
            self._stopping_since_s = time.monotonic()
            self._drain_scan = self._parts.adoption.scan_anew()
            self._notifier.stopping(self._drain_timeout_s + STOP_S + END_S)
            log.info("collector_stopping", extra={"drain_timeout_s": self._drain_timeout_s})

    def _may_drain(self) -> bool:
        since_s = self._stopping_since_s
        return since_s is not None and time.monotonic() - since_s < self._drain_timeout_s

    def _is_done(self) -> bool:
        since_s = self._stopping_since_s
        if since_s is None:
            return False
        parts, elapsed_s = self._parts, time.monotonic() - since_s
        if self._is_hurried or elapsed_s >= self._drain_timeout_s + STOP_S:
            return True
        is_drained = parts.adoption.done_count >= self._drain_scan and parts.is_drained()
        if self._may_drain() and not is_drained:
            return False
        return not parts.shipping.in_flight and not parts.reception.is_gathering

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            settings = self._reload_settings()
            guests = admitted(settings)
            self._parts.use(settings)
            self._sockets.admit(guests)
        except (ValueError, LedgerError) as error:
            log.error("settings_not_reloaded", extra=notice("settings_not_reloaded", str(error)))  # noqa: TRY400
        else:
            log.info("settings_reloaded")
        self._notifier.ready()

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._sockets.close()
        self._parts.close()
        self._opened.close()
        log.info("collector_stopped", extra={"pid": os.getpid()})


def _note(number: int, _frame: object) -> None:
    """Do nothing: the wakeup descriptor has carried the signal's number to the loop already."""
