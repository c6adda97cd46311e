"""Who may talk to the collector over tcp: the ZAP handler (ZeroMQ RFC 27) of the sockets' context.

libzmq asks it about each new connection, in messages that the collector's own loop answers: a thread for
them would be one more to end, and the loop is never busy for as long as a handshake may take.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import zmq
from zmq.utils import z85

from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Collection

log: Final = logging.getLogger("settle_mp")

#: Where libzmq asks; the name is the protocol's.
ADDRESS: Final = "inproc://zeromq.zap.01"
#: Questions answered in one turn.
QUESTIONS_MAX: Final = 1_000
#: Different strangers that are logged in one process life at most.
STRANGERS_MAX: Final = 100

_VERSION: Final = b"1.0"
_QUESTION_PARTS: Final = 7
_YES: Final = b"200"
#: "Later", not "no" (400): after a "no" libzmq's client never asks again, and its key may be admitted soon.
_NOT_NOW: Final = b"300"


class Gate:
    """Answers for one context. To be made before the sockets that it guards are bound.

    Attributes:
        socket: What the questions come in by; call `turn` when there are some.
        turned_away_count: How many connections were refused.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admitted: Collection[str]) -> None:
        self.socket: zmq.Socket[bytes] = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(ADDRESS)
        self.turned_away_count: int = 0
        self._admitted = frozenset(admitted)
        self._strangers: set[str] = set()

    def admit(self, admitted: Collection[str]) -> None:
        """Let these in from now on, and nobody else. Connections that stand go on."""
        self._admitted = frozenset(admitted)
        self._strangers.clear()

    def turn(self) -> None:
        """Answer the questions that have come."""
        for _ in range(QUESTIONS_MAX):
            try:
                question = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.socket.send_multipart(self._answer(question))

    def _answer(self, question: list[bytes]) -> list[bytes]:
        # version, request, domain, address, identity, mechanism, the client's public key
        request = question[1] if len(question) > 1 else b""
        is_curve = len(question) == _QUESTION_PARTS and question[0] == _VERSION and question[5] == b"CURVE"
        key = z85.encode(question[6]).decode() if is_curve else ""
        if is_curve and key in self._admitted:
            return [_VERSION, request, _YES, b"", key.encode(), b""]
        self._turn_away(key, question[3].decode(errors="replace") if is_curve else "")
        return [_VERSION, request, _NOT_NOW, b"not admitted", b"", b""]

    def _turn_away(self, key: str, address: str) -> None:
        self.turned_away_count += 1
        if key in self._strangers or len(self._strangers) >= STRANGERS_MAX:
            return
        self._strangers.add(key)
        log.warning(
            "stranger_turned_away",
            extra=notice(
                "stranger_turned_away",
                "its key is in none of the files workers/*.public of the collector's keys folder",
                address=address,
                public_key=key,
            ),
        )
