"""Producers at their bounds and without a folder: no request fails, and what is dropped is counted."""

from __future__ import annotations

import _thread
import logging
import os
import pathlib
import signal
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest

from settle_mp.core import wire
from settle_mp.worker import producer as producers
from tests.worker import children, reading
from tests.worker.fake_collector import FakeCollector
from tests.worker.faults import failing, system

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from settle_mp import Settle

KIBIBYTE = 1024


def folder_of(client: Settle) -> Path:
    """Find the journal of this process."""
    life = client.events._producer._mine()
    assert life is not None
    assert life.journal._folder is not None
    return life.journal._folder


def track(client: Settle, *users: str) -> None:
    """Track an event of each user."""
    for user in users:
        client.events.track(user, "AI_QUERY")


# Bounds.


def test_drops_are_counted_in_events_and_quantity(
    make_client: Callable[..., Settle], state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule J5: exactly, where SIGKILL does not reach, said once; `track()` returns all the same."""

    def work() -> int:
        client = make_client(journal_bytes_max=64 * KIBIBYTE)
        client.close(timeout=0)
        for number in range(2000):
            client.events.track(f"user-{number}", "AI_QUERY", Decimal("0.1"))
        assert [record.message for record in caplog.records] == ["events_dropped"]
        assert "journal_bytes_max" in caplog.records[0].reason  # type: ignore[attr-defined]
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert children.start(work).wait() == -signal.SIGKILL
    folder = reading.only_journal(state_dir)
    kept = reading.users(folder)
    assert kept == [f"user-{number}" for number in range(len(kept))]
    assert 1000 < len(kept) < 2000
    slot = reading.slot(folder, "drops")
    assert slot.dropped_count == 2000 - len(kept)
    assert Decimal(slot.dropped_quantity) == (2000 - len(kept)) * Decimal("0.1")


def test_a_flush_tells_of_drops_once(make_client: Callable[..., Settle], state_dir: Path) -> None:
    """Rule J5: the first flush that meets them is falsy and says how many; later ones are about the rest."""
    client = make_client(journal_bytes_max=64 * KIBIBYTE)
    client.close(timeout=0)
    for number in range(3000):
        track(client, f"user-{number}")
    dropped_count = reading.slot(folder_of(client), "drops").dropped_count
    with FakeCollector(state_dir) as collector, collector.serving():
        report = client.events.flush(timeout=20)
        assert not report
        assert report.reason == f"{dropped_count} events were dropped"
        assert (report.confirmed_count, report.unconfirmed_count) == (3000 - dropped_count, dropped_count)
        track(client, "later")  # acks have made room
        assert client.events.flush(timeout=20).confirmed_count == 1
        assert len(collector.users()) == 3001 - dropped_count


# Degraded.


def break_by_file(state_dir: Path) -> None:
    """Put a file where the journals' folder belongs. Rights would not stop root."""
    (state_dir / "journals").write_text("in the way")


@pytest.fixture
def degraded(make_client: Callable[..., Settle], state_dir: Path, caplog: pytest.LogCaptureFixture) -> Settle:
    """Make a client that can't have a journal on disk."""
    break_by_file(state_dir)
    client = make_client()
    with caplog.at_level(logging.ERROR, "settle_mp"):
        for number in range(100):
            track(client, f"user-{number:02}")
    return client


def test_what_is_left_in_memory_at_the_end_is_told(
    degraded: Settle, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 3: nobody has taken it and no file holds it, so that the end of the process takes it, aloud."""
    caplog.clear()
    degraded.close(timeout=0.05)
    (said,) = [record for record in caplog.records if record.message == "events_in_memory"]
    assert said.reason.startswith("100 events")  # type: ignore[attr-defined]


def test_without_a_folder_events_go_through_memory(
    degraded: Settle, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule J7: no exception, said once, and all is shipped, under an id that says it is volatile."""
    (said,) = caplog.get_records("setup")
    assert said.message == "journal_not_durable"
    assert str(state_dir / "journals") in said.reason  # type: ignore[attr-defined]
    assert degraded.events.pending_count == 100
    with FakeCollector(state_dir) as collector:
        hello = collector.hear(wire.Hello)
        assert hello.is_volatile
        collector.welcome(hello)
        with collector.serving():
            report = degraded.events.flush(timeout=20)
        assert (bool(report), report.confirmed_count) == (True, 100)
        assert collector.users() == [f"user-{number:02}" for number in range(100)]


def test_without_a_folder_memory_is_bounded(degraded: Settle) -> None:
    """Rule J7: 4 MiB of events that nobody fetches, then the newest are dropped and counted."""
    for _ in range(600):
        degraded.events.track("user", "AI_QUERY", metadata={"x": "y" * 8000})
    life = degraded.events._producer._mine()
    assert life is not None
    dropped_count = life.journal.header.dropped.dropped_count
    assert 70 < dropped_count < 200
    assert degraded.events.pending_count == 700 - dropped_count


def test_without_a_folder_a_child_has_its_own_memory(degraded: Settle) -> None:
    """Rule J7: a volatile journal is a process's own as well."""

    def work() -> tuple[bytes, int]:
        track(degraded, "child")
        life = degraded.events._producer._mine()
        assert life is not None
        return life.journal.producer, degraded.events.pending_count

    life = degraded.events._producer._mine()
    assert life is not None
    producer, pending_count = children.run(work)
    assert (producer != life.journal.producer, pending_count) == (True, 1)
    assert degraded.events.pending_count == 100


@pytest.mark.parametrize("step", ["mkdir", "open", "posix_fallocate", "statvfs"])
def test_whatever_fails_at_the_beginning_is_no_exception(
    make_client: Callable[..., Settle], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Rule J7: a read-only file system, a full one, no rights: the event is in memory, no request fails."""
    client = make_client()
    client.close(timeout=0)
    with monkeypatch.context() as broken:
        broken.setattr(os, step, failing(30))
        if step == "mkdir":
            broken.setattr(pathlib.Path, step, failing(30))
        track(client, "user")
    life = client.events._producer._mine()
    assert life is not None
    assert life.journal.is_volatile
    assert client.events.pending_count == 1


def test_a_full_host_at_the_beginning_is_no_exception(
    make_client: Callable[..., Settle], state_dir: Path
) -> None:
    """Rule J5: a new worker on a host at its bound keeps events in memory, and takes nothing of the disk."""
    limits = {"journal_bytes_max": 64 * KIBIBYTE, "journals_bytes_max": 64 * KIBIBYTE}
    first, client = make_client(**limits), make_client(**limits, api_key="ss_live_other")
    for each in (first, client):
        each.close(timeout=0)
        track(each, "user")
    life = client.events._producer._mine()
    assert life is not None
    assert life.journal.is_volatile
    assert reading.all_users(state_dir) == ["user"]
    assert len(list((state_dir / "journals").iterdir())) == 1


def test_no_thread_is_no_exception(
    make_client: Callable[..., Settle], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule J7: where no thread can be started, events are journaled, and a flush says what is missing."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", system(refuse))
    client = make_client()
    track(client, "user")
    assert reading.users(folder_of(client)) == ["user"]
    report = client.events.flush(timeout=0.1)
    assert not report
    assert "no way to the collector" in (report.reason or "")
    assert "courier_not_started" in [record.message for record in caplog.records]


def test_the_label_names_the_producer(make_client: Callable[..., Settle], state_dir: Path) -> None:
    """What a host's integration calls the process, in `status` and logs; before the first event."""

    def work(label: str) -> str:
        if label:
            producers.label_process(label)
        client = make_client()
        client.close(timeout=0)
        track(client, "user")
        return reading.identity(folder_of(client)).name

    assert children.run(work, "gunicorn:app worker 3") == "gunicorn:app worker 3"
    assert "pid" in children.run(work, "")
    assert len(reading.journals(state_dir)) == 2
