"""The courier: frames go from where the collector says, and no further than the credit allows."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest

from settle_mp.core import wire
from settle_mp.core.record import decode_identity
from settle_mp.worker.courier import CREDIT_BYTES
from tests.upstreams import wait_until
from tests.worker import reading
from tests.worker.couriers import (
    LARGE,
    courier_of,
    honest_collector,
    journal_of,
    names,
    settle_down,
    track,
)
from tests.worker.fake_collector import FakeCollector, users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp import Settle


@pytest.fixture
def collector(state_dir: Path) -> Iterator[FakeCollector]:
    """Make a collector in the test's hands."""
    with honest_collector(state_dir) as collector:
        yield collector


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
    assert journal_of(client).commit(collector.ledger, tail)
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
