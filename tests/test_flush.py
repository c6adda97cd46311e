"""flush() from end to end: real workers, a real collector, an upstream that answers when the test lets it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

import pytest
import zmq

from settle_mp import Settle, transport
from settle_mp.core import wire
from settle_mp.sandbox.faults import Fault
from tests.collectors import worker
from tests.hosts import host
from tests.upstreams import upstream, wait_until
from tests.worker.fake_collector import FakeCollector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.collectors import Worker
    from tests.hosts import Host

__all__ = ["host", "upstream"]


def wait_committed(*workers: Worker) -> None:
    """Wait until the collector has everything that these workers have tracked."""
    wait_until(lambda: not any(each.pending_count for each in workers), "everything is committed", 60.0)


# --- Truthy: the upstream has answered 2xx for all of it ---


def test_it_waits_for_the_upstreams_answer(host: Host) -> None:
    """As long as the upstream withholds its 2xx, flush() waits; with it, everything is confirmed."""
    host.collector()
    with worker(host) as ada:
        host.upstream.hold()
        ada.track(3)
        flushing = ada.ask("flush", 60.0)
        host.upstream.wait_held(1)
        assert flushing.is_waiting
        host.upstream.release()
        flushed = flushing.wait()
        assert (flushed.is_ok, flushed.confirmed_count, flushed.unconfirmed_count) == (True, 3, 0)
        assert host.upstream.quantity() == 3


def test_it_waits_for_every_batch(host: Host) -> None:
    """One batch that the upstream keeps back keeps the flush, whatever became of the others."""
    host.collector(SETTLE_MP_BATCH_ROWS_MAX="1", SETTLE_MP_FLUSH_INTERVAL_S="600")
    with worker(host) as ada:
        host.upstream.hold(user_id="late")
        for user in ("soon", "late", "soon_too"):
            ada.track(1, user)
        flushing = ada.ask("flush", 60.0)
        host.upstream.wait_held(1)
        wait_until(lambda: len(host.upstream.rows()) == 3, "all rows are applied")
        wait_until(lambda: host.status()["events"]["confirmed"] == 2, "two of three are confirmed")
        assert flushing.is_waiting
        host.upstream.release()
        assert flushing.wait().is_ok


def test_it_does_not_wait_for_what_comes_later(host: Host) -> None:
    """Another worker's later events, whose request hangs, are not this flush's."""
    host.collector()
    with worker(host) as ada, worker(host) as bob:
        ada.track(1, "ada")
        wait_committed(ada)
        wait_until(lambda: host.status()["events"]["confirmed"] == 1, "ada's event is confirmed")
        host.upstream.hold(user_id="bob")
        bob.track(1, "bob")
        host.upstream.wait_held(1)
        flushed = ada.flush()
        assert (flushed.is_ok, flushed.confirmed_count) == (True, 1)
        host.upstream.release()


class Gate:
    """Stands between couriers and collector where frames go, and lets them through when it is told to."""

    def __init__(self, host: Host) -> None:
        self.endpoint = f"ipc://{host.state_dir}/gate"
        self._frames = f"ipc://{host.state_dir}/frames"
        (host.state_dir / "gate.control").symlink_to(host.state_dir / "control")
        self._is_open = threading.Event()
        self._is_over = threading.Event()
        self.held_count = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def open(self) -> None:
        """Let everything through, in order."""
        self._is_open.set()

    def close(self) -> None:
        """End."""
        self._is_over.set()
        self._is_open.set()
        self._thread.join()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        pull = transport.pull_socket(context)
        transport.bind(pull, self.endpoint)
        push = transport.push_socket(context, self._frames)
        while not self._is_over.is_set():
            if pull.poll(20):
                frame = pull.recv()
                self.held_count += 1
                self._is_open.wait()
                push.send(frame)
        context.destroy(linger=0)


@pytest.fixture
def gate(host: Host) -> Iterator[Gate]:
    """A gate for the frames of a host's workers."""
    made = Gate(host)
    yield made
    made.close()


def test_a_question_that_overtakes_the_events_waits_for_them(host: Host, gate: Gate) -> None:
    """PUSH and control are two connections: a flush that comes first waits for its events' position."""
    host.collector()
    with worker(host, SETTLE_MP_ENDPOINT=gate.endpoint) as ada:
        ada.track(3)
        wait_until(lambda: gate.held_count, "the frame is held back")
        flushed = ada.flush_in_vain(1.0)
        # The collector's own words: the question has come, the events have not.
        assert flushed.reason == "the collector has not read it all yet"
        assert (flushed.is_ok, flushed.confirmed_count, flushed.unconfirmed_count) == (False, 0, 3)
        assert host.upstream.requests_count == 0
        flushing = ada.ask("flush", 60.0)
        gate.open()
        flushed = flushing.wait()
        assert (flushed.is_ok, flushed.confirmed_count) == (True, 3)
        assert host.upstream.quantity() == 3


