"""Delivery: every batch that was submitted comes back once, and nothing can hang or kill a sender."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from typing import TYPE_CHECKING

import pytest
import zmq

from settle_mp.collector.delivery import IN_FLIGHT_MAX, Completed, Delivery
from settle_mp.core.answer import BodyKind, Failure, NoReply, Reply
from settle_mp.core.secret import Secret
from settle_mp.upstream import Upstream
from tests.peer import PATIENCE_S, Call, Peer, answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from settle_mp.core.answer import Answer

    Start: TypeAlias = Callable[[Upstream | None], Delivery]

ACCEPTED = Reply(status=200, body_kind=BodyKind.JSON)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the proxies of whoever runs the tests."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def _upstream(url: str) -> Upstream:
    return Upstream(url, Secret("ss_test_key"), try_timeout_s=PATIENCE_S)


def _submit(delivery: Delivery, *batch_ids: int) -> None:
    for batch_id in batch_ids:
        delivery.submit(batch_id, idempotency_key=f"k{batch_id}", body=b'{"events": []}')


def _take(delivery: Delivery, count: int) -> dict[int, Completed]:
    """Wait as the poll loop does until so many have come back."""
    taken: dict[int, Completed] = {}
    deadline_s = time.monotonic() + PATIENCE_S
    while len(taken) < count:
        wait_s = deadline_s - time.monotonic()
        assert select.select([delivery.wake_fd], [], [], wait_s)[0], f"only {len(taken)} of {count} came back"
        for completed in delivery.take_completed():
            assert completed.batch_id not in taken
            taken[completed.batch_id] = completed
    return taken


class Gate:
    """A behaviour that answers when it is told to."""

    def __init__(self) -> None:
        self.opened = threading.Event()

    def __call__(self, call: Call) -> None:
        assert self.opened.wait(PATIENCE_S)
        call.answer(200)


class BrokenUpstream(Upstream):
    """An upstream with a defect: the first calls raise what they are told to."""

    def __init__(self, url: str, *errors: BaseException) -> None:
        super().__init__(url, Secret("ss_test_key"))
        self._errors = list(errors)

    def post_batch(self, *, idempotency_key: str, body: bytes) -> Answer:
        if self._errors:
            raise self._errors.pop(0)
        return super().post_batch(idempotency_key=idempotency_key, body=body)


@pytest.fixture
def start() -> Iterator[Start]:
    """Make deliveries that are closed at the end."""
    started: list[Delivery] = []

    def make(upstream: Upstream | None) -> Delivery:
        started.append(Delivery(upstream))
        return started[-1]

    yield make
    for delivery in started:
        assert delivery.close(PATIENCE_S)


def test_what_is_submitted_comes_back(start: Start) -> None:
    """With its answer, its id and the time that it took; the bytes and the key were sent as given."""
    with Peer(answers(200)) as peer:
        delivery = start(_upstream(peer.url))
        _submit(delivery, 7)
        assert delivery.in_flight_count == 1
        completed = _take(delivery, 1)[7]
        assert completed.answer == ACCEPTED
        assert 0 < completed.took_s < PATIENCE_S
        assert (delivery.in_flight_count, delivery.room_count) == (0, IN_FLIGHT_MAX)
        call = peer.calls.get(timeout=PATIENCE_S)
        assert (call.header("idempotency-key"), call.body) == ('"k7"', b'{"events": []}')


def test_a_few_are_in_flight_at_once_and_no_more(start: Start) -> None:
    """All of them are at the server before one is answered; one too many is the caller's mistake."""
    gate = Gate()
    with Peer(gate) as peer:
        delivery = start(_upstream(peer.url))
        _submit(delivery, *range(IN_FLIGHT_MAX))
        for _ in range(IN_FLIGHT_MAX):
            peer.calls.get(timeout=PATIENCE_S)
        assert delivery.room_count == 0
        with pytest.raises(RuntimeError, match="room"):
            _submit(delivery, 99)
        assert delivery.take_completed() == []
        gate.opened.set()
        assert set(_take(delivery, IN_FLIGHT_MAX)) == set(range(IN_FLIGHT_MAX))


def test_one_that_waits_lets_the_others_pass(start: Start) -> None:
    """A slow answer holds one sender; hundreds of others go by."""
    gate = Gate()

    def behave(call: Call) -> None:
        if call.header("idempotency-key") == '"k0"':
            gate(call)
        else:
            call.answer(200)

    with Peer(behave) as peer:
        delivery = start(_upstream(peer.url))
        _submit(delivery, 0)
        for number in range(1, 200):
            _submit(delivery, number)
            assert list(_take(delivery, 1)) == [number]
        assert delivery.in_flight_count == 1
        gate.opened.set()
        assert list(_take(delivery, 1)) == [0]


def test_a_completion_wakes_a_zmq_poller_once(start: Start) -> None:
    """The descriptor stands beside the sockets of the poll loop, and is quiet when all has been taken."""
    with Peer(answers(200)) as peer:
        delivery = start(_upstream(peer.url))
        poller = zmq.Poller()
        poller.register(delivery.wake_fd, zmq.POLLIN)
        assert poller.poll(0) == []
        _submit(delivery, 1)
        assert poller.poll(int(PATIENCE_S * 1000)) == [(delivery.wake_fd, zmq.POLLIN)]
        assert [completed.batch_id for completed in delivery.take_completed()] == [1]
        assert poller.poll(0) == []


