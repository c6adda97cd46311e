"""The doorkeeper looks whenever somebody comes in, and holds up no end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import zmq

from settle_mp.collector import doorkeeper
from settle_mp.collector.doorkeeper import Doorkeeper
from tests.upstreams import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def door() -> Iterator[zmq.Socket[bytes]]:
    """A socket that will listen."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        yield socket


def come_in(door: zmq.Socket[bytes], folder: Path) -> zmq.Socket[bytes]:
    """Have the socket listen, and connect to it."""
    address = f"ipc://{folder}/frames"
    door.bind(address)
    visitor: zmq.Socket[bytes] = door.context.socket(zmq.PUSH)
    visitor.connect(address)
    return visitor


def test_it_looks_when_somebody_comes_in(door: zmq.Socket[bytes], tmp_path: Path) -> None:
    """In a thread of its own, which ends with it."""
    looked = threading.Event()
    keeper = Doorkeeper([door], looked.set)
    keeper.start()
    with come_in(door, tmp_path):
        assert looked.wait(DEADLINE_S)
        keeper.stop()
    assert not keeper._thread.is_alive()


def test_a_look_that_hangs_does_not_hold_up_the_end(
    door: zmq.Socket[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A collector that can't end would keep its successor out."""
    monkeypatch.setattr(doorkeeper, "END_S", 0.05)
    looking, may_return = threading.Event(), threading.Event()

    def look() -> None:
        looking.set()
        may_return.wait(DEADLINE_S)

    keeper = Doorkeeper([door], look)
    keeper.start()
    with come_in(door, tmp_path):
        assert looking.wait(DEADLINE_S)
        keeper.stop()
        assert keeper._thread.is_alive()
        may_return.set()
        keeper._thread.join(DEADLINE_S)
    assert not keeper._thread.is_alive()
