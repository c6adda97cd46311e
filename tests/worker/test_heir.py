"""Heirs: who takes over what, and that nothing goes before it was carried."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from settle_mp import statedir
from settle_mp.core import wire
from settle_mp.core.event import pack_event
from settle_mp.journals import parse_header
from settle_mp.worker import birth, heir
from tests.collectors import folder_of, make_journal
from tests.upstreams import wait_until
from tests.worker import children
from tests.worker.couriers import courier_of, journal_of, track
from tests.worker.fake_collector import FakeCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp import Settle


@pytest.fixture
def collector(state_dir: Path) -> Iterator[FakeCollector]:
    """Make a collector that says that it sees nobody's journal."""
    with FakeCollector(state_dir) as made:
        made.is_seen = False
        yield made


def leave(state_dir: Path, *users: str) -> Path:
    """Leave a dead producer's journal."""
    journal = make_journal(state_dir, *users)
    journal.close()
    return folder_of(state_dir, journal)


def hello_of(collector: FakeCollector, producer: bytes) -> wire.Hello:
    """Wait for a producer's hello, and welcome everybody else."""
    while True:
        hello = collector.hear(wire.Hello)
        if hello.producer == producer:
            return hello
        collector.welcome(hello, collector.positions.get(hello.producer, 0))


def test_what_the_dead_left_is_carried_and_removed(
    client: Settle, collector: FakeCollector, state_dir: Path
) -> None:
    """Under the dead one's name; its folder goes when the collector has said farewell, and not before."""
    folder = leave(state_dir, "ada", "bob")
    track(client, "cyd")
    producer = bytes.fromhex(folder.name)
    collector.welcome(hello_of(collector, producer), 0)
    while (frame := collector.take()).producer != producer:
        pass
    collector.ack(frame)
    goodbye = collector.hear(wire.Goodbye)
    assert (goodbye.producer, goodbye.position, goodbye.is_over) == (producer, frame.last, True)
    assert folder.exists()
    collector.say(producer, wire.Farewell())
    wait_until(lambda: not folder.exists(), "the folder is removed")
    assert folder_of(state_dir, journal_of(client)).exists()


def test_an_end_on_the_way_leaves_it_to_the_next(
    client: Settle, collector: FakeCollector, state_dir: Path
) -> None:
    """Rule J1: with its lock free, and all of it there."""
    folder = leave(state_dir, "ada")
    track(client, "cyd")
    hello_of(collector, bytes.fromhex(folder.name))
    assert statedir.is_locked(folder / "lock")
    client.close(timeout=0)
    wait_until(lambda: not statedir.is_locked(folder / "lock"), "the lock is free")
    assert list(folder.glob("*.seg"))


def test_where_the_collector_sees_the_journals_there_are_no_heirs(
    client: Settle, collector: FakeCollector, state_dir: Path
) -> None:
    """It reads them itself; two at one journal would be in each other's way."""
    collector.is_seen = True
    folder = leave(state_dir, "ada")
    track(client, "cyd")
    collector.welcome(collector.hear(wire.Hello))
    collector.take()
    wait_until(lambda: courier_of(client).asleep, "the courier has nothing to do")
    assert not courier_of(client)._heir._is_running  # type: ignore[union-attr]
    assert not statedir.is_locked(folder / "lock")


def test_what_is_committed_to_its_end_is_removed_without_a_word(
    client: Settle, collector: FakeCollector, state_dir: Path
) -> None:
    """Where workers come and go, most journals are such; one with drops, or with more behind, is carried."""
    done, more, dropping = (make_journal(state_dir, "ada") for _ in range(3))
    dropping.drop(1)
    for journal in (done, more, dropping):
        journal.commit(collector.ledger, journal.tail)
    more.append(pack_event("bob", "CALL", 1, None))
    for journal in (done, more, dropping):
        journal.close()
    track(client, "cyd")
    heard: set[bytes] = set()
    deadline_s = time.monotonic() + 30.0
    while len(heard) < 2:
        assert time.monotonic() < deadline_s, f"only {heard} are carried"
        hello = collector.hear(wire.Hello)
        if hello.producer == journal_of(client).producer:
            collector.welcome(hello, 0)
        else:
            heard.add(hello.producer)
            collector.say(hello.producer, wire.Refused("not now"))
    assert heard == {more.producer, dropping.producer}
    wait_until(lambda: not folder_of(state_dir, done).exists(), "it is removed")
    assert folder_of(state_dir, more).exists()
    assert folder_of(state_dir, dropping).exists()


def test_the_living_are_left_alone(client: Settle, collector: FakeCollector, state_dir: Path) -> None:
    """A held lock is the proof of life."""
    living = make_journal(state_dir, "ada")
    dead = leave(state_dir, "bob")
    track(client, "cyd")
    hello_of(collector, bytes.fromhex(dead.name))
    assert living.producer not in {
        hello.producer for hello in collector.messages if isinstance(hello, wire.Hello)
    }
    living.close()


def test_drops_are_told_without_being_asked(
    make_client: Callable[..., Settle], collector: FakeCollector
) -> None:
    """Promise 3: a collector that does not see the header hears of new drops in a hello."""
    client = make_client(on_invalid="count")
    track(client, "ada")
    collector.welcome(collector.hear(wire.Hello))
    collector.ack(collector.take())
    client.events.track("", "CALL")
    track(client, "bob")
    drops = parse_header(collector.hear(wire.Hello).header).drops
    assert drops.dropped_count == 1


def test_a_forked_child_lets_go_of_what_its_parent_inherited(state_dir: Path) -> None:
    """Rule J4: or the lock would outlive the heir, and nobody could take over from it."""
    folder = leave(state_dir, "ada")
    assert birth.inherit(folder)
    assert not birth.inherit(folder)
    child = children.start(time.sleep, 60)
    try:
        wait_until(lambda: child.pid, "it runs")
        birth.release(bytes.fromhex(folder.name))
        wait_until(lambda: not statedir.is_locked(folder / "lock"), "no child holds it")
    finally:
        child.kill()


def test_a_look_that_fails_is_said_and_ends_nothing(
    client: Settle,
    collector: FakeCollector,
    state_dir: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rule 3 of the courier: whatever goes wrong is kept from the application."""

    def fail(*_: object) -> None:
        raise RuntimeError("as bad as it gets")

    monkeypatch.setattr(heir, "Remains", fail)
    leave(state_dir, "ada")
    track(client, "cyd")
    collector.welcome(collector.hear(wire.Hello))
    wait_until(lambda: "heir_failed" in caplog.text, "it is said")
    frame = collector.take()
    collector.ack(frame)
    wait_until(lambda: client.events.pending_count == 0, "the courier goes on")