def test_a_failure_is_an_answer(start: Start) -> None:
    """What goes wrong on the way comes back like anything else."""
    with Peer(Call.reset) as peer:
        delivery = start(_upstream(peer.url))
        _submit(delivery, 1)
        answer = _take(delivery, 1)[1].answer
    assert isinstance(answer, NoReply)
    assert answer.failure is Failure.SENT_THEN_RESET


def test_a_defect_kills_no_sender(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """More defects than senders: each comes back in doubt, is logged once a kind, and sending goes on."""
    caplog.set_level(logging.ERROR, logger="settle_mp")
    errors = [KeyError("ss_test_key")] * (IN_FLIGHT_MAX + 1) + [SystemExit(1)] * (IN_FLIGHT_MAX + 1)
    with Peer(answers(200)) as peer:
        delivery = start(BrokenUpstream(peer.url, *errors))
        for number in range(len(errors)):
            _submit(delivery, number)
            answer = _take(delivery, 1)[number].answer
            assert isinstance(answer, NoReply)
            assert answer.failure.is_maybe_applied
            assert type(errors[number]).__name__ in answer.detail
        _submit(delivery, 99)
        assert _take(delivery, 1)[99].answer == ACCEPTED
    assert [record.message for record in caplog.records] == ["delivery_defect"] * 2
    assert [vars(record)["error"] for record in caplog.records] == ["KeyError", "SystemExit"]
    assert "ss_test_key" not in repr([vars(record) for record in caplog.records])


def test_a_replaced_upstream_ends_what_it_began(start: Start) -> None:
    """SIGHUP with a new key: the old requests end where they were sent, new ones go to the new place."""
    gate = Gate()
    with Peer(gate) as old, Peer(answers(204, b"")) as new:
        delivery = start(_upstream(old.url))
        _submit(delivery, 1)
        old.calls.get(timeout=PATIENCE_S)
        delivery.replace_upstream(_upstream(new.url))
        _submit(delivery, 2)
        assert _take(delivery, 1)[2].answer == Reply(status=204, body_kind=BodyKind.EMPTY)
        gate.opened.set()
        assert _take(delivery, 1)[1].answer == ACCEPTED
        # The old one keeps no connection.
        old.ended.get(timeout=PATIENCE_S)


def test_without_an_upstream_there_is_no_room(start: Start) -> None:
    """A collector without a key collects; it sends when it gets one."""
    delivery = start(None)
    assert delivery.room_count == 0
    with pytest.raises(RuntimeError, match="room"):
        _submit(delivery, 1)
    with Peer(answers(200)) as peer:
        delivery.replace_upstream(_upstream(peer.url))
        _submit(delivery, 1)
        assert _take(delivery, 1)[1].answer == ACCEPTED


def test_closing_waits_for_what_is_in_flight(start: Start) -> None:
    """What ends within the timeout can still be taken, and is then not in doubt."""
    gate = Gate()
    with Peer(gate) as peer:
        delivery = start(_upstream(peer.url))
        _submit(delivery, 1)
        peer.calls.get(timeout=PATIENCE_S)
        threading.Timer(0.1, gate.opened.set).start()
        assert delivery.close(PATIENCE_S)
        assert [completed.answer for completed in delivery.take_completed()] == [ACCEPTED]
        assert delivery.room_count == 0
        with pytest.raises(RuntimeError, match="room"):
            _submit(delivery, 2)


def test_closing_does_not_wait_longer_than_it_may() -> None:
    """A hanging upstream does not hold the end up, and its late answer writes into nobody's descriptor."""
    # Any other thread of this process may have taken the number in between, and then it shows nothing.
    assert any(_is_number_taken_by_us() for _ in range(5))


def _is_number_taken_by_us() -> bool:
    """Close with an answer to come. Returns whether a pipe of ours had the number of the one that closed."""
    gate = Gate()
    with Peer(gate) as peer:
        delivery = Delivery(_upstream(peer.url))
        _submit(delivery, 1)
        peer.calls.get(timeout=PATIENCE_S)
        wake_read = delivery.wake_fd
        assert not delivery.close(0.0)
        assert delivery.take_completed() == []
        # The lowest free numbers are given out first: one of these has that of the closed one's end.
        pipes = [os.pipe() for _ in range(8)]
        gate.opened.set()
        for thread in delivery._threads:
            thread.join(PATIENCE_S)
        for reader, writer in pipes:
            os.set_blocking(reader, False)
            with pytest.raises(BlockingIOError):
                os.read(reader, 1)
            os.close(reader)
            os.close(writer)
        assert [completed.batch_id for completed in delivery.take_completed()] == [1]
        assert delivery.close(0.0)
        return any(wake_read in pipe for pipe in pipes)


def test_senders_do_not_keep_a_process_alive(start: Start) -> None:
    """Whatever hangs, the interpreter can end."""
    assert all(thread.daemon for thread in start(None)._threads)
