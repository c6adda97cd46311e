"""The gate: who comes in over tcp, and that nobody else's bytes are ever a message."""

from __future__ import annotations

import logging
import os
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from settle_mp import keys, transport
from settle_mp.collector.sockets import Sockets
from settle_mp.config import load
from settle_mp.endpoints import Endpoints, of_client, of_collector
from tests.sockets import KeepingContext, free_ports
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import zmq

    Context = zmq.Context[zmq.Socket[bytes]]


class Guarded:
    """A collector's sockets over tcp, turned by a thread, and what they heard."""

    def __init__(self, state_dir: Path) -> None:
        keys.make(state_dir / "keys")
        self.keys = state_dir / "keys"
        self.settings = load(state_dir=state_dir, endpoint=f"tcp://127.0.0.1:{free_ports()}", environ={})
        self.heard: list[bytes] = []
        self._wake = os.pipe()
        self.sockets = Sockets(of_collector(self.settings), self._wake[0], keys.admitted(self.keys))
        self.sockets.open()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def worker(self) -> Endpoints:
        """Where a worker with the right keys goes."""
        return of_client(self.settings)

    def _serve(self) -> None:
        while not self._is_over.is_set():
            if self.sockets.poll(0.02).frames:
                self.heard += self.sockets.frames()

    def close(self) -> None:
        """Stop."""
        self._is_over.set()
        self._thread.join()
        self.sockets.close()
        for each in self._wake:
            os.close(each)


@pytest.fixture
def guarded(state_dir: Path) -> Iterator[Guarded]:
    """Listen."""
    made = Guarded(state_dir)
    yield made
    made.close()


@pytest.fixture
def context() -> Iterator[Context]:
    """Make the other side's context."""
    made = KeepingContext()
    yield made
    made.destroy(linger=0)
    KeepingContext.kept.clear()


def test_who_has_the_keys_comes_in(guarded: Guarded, context: Context) -> None:
    """What a worker says arrives."""
    push = transport.push_socket(context, guarded.worker.frames, guarded.worker.curve)
    push.send(b"a frame")
    wait_until(lambda: guarded.heard == [b"a frame"], "it arrives")


def test_strangers_stay_outside(
    guarded: Guarded, context: Context, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Trap 7: neither without keys, nor with others, nor with plain bytes; who has other keys is logged."""
    caplog.set_level(logging.WARNING, "settle_mp")
    keys.make(state_dir / "others")
    others, address = keys.of_worker(state_dir / "others"), guarded.worker.frames
    assert others is not None
    assert guarded.worker.curve is not None
    stranger = replace(others, collector=guarded.worker.curve.collector)
    deceived = replace(guarded.worker.curve, collector=others.collector)
    for curve in (None, stranger, deceived):
        transport.push_socket(context, address, curve).send(b"let me in")
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as plain:
        plain.sendall(b"\x01\x00\x09let me in")
        # Once this one is heard, all before it had their chance.
        wait_until(lambda: "stranger_turned_away" in caplog.text, "the stranger is turned away")
        push = transport.push_socket(context, address, guarded.worker.curve)
        push.send(b"a frame")
        wait_until(lambda: guarded.heard, "the worker is heard")
    assert guarded.heard == [b"a frame"]
    (record,) = [each for each in caplog.records if each.message == "stranger_turned_away"]
    assert record.__dict__["public_key"] == others.public
    assert others.secret.reveal() not in str(record.__dict__)


def test_who_is_admitted_later_comes_in_by_itself(guarded: Guarded, context: Context) -> None:
    """A worker that was turned away goes on asking: no restart is needed once its key is there."""
    keys.add_worker(guarded.keys, "late")
    (guarded.keys / "late.secret").rename(guarded.keys / keys.WORKER_SECRET)
    late = guarded.worker
    push = transport.push_socket(context, late.frames, late.curve)
    push.send(b"a frame")
    gate = guarded.sockets._gate
    assert gate is not None
    wait_until(lambda: gate.turned_away_count >= 2, "it asks again")
    guarded.sockets.admit(keys.admitted(guarded.keys))
    wait_until(lambda: guarded.heard == [b"a frame"], "it is heard")


def test_what_is_no_question_is_no_end(guarded: Guarded) -> None:
    """The handler answers whatever comes: libzmq would wait for ever."""
    gate = guarded.sockets._gate
    assert gate is not None
    for question in ([], [b"1.0"], [b"2.0", b"7", b"", b"", b"", b"CURVE", bytes(32)], [b""] * 7):
        assert gate._answer(question)[2] == b"300"
    assert gate._answer([b"1.0", b"7", b"d", b"1.2.3.4", b"", b"PLAIN", b"user"])[:3] == [
        b"1.0",
        b"7",
        b"300",
    ]