# --- Falsy at its deadline: the reason is named, and the events are still there ---


def test_with_the_upstream_down_it_ends_at_its_deadline(host: Host) -> None:
    """Falsy with what is wrong upstream; later, everything is confirmed once."""
    host.collector()
    host.upstream.stop()
    with worker(host) as ada:
        ada.track(3)
        wait_committed(ada)
        started_s = time.monotonic()
        flushed = ada.flush_in_vain(1.5)
        assert time.monotonic() - started_s > 1.3
        assert (flushed.is_ok, flushed.confirmed_count, flushed.unconfirmed_count) == (False, 0, 3)
        assert "the upstream is down" in str(flushed.reason)
        host.upstream.start()
        ada.track(1)
        flushed = ada.flush()
        assert (flushed.is_ok, flushed.confirmed_count) == (True, 4)
    assert host.upstream.quantity() == 4


def test_with_no_collector_it_ends_at_its_deadline(host: Host) -> None:
    """Falsy, the collector named; once one runs, everything is confirmed."""
    with worker(host) as ada:
        ada.track(3)
        flushed = ada.flush(0.5)
        assert (flushed.is_ok, flushed.unconfirmed_count) == (False, 3)
        assert flushed.reason == "the collector has not answered"
        assert ada.pending_count == 3
        host.collector()
        flushed = ada.flush()
        assert (flushed.is_ok, flushed.confirmed_count) == (True, 3)
    assert host.upstream.quantity() == 3


def test_no_time_only_asks(host: Host) -> None:
    """flush(0) does not wait, and says what it finds."""
    host.collector()
    with worker(host) as ada:
        ada.track(1)
        host.upstream.hold()
        assert not ada.flush(0).is_ok
        host.upstream.release()
        assert ada.flush().is_ok
        assert ada.flush(0).is_ok


def test_a_restart_under_a_waiting_flush_answers_it(host: Host) -> None:
    """The collector dies while the upstream holds its answer; the next one settles batch and flush."""
    collector = host.collector()
    with worker(host) as ada:
        host.upstream.hold()
        ada.track(3)
        flushing = ada.ask("flush", 60.0)
        host.upstream.wait_held(1)
        collector.kill_group()
        assert flushing.is_waiting
        host.upstream.release()
        host.collector()
        flushed = flushing.wait()
        assert (flushed.is_ok, flushed.confirmed_count) == (True, 3)
    assert host.upstream.quantity() == 3
    assert len({each["idempotencyKey"] for each in host.upstream.log()}) == 1


# --- Refused, held, dropped: told once, at once ---


def test_a_refused_event_is_told_once(host: Host) -> None:
    """The first flush is falsy at once with the upstream's reason, the next is about later events."""
    host.collector()
    host.upstream.fault(Fault.refuse("mallory"))
    with worker(host) as ada:
        ada.track(1, "ada")
        ada.track(1, "mallory")
        flushed = ada.flush(60.0)
        assert not flushed.is_ok
        assert "refused by the upstream" in str(flushed.reason)
        assert flushed.unconfirmed_count >= 1
        flushed = ada.flush(60.0)
        assert flushed.is_ok
        ada.track(1, "ada")
        assert ada.flush(60.0).is_ok
    books = host.status()
    assert (books["events"]["confirmed"], books["events"]["dead_lettered"]) == (2, 1)
    assert books["balanced"]
    assert host.upstream.quantity() == 2


def test_an_event_that_no_rule_can_take_is_told_once(host: Host) -> None:
    """What the collector itself refuses, here a field to be summed that is no number, is told like that."""
    (host.state_dir / "settle-mp.toml").write_text('[events.AI_QUERY]\nsum = ["tokens"]\n')
    host.collector()
    with worker(host) as ada:
        ada.track(2, "ada", "AI_QUERY", 1, {"tokens": 7})
        ada.track(1, "ada", "AI_QUERY", 1, {"tokens": "many"})
        flushed = ada.flush(60.0)
        assert (flushed.is_ok, flushed.unconfirmed_count >= 1) == (False, True)
        assert "tokens" in str(flushed.reason)
        assert ada.flush(60.0).is_ok
    assert host.upstream.quantity() == 2


