"""Handing over ends when there is nothing to wait for, however long the caller would have waited."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from settle_mp import endpoints, transport
from settle_mp.endpoints import Endpoints
from settle_mp.statedir import StateDir
from settle_mp.worker.handover import HandOver
from tests.upstreams import wait_until
from tests.worker.couriers import courier_of, honest_collector, track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp import Settle

#: Nobody waits so long.
AN_HOUR_S = 3600.0


@dataclass
class Journal:
    """What handing over looks at."""

    tail: int = 100
    committed: int = 40
    is_volatile: bool = False


def hand_over(journal: Journal, collector: Endpoints, timeout_s: float = AN_HOUR_S) -> HandOver:
    """Begin to hand over."""
    return HandOver(journal, collector, timeout_s)  # type: ignore[arg-type]


@pytest.fixture
def nobody(state_dir: Path) -> Endpoints:
    """Make addresses where nobody listens."""
    return endpoints.parse(StateDir(state_dir), None)


@pytest.fixture
def somebody(nobody: Endpoints) -> Iterator[Endpoints]:
    """Listen at the same addresses."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(nobody.control.removeprefix("ipc://"))
        listener.listen()
        yield nobody


def test_nobody_is_not_waited_for(nobody: Endpoints) -> None:
    """With no collector the journal keeps everything, and the process ends at once."""
    assert hand_over(Journal(), nobody).is_over


def test_somebody_is_waited_for_until_all_is_committed_or_the_time_is_up(
    somebody: Endpoints,
) -> None:
    """What is in the journal at the call is handed over; what is tracked meanwhile is not waited for."""
    journal = Journal()
    begun = hand_over(journal, somebody)
    seen = [begun.is_over]
    for journal.tail, journal.committed in (200, 99), (200, 100):
        seen.append(begun.is_over)
    assert seen == [False, False, True]
    assert hand_over(journal, somebody, 0.0).is_over


def test_events_in_memory_get_all_the_time(nobody: Endpoints) -> None:
    """They die with the process, so a collector that may still come is worth waiting for."""
    assert not hand_over(Journal(is_volatile=True), nobody).is_over


def test_another_machine_can_not_be_asked(nobody: Endpoints) -> None:
    """Whether somebody listens beyond a network shows only when the answer comes."""
    there = Endpoints("tcp://127.0.0.1:9", "tcp://127.0.0.1:10")
    assert not hand_over(Journal(), there).is_over
    assert hand_over(Journal(), nobody).is_over


def test_without_a_descriptor_to_ask_with_it_waits(
    nobody: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not knowing is no reason to leave."""

    def fail(_: Path) -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(transport, "is_listening", fail)
    assert not hand_over(Journal(), nobody).is_over


def test_closing_waits_for_no_collector_that_is_not_there(client: Settle) -> None:
    """Whatever time it was given."""
    track(client, "one")
    client.close(timeout=AN_HOUR_S)
    wait_until(lambda: not courier_of(client).is_running, "the courier has ended")
    assert client.events.pending_count == 1


def test_closing_ends_while_another_thread_goes_on_tracking(client: Settle, state_dir: Path) -> None:
    """However fast it does: what it tracks from now on is read from the journal."""
    is_over = threading.Event()

    def go_on() -> None:
        while not is_over.is_set():
            track(client, "busy")

    with honest_collector(state_dir) as collector, collector.serving():
        thread = threading.Thread(target=go_on)
        track(client, "one")
        thread.start()
        try:
            client.close(timeout=AN_HOUR_S)
        finally:
            is_over.set()
            thread.join()
    wait_until(lambda: not courier_of(client).is_running, "the courier has ended")
    assert "one" in collector.users()
