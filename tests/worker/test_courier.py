"""The courier: all arrives from where the collector says, in bounds, and nothing stirs without need."""

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
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import Settle
from settle_mp.core import wire
from settle_mp.core.record import decode_identity, mark_s
from settle_mp.core.window import HOUR_S, hour_of
from settle_mp.worker import courier as couriers
from settle_mp.worker import producer as producers
from settle_mp.worker.courier import CREDIT_BYTES, SLEEP_S
from settle_mp.worker.hellos import HELLO_S, HELLO_S_MAX, Hellos
from tests.upstreams import wait_until
from tests.worker import children, reading
from tests.worker.fake_collector import DEADLINE_S, FakeCollector, events, marks, records, users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from settle_mp.worker.courier import Courier
    from settle_mp.worker.journal import Journal

#: About 8 KiB: a hundred events exceed the first segment, two hundred the credit.
LARGE = {"text": "x" * 8000}


@pytest.fixture
def collector(state_dir: Path) -> Iterator[FakeCollector]:
    """Make a collector in the test's hands."""
    with FakeCollector(state_dir) as collector:
        collector.flushed = lambda flush: (
            wire.Flushed(flush.ticket, 0, 0, 0, "")
            if collector.positions.get(flush.producer, 0) >= flush.position
            else None
        )
        yield collector


def journal_of(client: Settle) -> Journal:
    """Find the journal of a client that has tracked."""
    life = client.events._producer._mine()
    assert life is not None
    return life.journal


def courier_of(client: Settle) -> Courier:
    """Find the courier of a client that has tracked."""
    life = client.events._producer._mine()
    assert life is not None
    assert life.courier is not None
    return life.courier


def track(client: Settle, *user_ids: str, metadata: dict[str, Any] | None = None) -> None:
    """Track one event a user."""
    for user_id in user_ids:
        client.events.track(user_id, "CALL", metadata=metadata)


def names(count: int, prefix: str = "user") -> list[str]:
    """Make users' ids, in order."""
    return [f"{prefix}_{number:05}" for number in range(count)]


def fall_asleep(client: Settle) -> None:
    """Wait until the courier lies in its long sleep, from which only `track()` wakes it."""
    courier = courier_of(client)
    wait_until(lambda: courier.asleep and courier._lull_s == SLEEP_S, "the courier is asleep")


def settle_down(client: Settle, collector: FakeCollector, user_id: str = "first") -> wire.Frame:
    """Have a first event taken and acknowledged."""
    track(client, user_id)
    collector.welcome(collector.hear(wire.Hello))
    frame = collector.settle(journal_of(client).tail)[-1]
    collector.positions[frame.producer] = frame.last
    wait_until(lambda: client.events.pending_count == 0, "the ack is heard")
    return frame


# --- From where the collector says ---


def test_nothing_is_sent_before_the_welcome(client: Settle, collector: FakeCollector) -> None:
    """Rule 1 of the courier: a hello, and again after a while, but no frame until the collector answers."""
    track(client, "early")
    hello = collector.hear(wire.Hello)
    assert hello.position == journal_of(client).tail
    collector.hear(wire.Hello)
    assert not collector.has_frame(0.05)
    collector.welcome(hello)
    frame = collector.take()
    assert (frame.first, frame.base) == (0, 0)
    assert users(frame) == ["early"]


def test_frames_follow_each_other_by_positions(client: Settle, collector: FakeCollector) -> None:
    """Rule J2: each begins where the last one ended, and together they are the journal, byte for byte."""
    frames = [settle_down(client, collector, "first")]
    for name in names(5):
        track(client, name)
        frames += collector.settle(journal_of(client).tail)
    position = 0
    for frame in frames:
        assert frame.first == position
        position = frame.last
    (segment,) = reading.segments(reading.only_journal(client._settings.state_dir))
    assert b"".join(frame.body for frame in frames) == segment.path.read_bytes()[:position]


def test_the_hello_says_who_it_is(make_client: Callable[..., Settle], collector: FakeCollector) -> None:
    """Rule C2: the header travels in it, with the key's mode and the facts, and never the key."""
    client = make_client(api_key="ss_live_very_secret")
    track(client, "user")
    hello = collector.hear(wire.Hello)
    identity = decode_identity(hello.header)
    assert identity is not None
    assert identity.key_mode == "live"
    assert identity.producer == hello.producer
    assert identity.facts["pid"] == str(os.getpid())
    assert {"python", "gevent", "uwsgi"} <= identity.facts.keys()
    assert not hello.is_volatile
    assert b"very_secret" not in hello.header


def test_frames_end_where_a_segment_does(client: Settle, collector: FakeCollector) -> None:
    """A frame's records are of one segment, by whose base they are checked."""
    client.close(timeout=0)
    track(client, *names(100), metadata=LARGE)
    tail = journal_of(client).tail
    segments = reading.segments(reading.only_journal(client._settings.state_dir))
    assert len(segments) >= 3
    courier_of(client).start()
    collector.welcome(collector.hear(wire.Hello))
    frames = collector.settle(tail)
    ends = {segment.base: segment.base + segment.used_bytes for segment in segments}
    assert {frame.base for frame in frames} == ends.keys()
    for frame in frames:
        assert frame.base <= frame.first < frame.last <= ends[frame.base]
        assert len(frame.body) <= wire.FRAME_BODY_BYTES_MAX


