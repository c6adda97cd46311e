"""The courier at rest: nothing stirs without need, and whatever is needed wakes it, hours as well."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from settle_mp.core import wire
from settle_mp.core.record import mark_s
from settle_mp.core.window import HOUR_S, hour_of
from settle_mp.worker import courier as couriers
from settle_mp.worker import producer as producers
from settle_mp.worker.courier import SLEEP_S
from settle_mp.worker.hellos import HELLO_S, HELLO_S_MAX, UNHEARD_MAX, Hellos
from tests.upstreams import wait_until
from tests.worker import reading
from tests.worker.couriers import (
    courier_of,
    fall_asleep,
    honest_collector,
    journal_of,
    settle_down,
    track,
)
from tests.worker.fake_collector import DEADLINE_S, FakeCollector, marks, records, users

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp import Settle


@pytest.fixture
def collector(state_dir: Path) -> Iterator[FakeCollector]:
    """Make a collector in the test's hands."""
    with honest_collector(state_dir) as collector:
        yield collector


# --- Sleep ---


def switches(thread_ids: set[str]) -> int:
    """Count how often threads have gone to sleep so far."""
    count = 0
    for thread_id in thread_ids:
        text = Path("/proc/self/task", thread_id, "status").read_text()
        count += int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return count


def thread_ids() -> set[str]:
    """Find this process's threads."""
    return {path.name for path in Path("/proc/self/task").iterdir()}


linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells how often a thread woke")


@linux
def test_an_idle_courier_sleeps(client: Settle, collector: FakeCollector) -> None:
    """Promise 2: with everything acknowledged, neither courier nor ZeroMQ's threads wake once a second."""
    before = thread_ids()
    settle_down(client, collector)
    fall_asleep(client)
    ours = thread_ids() - before
    assert len(ours) >= 2, "the courier's and ZeroMQ's"
    counted = switches(ours)
    assert not collector.has_message(3.0), "an idle courier says nothing"
    assert switches(ours) - counted <= 2


def test_an_event_wakes_the_courier_after_noting_the_time(client: Settle, collector: FakeCollector) -> None:
    """The first event after a sleep stands behind a time mark, so that it is adopted into its own hour."""
    settle_down(client, collector)
    fall_asleep(client)
    before_s = time.time()
    track(client, "wakes")
    frames = [collector.take()]
    if not users(frames[0]):
        frames.append(collector.take())  # it was awake before the event stood behind the mark
    (at_s,) = [each for frame in frames for each in marks(frame)]
    assert before_s <= at_s <= time.time()
    payloads = [payload for frame in frames for payload in records(frame)]
    assert [mark_s(payload) is not None for payload in payloads] == [True, False]
    assert users(frames[-1]) == ["wakes"]


def test_a_flush_and_a_question_wake_it_too(client: Settle, collector: FakeCollector) -> None:
    """Whoever asks something needs no event to be heard."""
    frame = settle_down(client, collector)
    fall_asleep(client)
    collector.say(frame.producer, wire.AskPosition(7))
    answer = collector.hear(wire.Position)
    assert (answer.request, answer.position) == (7, journal_of(client).tail)
    fall_asleep(client)
    with collector.serving():
        assert client.events.flush(timeout=DEADLINE_S)


@linux
def test_without_a_collector_hardly_anything_stirs(client: Settle) -> None:
    """Promise 2: nobody answers, events come; the courier neither spins nor wakes for each."""
    before = thread_ids()
    track(client, "first")
    wait_until(lambda: courier_of(client).asleep or courier_of(client)._lull_s == SLEEP_S, "it waits")
    ours = thread_ids() - before
    started_s, counted = time.monotonic(), switches(ours)
    used_s = time.process_time()
    is_over = threading.Event()
    while not is_over.wait(0.01) and time.monotonic() < started_s + 2.0:
        track(client, "next")
    took_s = time.monotonic() - started_s
    # Some tries to connect and a hello or two; ten wake-ups for each event would be thousands.
    assert switches(ours) - counted < 40 * took_s
    assert time.process_time() - used_s < 0.5 * took_s
    assert len(reading.users(reading.only_journal(client._settings.state_dir))) > 10


