"""The collector: one process a state folder, one loop, one thread that owns ledger and sockets.

Signal handlers only leave a byte; the loop acts. What happens in a turn, in this order: frames and control
messages in, journals of the dead and the silent, commit, acks, answers of the upstream, seal, send, flushes.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Final

from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.parts import Parts
from settle_mp.collector.recovery import Recovery
from settle_mp.collector.sockets import Sockets
from settle_mp.core import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.collector.startup import Opened
    from settle_mp.config import Settings

log = logging.getLogger("settle_mp")

#: How long frames are gathered for one transaction, in seconds: one fsync for all that came meanwhile.
GATHER_S: Final = 0.02
#: How long a stop waits for requests under way, so that they don't end in doubt, in seconds.
STOP_S: Final = 5.0
#: How often producers are forgotten, and after how long (rule L4), in seconds.
FORGET_EVERY_S: Final = 600.0
FORGET_AFTER_S: Final = 24 * 3600.0
#: The longest wait of the loop, in seconds.
TURN_S_MAX: Final = 1.0


class Collector:
    """Runs until it is told to stop. Use `startup.open_collector` to make one."""

    def __init__(
        self, opened: Opened, *, drain_timeout_s: float, reload_settings: Callable[[], Settings]
    ) -> None:
        """Take over what startup has opened and locked."""
        self._opened = opened
        self._parts = Parts(opened)
        self._drain_timeout_s = drain_timeout_s
        self._reload_settings = reload_settings
        self._sockets = Sockets(opened.endpoints, self._parts.delivery.wake_fd)
        self._stopping_since_s: float | None = None
        self._is_hurried = False
        self._recovery = Recovery(self._parts)
        self._forget_at_s = time.monotonic()

    def run(self, on_ready: Callable[[], None] | None = None) -> None:
        """Serve until SIGTERM or SIGINT; see `stop`.

        Raises:
            AddressError: When the sockets can't be bound.
        """
        self._install_signals()
        self._parts.reception.publish(list(self._parts.state.members))
        self._sockets.open()
        log.info("collector_started", extra={"state_dir": str(self._opened.dir.root)})
        if on_ready is not None:
            on_ready()
        try:
            while not self._is_done():
                self._turn()
        finally:
            self._close()

    # --- The turn ---

    def _turn(self) -> None:
        try:
            is_ready = self._recovery.is_ready()
            ready = self._sockets.poll(self._wait_s() if is_ready else self._recovery.left_s)
            self._obey_signals()
            if not is_ready:
                return
            if ready.frames and not self._recovery.is_resting:
                self._take_frames()
            if ready.control:
                self._take_control()
            self._work()
        except LedgerError as error:
            self._recovery.note(error)

    def _work(self) -> None:
        parts, now_s = self._parts, time.monotonic()
        if not self._recovery.is_resting:
            parts.adoption.is_urgent = parts.flushing.is_host_waiting
            parts.adoption.turn(now_s)
            after_s = 0.0 if parts.flushing.is_waiting else GATHER_S
            if parts.reception.is_due(now_s, after_s):
                self._commit()
            parts.adoption.settle_estates()
        parts.shipping.turn(is_urgent=parts.flushing.is_waiting or self._stopping_since_s is not None)
        are_read = not parts.adoption.is_behind and not parts.reception.gathered_bytes
        self._send(parts.flushing.turn(now_s, are_journals_read=are_read))
        if now_s >= self._forget_at_s:
            self._forget_at_s = now_s + FORGET_EVERY_S
            parts.forget(time.time() - FORGET_AFTER_S)

    def _commit(self) -> None:
        parts = self._parts
        touched = parts.reception.commit()
        ledger = parts.state.ledger.id
        for producer in touched:
            position = parts.state.members[producer].position
            if producer in parts.greeted:
                parts.greeted.discard(producer)
                self._sockets.send(producer, wire.Welcome(ledger, position))
            else:
                self._sockets.send(producer, wire.Ack(ledger, position))

    def _wait_s(self) -> float:
        parts, now_s = self._parts, time.monotonic()
        waits = [TURN_S_MAX, parts.shipping.left_s(), parts.flushing.left_s(now_s)]
        if self._recovery.is_resting:
            waits.append(self._recovery.left_s)
        else:
            waits.append(parts.adoption.left_s(now_s))
            if parts.reception.gathered_since_s is not None:
                waits.append(parts.reception.gathered_since_s + GATHER_S - now_s)
        return max(0.0, min(waits))

    # --- Messages ---

    def _take_frames(self) -> None:
        for data in self._sockets.frames():
            try:
                frame = wire.decode_frame(data)
            except wire.WireError as error:
                self._parts.reception.refuse(str(error))
                continue
            self._parts.hear(frame.producer)
            reply = self._parts.reception.take_frame(frame)
            if reply is not None:
                self._sockets.send(frame.producer, reply)

    def _take_control(self) -> None:
        for identity, data in self._sockets.messages():
            try:
                message = wire.decode_message(data)
            except wire.WireError as error:
                self._parts.reception.refuse(str(error))
                continue
            self._send(self._parts.answer(identity, message))

    def _send(self, answers: list[tuple[bytes, wire.Message]]) -> None:
        for identity, message in answers:
            self._sockets.send(identity, message)

    # --- Signals and the end ---

    def _install_signals(self) -> None:
        signal.set_wakeup_fd(self._sockets.signal_fd, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _note)

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
            log.info("collector_stopping", extra={"drain_timeout_s": self._drain_timeout_s})

    def _is_done(self) -> bool:
        since_s = self._stopping_since_s
        if since_s is None:
            return False
        parts, elapsed_s = self._parts, time.monotonic() - since_s
        if self._is_hurried or elapsed_s >= max(STOP_S, self._drain_timeout_s):
            return True
        is_drained = elapsed_s >= self._drain_timeout_s or parts.is_drained()
        return is_drained and not parts.shipping.in_flight and not parts.reception.gathered_bytes

    def _reload(self) -> None:
        try:
            settings = self._reload_settings()
            self._parts.use(settings)
        except (ValueError, LedgerError) as error:
            log.error("settings_not_reloaded", extra={"reason": str(error)})  # noqa: TRY400
        else:
            log.info("settings_reloaded")

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._sockets.close()
        self._parts.close()
        self._opened.close()
        log.info("collector_stopped", extra={"pid": os.getpid()})


def _note(number: int, _frame: object) -> None:
    """Do nothing: the wakeup descriptor has carried the signal's number to the loop already."""