def test_acks_free_segments(client: Settle, collector: FakeCollector) -> None:
    """Rule J5: what the collector has committed takes no room; what it has not is there."""
    client.close(timeout=0)
    track(client, *names(100), metadata=LARGE)
    folder = reading.only_journal(client._settings.state_dir)
    files = {path.name for path in folder.glob("*.seg")}
    courier_of(client).start()
    collector.welcome(collector.hear(wire.Hello))
    tail = journal_of(client).tail
    frames = [collector.take()]
    while frames[-1].last < tail:
        frames.append(collector.take())
    assert {path.name for path in folder.glob("*.seg")} == files
    assert client.events.pending_count == 100
    collector.ack(frames[-1])
    wait_until(lambda: len([*folder.glob("*.seg")]) == 1, "segments are freed")
    wait_until(lambda: client.events.pending_count == 0, "nothing is pending")
    assert reading.slot(folder, "courier").position == tail
    assert reading.slot(folder, "courier").ledger == collector.ledger


def test_never_more_in_flight_than_the_credit(client: Settle, collector: FakeCollector) -> None:
    """Promise 3: unacked bytes have a bound, so the collector's memory has one; all arrives within it."""
    client.close(timeout=0)
    track(client, *names(400), metadata=LARGE)
    tail = journal_of(client).tail
    assert tail > 2 * CREDIT_BYTES
    courier_of(client).start()
    hello = collector.hear(wire.Hello)
    collector.welcome(hello)
    taken: list[wire.Frame] = []
    acked = 0
    while acked < tail:
        while not taken or (taken[-1].last < tail and CREDIT_BYTES - (taken[-1].last - acked) > 64 * 1024):
            taken.append(collector.take())
        if acked == 0:
            # It asks what became of them, so it has had the time to send more.
            collector.hear(wire.Hello)
            while collector.has_frame(0.02):
                taken.append(collector.take())
        assert taken[-1].last - acked <= CREDIT_BYTES
        acked = next(frame.last for frame in taken if frame.last > acked)
        collector.say(hello.producer, wire.Ack(collector.ledger, acked))
    assert [user for frame in taken for user in users(frame)] == names(400)


def fill_the_credit(client: Settle, collector: FakeCollector) -> list[wire.Frame]:
    """Track more than the credit, and take what comes until the courier asks what became of it."""
    client.close(timeout=0)
    track(client, *names(200), metadata=LARGE)
    courier_of(client).start()
    collector.welcome(collector.hear(wire.Hello))
    taken = [collector.take()]
    while CREDIT_BYTES - taken[-1].last > 64 * 1024:
        taken.append(collector.take())
    collector.hear(wire.Hello)
    while collector.has_frame(0.02):
        taken.append(collector.take())
    assert journal_of(client).tail > taken[-1].last
    return taken


