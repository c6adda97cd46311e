"""The courier in trouble and at its end: nothing is lost, nobody is held up, and all of it arrives."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq

from settle_mp import Settle
from settle_mp.core import wire
from settle_mp.statedir import StateDir
from settle_mp.worker import courier as couriers
from settle_mp.worker import hellos
from tests.upstreams import wait_until
from tests.worker import children, reading
from tests.worker.couriers import (
    LARGE,
    courier_of,
    honest_collector,
    journal_of,
    names,
    settle_down,
    track,
)
from tests.worker.fake_collector import DEADLINE_S, FakeCollector, events, users

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector(state_dir: Path) -> Iterator[FakeCollector]:
    """Make a collector in the test's hands."""
    with honest_collector(state_dir) as collector:
        yield collector


# --- Trouble ---


def test_garbage_from_the_collector_is_ignored(
    client: Settle, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 3 of the courier: whatever comes in, it goes on, and knows no less than before."""
    track(client, "one")
    hello = collector.hear(wire.Hello)
    whole = wire.encode_message(wire.Welcome(collector.ledger, 0, is_seen=True))
    for data in (b"", b"\x00", b"\xc1" * 100, whole[:-1], whole + b"x", os.urandom(5000), b"\x91" * 2000):
        collector.say_bytes(hello.producer, data)
    collector.say_bytes(
        hello.producer, wire.encode_message(wire.Hello(bytes(16), 0, bytes(4096), is_volatile=False))
    )
    collector.say(hello.producer, wire.Flushed(99, 1, 1, 1, "nobody asked"))
    collector.say(hello.producer, wire.AskPosition(5))
    assert collector.hear(wire.Position).request == 5, "it has read all that came before"
    assert not collector.has_frame(0.05)
    collector.welcome(hello)
    assert users(collector.take()) == ["one"]
    assert caplog.records == []


def test_an_error_in_the_courier_is_told_and_begun_anew(
    client: Settle,
    collector: FakeCollector,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rule 3 of the courier: whatever goes wrong is kept from the application, and everything arrives."""
    encode, failures = wire.encode_frame, [MemoryError("none left"), OSError("no"), ValueError("odd")]

    def failing(frame: wire.Frame) -> bytes:
        if failures:
            raise failures.pop()
        return encode(frame)

    monkeypatch.setattr(couriers, "PAUSE_S", 0.01)
    monkeypatch.setattr(wire, "encode_frame", failing)
    with collector.serving():
        track(client, *names(3))
        assert client.events.flush(timeout=DEADLINE_S)
        wait_until(lambda: collector.users() == names(3), "everything is taken")
    assert failures == []
    assert [record.message for record in caplog.records] == ["courier_failed"]


def test_a_collector_that_is_not_there_is_told(
    client: Settle,
    collector: FakeCollector,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once, with where it should be and what to do; nothing is lost, and it arrives when there is one."""
    monkeypatch.setattr(hellos, "HELLO_S", 0.01)
    monkeypatch.setattr(hellos, "HELLO_S_MAX", 0.02)
    collector.stop()
    track(client, "early")
    wait_until(lambda: caplog.records, "it is told")
    (record,) = caplog.records
    assert (record.message, record.levelno) == ("collector_not_heard", logging.WARNING)
    assert str(StateDir(client._settings.state_dir).control_socket) in vars(record)["reason"]
    assert "settle-mp collector" in vars(record)["mend"]
    collector.start()
    with collector.serving():
        assert client.events.flush(timeout=DEADLINE_S)
    assert collector.users() == ["early"]


def test_a_connection_that_somebody_took_over_is_made_anew(
    client: Settle, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 2 of the courier: whoever greets under its name gets its answers, but not for ever."""
    monkeypatch.setattr(hellos, "HELLO_S", 0.05)
    frame = settle_down(client, collector)
    with zmq.Context() as context, context.socket(zmq.DEALER) as impostor:
        impostor.setsockopt(zmq.LINGER, 0)
        impostor.setsockopt(zmq.IDENTITY, frame.producer)
        impostor.connect(f"ipc://{StateDir(client._settings.state_dir).control_socket}")
        impostor.send(wire.encode_message(wire.Ping()))
        collector.hear(wire.Ping)
    with collector.serving():
        track(client, "second")
        assert client.events.flush(timeout=DEADLINE_S)
    assert collector.users() == ["second"]


def test_a_collector_that_is_killed_again_and_again_gets_everything_once(
    client: Settle, collector: FakeCollector
) -> None:
    """Promise 1: frames on their way are lost with its sockets, and come again by their positions."""
    expected: list[str] = []
    for life in range(4):
        with collector.serving():
            batch = names(50, f"life{life}")
            track(client, *batch, metadata=LARGE)
            expected += batch
            half = len(expected) // 2
            wait_until(partial(_has_taken, collector, half), "some are taken")
        collector.stop()
        track(client, f"between_{life}")
        expected.append(f"between_{life}")
        collector.start()
    with collector.serving():
        courier_of(client)._hellos.hurry(time.monotonic())
        wait_until(partial(_has_taken, collector, len(expected)), "everything is taken")
        assert client.events.flush(timeout=DEADLINE_S)
    assert collector.users() == sorted(expected)


def _has_taken(collector: FakeCollector, count: int) -> bool:
    return len(collector.events) >= count


def ship_with_few_descriptors(state_dir: Path, free_count: int) -> list[str]:
    """Track, start the courier with so many free descriptors, and then give all of them back."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("settle_mp").addHandler(handler)
    client = Settle(state_dir=state_dir)
    client.close(timeout=0)
    track(client, "one")
    highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for descriptor in taken[:free_count]:
        os.close(descriptor)
    assert not client.events.flush(timeout=0.1)
    track(client, "two")
    wait_until(lambda: "courier_waits" in told, "the courier has noticed")
    for descriptor in taken[free_count:]:
        os.close(descriptor)
    assert client.events.flush(timeout=DEADLINE_S)
    return told


@pytest.mark.parametrize("free_count", [0, 2, 4, 9, 15])
def test_a_worker_without_descriptors_lives(
    state_dir: Path, collector: FakeCollector, free_count: int
) -> None:
    """Rule C1: libzmq would abort it; the courier waits, says so, ships later."""
    with collector.serving():
        told = children.run(ship_with_few_descriptors, state_dir, free_count)
        assert collector.users() == ["one", "two"]
    assert told.count("courier_waits") == 1


# --- Flushes ---


def test_a_flush_is_answered_and_only_then_true(client: Settle, collector: FakeCollector) -> None:
    """The question carries the position of everything tracked before; the collector's word is reported."""
    settle_down(client, collector)
    track(client, "two")
    reports = []
    thread = threading.Thread(target=lambda: reports.append(client.events.flush(timeout=DEADLINE_S)))
    thread.start()
    flush = collector.hear(wire.Flush)
    assert flush.position == journal_of(client).tail
    assert 0 < flush.timeout_s <= DEADLINE_S
    again = collector.hear(wire.Flush)
    assert (again.ticket, again.position) == (flush.ticket, flush.position)
    assert reports == []
    collector.say(flush.producer, wire.Flushed(flush.ticket, 2, 0, 0, ""))
    thread.join(DEADLINE_S)
    (report,) = reports
    assert report
    assert (report.confirmed_count, report.unconfirmed_count) == (2, 0)


def test_a_flush_ends_at_its_deadline_and_a_late_answer_is_harmless(
    client: Settle, collector: FakeCollector
) -> None:
    """Falsy with the reason; the answer that comes too late is for nobody; the next flush has its own."""
    settle_down(client, collector)
    track(client, "two")
    report = client.events.flush(timeout=0.2)
    assert not report
    assert report.unconfirmed_count == 2
    assert report.reason
    late = collector.hear(wire.Flush)
    collector.say(late.producer, wire.Flushed(late.ticket, 2, 0, 0, ""))
    collector.say(late.producer, wire.Flushed(late.ticket, 2, 0, 0, ""))
    with collector.serving():
        report = client.events.flush(timeout=DEADLINE_S)
    assert report
    assert report.confirmed_count == 2


def test_a_flush_finds_the_collector_that_came_back(client: Settle, collector: FakeCollector) -> None:
    """Asked of one that died, it is asked again of the next."""
    settle_down(client, collector)
    track(client, "two")
    reports = []
    thread = threading.Thread(target=lambda: reports.append(client.events.flush(timeout=DEADLINE_S)))
    thread.start()
    heard = collector.hear(wire.Flush)
    collector.positions[heard.producer] = journal_of(client).committed
    collector.stop()
    collector.start()
    with collector.serving():
        thread.join(DEADLINE_S)
    assert [bool(report) for report in reports] == [True]
    assert collector.users() == ["two"]


# --- The end ---


def test_closing_hands_everything_over(client: Settle, collector: FakeCollector) -> None:
    """After a close in good time the collector has it all, and was told goodbye; a second does nothing."""
    with collector.serving():
        track(client, *names(100), metadata=LARGE)
        client.close(timeout=DEADLINE_S)
        assert collector.users() == names(100)
        assert not courier_of(client).is_running
        client.close()
        client.close(timeout=0)
        wait_until(
            lambda: any(isinstance(each, wire.Goodbye) for each in collector.messages), "a goodbye comes"
        )
    (goodbye,) = [each for each in collector.messages if isinstance(each, wire.Goodbye)]
    assert goodbye.position == journal_of(client).tail
    assert (goodbye.dropped_count, goodbye.dropped_quantity) == (0, "0")


def test_closing_waits_for_the_acknowledgement(client: Settle, collector: FakeCollector) -> None:
    """A frame that was sent is not delivered: only an ack ends the handing over before its time is up."""
    track(client, "one")
    hello = collector.hear(wire.Hello)
    closing = threading.Thread(target=client.close, args=(DEADLINE_S,))
    closing.start()
    collector.welcome(hello)
    frame = collector.take()
    closing.join(0.2)
    assert closing.is_alive()
    collector.ack(frame)
    collector.hear(wire.Goodbye)
    closing.join(DEADLINE_S)
    assert not closing.is_alive()
    assert client.events.pending_count == 0


def test_closing_waits_for_nobody_for_long(client: Settle, collector: FakeCollector) -> None:
    """A collector that takes and never acknowledges holds nobody up; the journal has what it has not."""
    track(client, "one")
    collector.welcome(collector.hear(wire.Hello))
    collector.take()
    for timeout_s in (0.2, 0):
        started_s = time.monotonic()
        client.close(timeout=timeout_s)
        assert time.monotonic() - started_s < DEADLINE_S
    wait_until(lambda: not courier_of(client).is_running, "the courier has ended")
    assert reading.users(reading.only_journal(client._settings.state_dir)) == ["one"]


def test_after_closing_events_are_journaled_and_a_flush_ships_them(
    client: Settle, collector: FakeCollector
) -> None:
    """`track()` works on; the courier comes back only when somebody asks for it."""
    with collector.serving():
        track(client, "one")
        client.close(timeout=DEADLINE_S)
        track(client, "two")
        assert not courier_of(client).is_running
        assert reading.users(reading.only_journal(client._settings.state_dir)) == ["one", "two"]
        assert client.events.flush(timeout=DEADLINE_S)
        assert collector.users() == ["one", "two"]


ENDING = """
import sys
from settle_mp import Settle
settle = Settle()
settle.events.track("user", "CALL")
print("tracked", flush=True)
sys.exit(5)
"""


@pytest.mark.parametrize("is_there", [True, False])
def test_a_process_ends_by_itself(state_dir: Path, *, is_there: bool) -> None:
    """Nobody hangs at exit, nothing is printed, the exit code stays; what was tracked is there or taken."""
    with contextlib.ExitStack() as stack:
        collector = FakeCollector(state_dir) if is_there else None
        if collector is not None:
            stack.enter_context(collector)
            stack.enter_context(collector.serving())
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", ENDING],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "SETTLE_MP_STATE_DIR": str(state_dir)},
        )
        assert (done.returncode, done.stdout, done.stderr) == (5, "tracked\n", "")
        if collector is not None:
            assert collector.users() == ["user"]
    assert reading.all_users(state_dir) == ["user"]


def test_an_event_arrives_as_it_was_tracked(client: Settle, collector: FakeCollector) -> None:
    """Nothing is changed on the way: user, type, quantity and metadata."""
    client.events.track("user", "TOKENS", quantity=1.5, metadata={"model": "small"})
    collector.welcome(collector.hear(wire.Hello))
    (event,) = events(collector.take())
    assert (event.user_id, event.event_type, str(event.quantity)) == ("user", "TOKENS", "1.5")