def test_a_held_event_is_told_once(host: Host) -> None:
    """With on_in_doubt = hold, what may have been applied ends the first flush; a person decides."""
    host.collector(SETTLE_MP_ON_IN_DOUBT="hold")
    host.upstream.fault(Fault.answering(500))
    with worker(host) as ada:
        ada.track(2)
        flushed = ada.flush(60.0)
        assert (flushed.is_ok, flushed.confirmed_count, flushed.unconfirmed_count) == (False, 0, 2)
        assert "held" in str(flushed.reason)
        assert ada.flush(60.0).is_ok
        ada.track(1)
        flushed = ada.flush(60.0)
        assert (flushed.is_ok, flushed.confirmed_count) == (True, 1)
    assert host.status()["events"]["in_doubt"] == 2


def test_dropped_events_are_told_once(host: Host) -> None:
    """What a bound of the journal refused, or a check of track(), makes one flush falsy."""
    with worker(host, SETTLE_MP_ON_INVALID="count", SETTLE_MP_JOURNAL_BYTES_MAX="131072") as ada:
        ada.track(1)
        ada.track(2, "ada", "AI_QUERY", -1)
        host.collector()
        flushed = ada.flush(60.0)
        assert (flushed.is_ok, flushed.confirmed_count, flushed.unconfirmed_count) == (False, 1, 2)
        assert flushed.reason == "2 events were dropped"
        flushed = ada.flush(60.0)
        assert (flushed.is_ok, flushed.unconfirmed_count) == (True, 0)
    assert host.status()["events"]["dropped"] == 2


def test_each_worker_of_a_failed_batch_is_told_once(host: Host) -> None:
    """A row is the sum of several workers' events: each of them hears of its refusal, and each one time."""
    host.collector(SETTLE_MP_FLUSH_INTERVAL_S="600")
    host.upstream.fault(Fault.refuse("mallory"))
    with worker(host) as ada, worker(host) as bob, worker(host) as cy:
        for each in (ada, bob, cy):
            each.track(1, "ada")
            each.track(1, "mallory")
        wait_committed(ada, bob, cy)
        asked = [each.ask("flush", 60.0) for each in (ada, bob, cy)]
        assert [ask.wait().is_ok for ask in asked] == [False, False, False]
        assert [each.flush(60.0).is_ok for each in (ada, bob, cy)] == [True, True, True]
    assert host.upstream.quantity() == 3
    assert host.status()["events"]["dead_lettered"] == 3


def test_a_failure_outlives_the_collector(host: Host) -> None:
    """What failed before a restart is told after it."""
    collector = host.collector()
    host.upstream.fault(Fault.refuse("mallory"))
    with worker(host) as ada:
        ada.track(1, "mallory")
        wait_until(lambda: host.status()["events"]["dead_lettered"] == 1, "the event is dead-lettered")
        collector.kill_group()
        host.collector()
        assert not ada.flush(60.0).is_ok
        assert ada.flush(60.0).is_ok


# --- Answers that come too late, or count too much ---


@contextlib.contextmanager
def settle(state_dir: Path) -> Iterator[Settle]:
    """A client in this process."""
    with Settle(state_dir=state_dir) as made:
        yield made


def test_a_failure_that_is_told_too_late_is_told_by_the_next_flush(state_dir: Path) -> None:
    """The answer came when its flush had given up: the failure must not pass for confirmed."""
    with FakeCollector(state_dir) as collector, settle(state_dir) as client:
        asked: list[wire.Flush] = []
        collector.flushed = asked.append
        with collector.serving():
            client.events.track("ada", "AI_QUERY")
            client.events.track("ada", "AI_QUERY")
            assert not client.events.flush(timeout=0.2)
        collector.say(asked[0].producer, wire.Flushed(asked[0].ticket, 0, 1, 1, "refused: mallory"))
        collector.flushed = lambda flush: wire.Flushed(flush.ticket, 0, 0, 0, "")
        producer = client.events._producer
        life = producer._mine()
        assert life is not None
        with collector.serving():
            wait_until(lambda: life._late, "the late answer is heard")
            report = client.events.flush(timeout=20)
            assert (bool(report), report.reason) == (False, "refused: mallory")
            report = client.events.flush(timeout=20)
            assert (bool(report), report.confirmed_count) == (True, 1)


def test_a_failure_counted_too_high_does_not_pass_for_a_confirmation(state_dir: Path) -> None:
    """All events in scope were told as failed, some of others among them: what still waits is asked about."""
    with FakeCollector(state_dir) as collector, settle(state_dir) as client, collector.serving():
        answers = [(3, 2, "refused"), (1, 0, "not yet"), (0, 0, "")]
        collector.flushed = lambda flush: wire.Flushed(flush.ticket, 0, *answers.pop(0))
        client.events.track("ada", "AI_QUERY")
        client.events.track("ada", "AI_QUERY")
        assert [bool(client.events.flush(timeout=20)) for _ in range(4)] == [False, False, True, True]
        assert answers == []
