"""uWSGI: no thread of ours in a process that is going to fork, or where threads get no turn."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import pytest

from settle_mp.worker import producer as producers
from settle_mp.worker.uwsgi import GOING_TO_FORK, NO_THREADS, description, why_no_thread
from tests.upstreams import wait_until
from tests.worker.couriers import courier_of, honest_collector, track
from tests.worker.uwsgis import Uwsgi

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp import Settle


def test_elsewhere_threads_are_fine() -> None:
    """Nothing of this holds without uWSGI, or under a module that only has its name."""
    assert "uwsgi" not in sys.modules
    assert (why_no_thread(), description()) == ("", "")


@pytest.mark.parametrize(
    ("module", "reason", "waited_for"),
    [
        (Uwsgi(0), GOING_TO_FORK, GOING_TO_FORK),
        (Uwsgi(0, has_threads=True), GOING_TO_FORK, GOING_TO_FORK),
        (Uwsgi(1), NO_THREADS, ""),
        (Uwsgi(1, has_threads=True), "", ""),
        (Uwsgi(0, mule=1), NO_THREADS, ""),
        (Uwsgi(0, mule=1, has_threads=True), "", ""),
        (Uwsgi(0, spooler=True, has_threads=True), "", ""),
    ],
)
def test_who_gets_a_thread(
    module: Uwsgi, reason: str, waited_for: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only who does not fork, and has a turn for it: of its own, or while somebody waits for it."""
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    assert (why_no_thread(), why_no_thread(is_waited_for=True)) == (reason, waited_for)


def test_what_doctor_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """The release, and whether threads run."""
    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi(1, has_threads=True))
    assert description() == "2.0.26, threads"
    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi(1))
    assert description() == "2.0.26, no threads"


def test_the_process_that_forks_starts_none_and_says_so_quietly(
    client: Settle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its events are journaled, a flush has no way, and a default set-up is nothing to warn of."""
    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi(0, has_threads=True))
    with caplog.at_level(logging.INFO, "settle_mp"):
        track(client, "parent")
    assert not client.events.flush(timeout=0)
    assert not courier_of(client).is_running
    assert client.events.pending_count == 1
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("INFO", "courier_not_started")
    assert GOING_TO_FORK in record.__dict__["reason"]


def test_the_process_that_goes_on_as_a_worker_gets_its_courier(
    client: Settle, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a master the process that loaded the application is the first worker; the hook tells."""
    module = Uwsgi(0, has_threads=True)
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    with honest_collector(state_dir) as collector, collector.serving():
        track(client, "before")
        module.worker = 1
        producers.after_fork()
        track(client, "after")
        wait_until(lambda: client.events.pending_count == 0, "both are taken")
        assert collector.users() == ["after", "before"]


def test_without_threads_a_flush_is_carried_all_the_same(
    client: Settle, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller waits, so that the courier gets its turn."""
    monkeypatch.setitem(sys.modules, "uwsgi", Uwsgi(1))
    with honest_collector(state_dir) as collector, collector.serving():
        track(client, "one")
        assert not courier_of(client).is_running
        assert client.events.flush(timeout=20)