def test_hellos_come_at_growing_pauses() -> None:
    """A collector that is away all night is greeted four times a minute, and never by all in one moment."""
    hellos = Hellos()
    assert hellos.next_s == 0.0
    now_s, pauses = 0.0, []
    for _ in range(8):
        hellos.said(now_s)
        pauses.append(hellos.next_s - now_s)
        now_s = hellos.next_s
    for pause_s, wanted_s in zip(pauses, [1, 2, 4, 8, 15, 15, 15, 15], strict=True):
        assert 0.8 * wanted_s <= pause_s <= 1.2 * wanted_s
    assert len({pause_s / HELLO_S_MAX for pause_s in pauses[4:]}) > 1
    hellos.hurry(now_s - 1)
    assert hellos.next_s == now_s - 1
    hellos.heard(now_s)
    assert hellos.next_s == now_s + HELLO_S
    hellos.said(now_s)
    assert hellos.next_s <= now_s + 1.2 * HELLO_S


def test_a_connection_is_doubted_after_some_hellos_without_any_answer() -> None:
    """A new one is tried then, and each time as late; whatever comes from the collector ends the doubt."""
    hellos = Hellos()
    for _ in range(2):
        for _ in range(UNHEARD_MAX):
            assert not hellos.is_unheard
            hellos.said(0.0)
        assert hellos.is_unheard
        hellos.connected()
        assert hellos.next_s == 0.0
    hellos.said(0.0)
    assert hellos.next_s > 0.7 * HELLO_S_MAX, "a night without a collector stays a quiet one"
    for _ in range(3 * UNHEARD_MAX):
        hellos.said(0.0)
        hellos.answered()
        assert not hellos.is_unheard


# --- Hours ---


class Clock:
    """The time module, with the time of day in the test's hands."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s
        self.monotonic = time.monotonic

    def time(self) -> float:
        """Unix seconds."""
        return self.at_s


def test_an_hours_end_cuts_a_frame(
    client: Settle, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A window never spans two hours, so neither does a frame, also when both are sent much later."""
    begin_s = float(time.time() // HOUR_S * HOUR_S)
    clock = Clock(begin_s - 0.5)
    for module in (couriers, producers):
        monkeypatch.setattr(module, "time", clock)
    track(client, "old")
    hello = collector.hear(wire.Hello)
    courier, old_end = courier_of(client), journal_of(client).tail
    wait_until(lambda: courier._hours._seen == old_end, "the courier has seen it")
    clock.at_s = begin_s + 0.1
    wait_until(lambda: journal_of(client).tail > old_end, "the new hour is marked in the journal")
    track(client, "new")
    clock.at_s = begin_s + 1800
    collector.welcome(hello)
    frames = collector.settle(journal_of(client).tail)
    assert frames[0].last == old_end
    assert users(frames[0]) == ["old"]
    assert hour_of(frames[0].cut_s) == hour_of(begin_s - 1)
    assert [user for frame in frames[1:] for user in users(frame)] == ["new"]
    assert {hour_of(frame.cut_s) for frame in frames[1:]} == {hour_of(begin_s)}
    assert marks(frames[1])[0] == begin_s + 0.1


def test_a_sleeping_courier_gets_up_for_a_new_hour(
    client: Settle, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It marks the hour with nothing to do: an event in the last moment may not have woken it."""
    begin_s = float(time.time() // HOUR_S * HOUR_S)
    clock = Clock(begin_s - 0.3)
    for module in (couriers, producers):
        monkeypatch.setattr(module, "time", clock)
    settle_down(client, collector)
    fall_asleep(client)
    clock.at_s = begin_s + 0.1
    assert begin_s + 0.1 in marks(collector.take())
