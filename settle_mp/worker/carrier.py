"""Carrying: how what a dead producer left comes to the collector, under the dead producer's name.

Rule 1: nothing is sent before the collector said from where, nor beyond the credit.
Rule 2: a loss is told only when everything before it is acked, and what stands behind it is sent only when
the loss is acked: frames and messages go by two connections, and one may overtake the other.
Rule 3: only the collector's farewell ends it; the journal may be removed then, and not before.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from settle_mp.core import wire
from settle_mp.worker.hellos import Hellos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from settle_mp.worker.link import Link
    from settle_mp.worker.remains import Remains

#: Unacked bytes that may be in flight.
CREDIT_BYTES: Final = 1024 * 1024
#: How long a collector may say nothing that leads on, in seconds; then the journal is left for later.
PATIENCE_S: Final = 30.0
#: How soon it is noticed that the process ends, in seconds.
STEP_S: Final = 0.1


class Carrier:
    """Carries one journal.

    Attributes:
        refusal: Why the collector does not take it; empty when it does.
    """

    def __init__(self, link: Link, remains: Remains) -> None:
        self.refusal: str = ""
        self._link = link
        self._remains = remains
        self._hellos = Hellos()
        self._pieces: Iterator[wire.Frame | wire.Lost] = iter(())
        self._next: wire.Frame | wire.Lost | None = None
        self._sent = self._acked = self._barrier = 0
        self._is_welcome = self._is_over = self._has_said_goodbye = False
        self._patient_until_s = 0.0

    def run(self, is_stopping: Callable[[], bool]) -> bool:
        """Carry it. Returns whether the collector has all of it, and needs it no more.

        Raises:
            OSError: The journal can't be read, or its header not be written.
        """
        self._patient_until_s = time.monotonic() + PATIENCE_S
        while not is_stopping() and not self.refusal:
            for message in self._link.heard():
                self._obey(message)
            now_s = time.monotonic()
            if self._is_over or now_s >= self._patient_until_s:
                return self._is_over
            if now_s >= self._hellos.next_s:
                self._greet(now_s)
            self._go_on()
            self._link.socket.poll(int(STEP_S * 1000))
        return False

    def _greet(self, now_s: float) -> None:
        """Whenever nothing comes for a while, ask anew where the collector stands."""
        remains = self._remains
        self._link.say(wire.Hello(remains.producer, remains.tail, remains.image, is_volatile=False))
        self._hellos.said(now_s)

    # --- Sending ---

    def _begin(self, position: int) -> None:
        if position < self._remains.committed:
            self.refusal = f"the collector asks for position {position}, which it has acknowledged before"
            return
        self._pieces = self._remains.pieces(position)
        self._next = next(self._pieces, None)
        self._sent = self._acked = self._barrier = position
        self._has_said_goodbye = False

    def _go_on(self) -> None:
        while self._is_welcome and self._next is not None and self._has_sent(self._next):
            self._next = next(self._pieces, None)
        is_at_end = self._is_welcome and self._next is None and self._acked >= self._sent
        if is_at_end and not self._has_said_goodbye:
            self._has_said_goodbye = True
            drops = self._remains.header.drops
            self._link.say(
                wire.Goodbye(
                    self._remains.producer,
                    self._sent,
                    drops.dropped_count,
                    drops.dropped_quantity,
                    is_over=True,
                )
            )

    def _has_sent(self, piece: wire.Frame | wire.Lost) -> bool:
        if self._acked < self._barrier:
            return False
        if isinstance(piece, wire.Lost):
            if self._acked < piece.start:
                return False
            self._link.say(piece)
            self._sent = self._barrier = piece.end
            return True
        if self._sent - self._acked + len(piece.body) > CREDIT_BYTES or not self._link.send(piece):
            return False
        self._sent = piece.last
        return True

    # --- Hearing ---

    def _obey(self, message: wire.Message) -> None:
        if isinstance(message, (wire.Welcome, wire.Ack)):
            self._commit(message.ledger, message.position)
            if isinstance(message, wire.Welcome):
                self._is_welcome = True
                self._begin(message.position)
        elif isinstance(message, wire.GoBack):
            self._begin(message.position)
        elif isinstance(message, wire.Refused):
            self.refusal = f"the collector refuses: {message.reason}"
        elif isinstance(message, wire.Farewell):
            self._is_over = True
        elif isinstance(message, wire.AskPosition):
            self._link.say(wire.Position(self._remains.producer, message.request, self._remains.tail))

    def _commit(self, ledger: bytes, position: int) -> None:
        now_s = time.monotonic()
        self._hellos.heard(now_s)
        if position > self._acked or not self._is_welcome:
            self._patient_until_s = now_s + PATIENCE_S
        self._acked = max(self._acked, position)
        if position > self._remains.committed or ledger != self._remains.ledger:
            self._remains.commit(ledger, position)