def test_a_used_up_credit_is_waited_for_quietly(
    client: Settle, collector: FakeCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2: where only an ack lets it go on, the courier sleeps, and does not look again and again."""
    fill_the_credit(client, collector)
    turns: list[int] = []
    monkeypatch.setattr(journal_of(client), "prefault", lambda: turns.append(1))
    collector.hear(wire.Hello)
    collector.hear(wire.Hello)
    assert 0 < len(turns) < 100


def test_what_the_collector_has_read_itself_is_skipped(client: Settle, collector: FakeCollector) -> None:
    """Rule 2 of the courier, forth: `track()` may hear from the header what was committed, and free it."""
    taken = fill_the_credit(client, collector)
    tail = journal_of(client).tail
    assert journal_of(client).commit(collector.ledger, tail, is_waiting=False)
    track(client, "new")
    frame = collector.take()
    assert frame.first >= tail > taken[-1].last
    assert users(frame) == ["new"]


def test_go_back_sends_again_from_there(client: Settle, collector: FakeCollector) -> None:
    """Rule 2 of the courier: a frame was lost on the way, and the same bytes come again."""
    track(client, "one")
    collector.welcome(collector.hear(wire.Hello))
    first = collector.take()
    track(client, "two")
    second = collector.take()
    collector.say(first.producer, wire.GoBack(second.first))
    again = collector.take()
    assert (again.first, again.body[: len(second.body)]) == (second.first, second.body)
    collector.say(first.producer, wire.GoBack(0))
    whole = b""
    while len(whole) < second.last:
        whole += collector.take().body
    assert whole.startswith(first.body + second.body)


def test_go_back_behind_what_was_acknowledged_is_no_endless_talk(
    client: Settle, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """What it asks for is freed: this is said once, a hello follows, and frames wait for the answer to it."""
    frame = settle_down(client, collector)
    collector.say(frame.producer, wire.GoBack(0))
    wait_until(lambda: "acknowledged before" in courier_of(client).state, "it is refused")
    track(client, "next")
    hello = collector.hear(wire.Hello)
    assert not collector.has_frame(0.05)
    collector.welcome(hello, frame.last)
    assert users(collector.take()) == ["next"]
    assert [record.message for record in caplog.records] == ["collector_asks_for_the_past"]


def test_a_collector_that_came_back_is_sent_what_it_lacks(client: Settle, collector: FakeCollector) -> None:
    """Rule 2 of the courier: what the dead one had not committed comes again, from its position on."""
    one = settle_down(client, collector)
    track(client, "two", "three")
    lost = collector.take()
    assert users(lost)[:1] == ["two"]
    collector.stop()
    collector.start()
    hello = collector.hear(wire.Hello)
    assert hello.position == journal_of(client).tail
    collector.welcome(hello, one.last)
    frames = collector.settle(journal_of(client).tail)
    assert frames[0].first == one.last
    assert [user for frame in frames for user in users(frame)] == ["two", "three"]


def test_a_collector_that_has_read_the_journal_is_not_sent_it(
    client: Settle, collector: FakeCollector
) -> None:
    """Rule 2 of the courier, forth: what was adopted meanwhile is skipped, and only what is new is sent."""
    track(client, "adopted", "too")
    hello = collector.hear(wire.Hello)
    tail = journal_of(client).tail
    collector.welcome(hello, tail)
    wait_until(lambda: client.events.pending_count == 0, "the welcome's position is an ack")
    track(client, "new")
    frame = collector.take()
    assert frame.first >= tail
    assert users(frame) == ["new"]


def test_a_position_that_this_journal_never_had_is_no_welcome(
    client: Settle, collector: FakeCollector
) -> None:
    """A collector that knows another journal under this id is asked again, and nothing is freed for it."""
    track(client, "one")
    hello = collector.hear(wire.Hello)
    collector.welcome(hello, 10**9)
    collector.say(hello.producer, wire.Ack(collector.ledger, 10**9))
    wait_until(lambda: "another journal" in courier_of(client).state, "it is noticed")
    collector.hear(wire.Hello)
    assert not collector.has_frame(0.05)
    assert client.events.pending_count == 1
    collector.welcome(hello, 0)
    assert users(collector.take()) == ["one"]


def test_refused_events_stay_in_the_journal(
    client: Settle, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule C2: refused loudly, once in the log and in each flush; nothing is lost, and a welcome ships it."""
    track(client, "kept")
    hello = collector.hear(wire.Hello)
    for _ in range(3):
        collector.say(hello.producer, wire.Refused("this ledger bills live"))
    collector.say(collector.hear(wire.Hello).producer, wire.Refused("this ledger bills live"))
    wait_until(lambda: "bills live" in courier_of(client).state, "the refusal is heard")
    report = client.events.flush(timeout=0.1)
    assert not report
    assert report.unconfirmed_count == 1
    assert "bills live" in str(report.reason)
    assert not collector.has_frame(0.05)
    assert reading.users(reading.only_journal(client._settings.state_dir)) == ["kept"]
    (told,) = caplog.records
    assert (told.message, told.levelno) == ("collector_refuses", logging.ERROR)
    assert told.reason == "this ledger bills live"  # type: ignore[attr-defined]
    collector.welcome(hello)
    assert users(collector.take()) == ["kept"]


def test_a_frame_that_is_refused_comes_again_after_a_welcome(
    client: Settle, collector: FakeCollector
) -> None:
    """Rule C2: refused on the way as well, sending stops; the next welcome says from where it goes on."""
    frame = settle_down(client, collector)
    track(client, "two")
    refused = collector.take()
    collector.say(frame.producer, wire.Refused("its ledger is another"))
    wait_until(lambda: "another" in courier_of(client).state, "the refusal is heard")
    track(client, "three")
    hello = collector.hear(wire.Hello)
    assert not collector.has_frame(0.05)
    collector.welcome(hello, frame.last)
    frames = collector.settle(journal_of(client).tail)
    assert frames[0].first == refused.first
    assert [user for each in frames for user in users(each)] == ["two", "three"]


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
    frame = collector.take()
    (at_s,) = marks(frame)
    assert before_s <= at_s <= time.time()
    assert [mark_s(payload) is not None for payload in records(frame)] == [True, False]
    assert users(frame) == ["wakes"]


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
    courier = courier_of(client)
    wait_until(lambda: courier.asleep, "the courier is asleep")
    clock.at_s = begin_s + 0.1
    assert begin_s + 0.1 in marks(collector.take())


# --- Trouble ---


def test_garbage_from_the_collector_is_ignored(
    client: Settle, collector: FakeCollector, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 3 of the courier: whatever comes in, it goes on, and knows no less than before."""
    track(client, "one")
    hello = collector.hear(wire.Hello)
    whole = wire.encode_message(wire.Welcome(collector.ledger, 0))
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
