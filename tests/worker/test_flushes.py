"""Flushes on their way, and the waiter that one thread tells another by."""

from __future__ import annotations

import math
import os
import threading
from pathlib import Path

import pytest

from settle_mp.core import wire
from settle_mp.worker.flushes import ASK_AGAIN_S, Flushes, FlushRequest
from settle_mp.worker.waiter import Waiter
from tests.upstreams import wait_until

PRODUCER = bytes(range(16))
#: Longer than any of these tests may take.
LONG_S = 30.0


class Asker:
    """A flush that keeps what it is told."""

    def __init__(self, ticket: int, deadline_s: float = 100.0, position: int = 10) -> None:
        self.answers: list[wire.Flushed] = []
        self.request = FlushRequest(
            ticket=ticket, position=position, deadline_s=deadline_s, answered=self.answers.append
        )


def flushed(ticket: int) -> wire.Flushed:
    """Make an answer."""
    return wire.Flushed(ticket, 1, 0, 0, "")


@pytest.fixture
def flushes() -> Flushes:
    """Make a producer's flushes, none yet."""
    return Flushes(PRODUCER)


def tickets(flushes: Flushes, now_s: float) -> list[int]:
    """Ask what is to be asked."""
    return [question.ticket for question in flushes.questions(now_s)]


def test_a_flush_carries_its_position(flushes: Flushes) -> None:
    """Rule J2: the question may overtake the frames, so it says what it waits for."""
    flushes.add(Asker(7, position=1234).request)
    (question,) = flushes.questions(10.0)
    assert (question.producer, question.ticket, question.position) == (PRODUCER, 7, 1234)


@pytest.mark.parametrize(("left_s", "asked_s"), [(100.0, 99.8), (5.0, 4.8), (1.0, 0.9), (0.0, 0.0)])
def test_the_answer_has_time_to_arrive_before_the_deadline(
    flushes: Flushes, left_s: float, asked_s: float
) -> None:
    """A tenth of what is left, and 0.2 s at most."""
    flushes.add(Asker(7, deadline_s=10.0 + left_s).request)
    (question,) = flushes.questions(10.0)
    assert question.timeout_s == pytest.approx(asked_s)


def test_a_flush_is_asked_for_again_until_it_is_answered(flushes: Flushes) -> None:
    """A collector that heard one may be gone: the next one hears it soon, and none hears it without end."""
    asker = Asker(1)
    flushes.add(asker.request)
    assert tickets(flushes, 0.0) == [1]
    assert tickets(flushes, ASK_AGAIN_S / 2) == []
    assert tickets(flushes, ASK_AGAIN_S) == [1]
    flushes.answer(flushed(1))
    assert asker.answers == [flushed(1)]
    assert tickets(flushes, 10 * ASK_AGAIN_S) == []


def test_a_flush_whose_time_is_up_is_asked_for_no_more(flushes: Flushes) -> None:
    """Once more after its deadline, for the collector's word on what is unconfirmed, and then never."""
    asker = Asker(1, deadline_s=5.0)
    flushes.add(asker.request)
    assert tickets(flushes, 4.9) == [1]
    (last,) = flushes.questions(5.4)
    assert last.timeout_s == 0.0
    assert tickets(flushes, 5.0 + ASK_AGAIN_S) == []
    assert flushes.left_s(6.0) == math.inf
    flushes.answer(flushed(1))
    assert asker.answers == []


def test_a_flush_with_no_time_is_asked_for_once(flushes: Flushes) -> None:
    """`flush(0)` only asks, but it does ask."""
    flushes.add(Asker(1, deadline_s=0.0).request)
    (question,) = flushes.questions(0.0)
    assert question.timeout_s == 0.0


def test_late_second_and_strange_answers_are_for_nobody(flushes: Flushes) -> None:
    """Each waiter is told once, by its own ticket."""
    first, second = Asker(1), Asker(2)
    flushes.add(first.request)
    flushes.add(second.request)
    for ticket in (3, 1, 1, 0):
        flushes.answer(flushed(ticket))
    assert first.answers == [flushed(1)]
    assert second.answers == []
    assert tickets(flushes, 0.0) == [2]


def test_how_long_nothing_is_to_be_asked(flushes: Flushes) -> None:
    """The courier sleeps until the earliest, and without flushes as long as it likes."""
    assert flushes.left_s(0.0) == math.inf
    flushes.add(Asker(1).request)
    assert flushes.left_s(0.0) == -math.inf
    list(flushes.questions(0.0))
    flushes.add(Asker(2).request)
    list(flushes.questions(0.2))
    assert flushes.left_s(0.3) == pytest.approx(ASK_AGAIN_S - 0.3)


# The waiter.


def test_a_word_ends_the_waiting() -> None:
    """The other thread's word is heard, whether it came before the waiting or in it."""
    with Waiter() as waiter:
        waiter.notify()
        assert waiter.wait(LONG_S)
    with Waiter() as waiter:
        thread = threading.Timer(0.05, waiter.notify)
        thread.start()
        assert waiter.wait(LONG_S)
        thread.join()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, 0.02])
def test_without_a_word_the_waiting_ends_too(timeout_s: float) -> None:
    """Time that is up or negative is no error, and never for ever."""
    with Waiter() as waiter:
        assert not waiter.wait(timeout_s)


def test_a_word_too_late_is_harmless() -> None:
    """The courier may speak when the waiter is gone: nothing is raised and no other file is written to."""
    with Waiter() as waiter:
        pass
    reader, writer = os.pipe()  # takes the numbers that were freed
    os.set_blocking(reader, False)
    waiter.notify()
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)
    os.close(reader)
    os.close(writer)


def test_words_and_endings_at_once_are_harmless() -> None:
    """Rule 3 of the courier: while one thread leaves, the other speaks, in any order."""
    failures: list[BaseException] = []

    def speak(waiter: Waiter, is_leaving: threading.Event) -> None:
        is_leaving.wait(LONG_S)
        try:
            waiter.notify()
        except BaseException as error:  # noqa: BLE001  the test's to see
            failures.append(error)

    for _ in range(100):
        is_leaving = threading.Event()
        with Waiter() as waiter:
            thread = threading.Thread(target=speak, args=(waiter, is_leaving))
            thread.start()
            is_leaving.set()
        thread.join()
    assert failures == []


def test_waiting_leaves_no_descriptor_behind() -> None:
    """A pair for each flush, and both are given back."""
    before = len([*Path("/dev/fd").iterdir()])
    for _ in range(10):
        with Waiter() as waiter:
            waiter.notify()
    wait_until(lambda: len([*Path("/dev/fd").iterdir()]) <= before, "descriptors are given back")
