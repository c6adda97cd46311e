"""Producers are forgotten late (rule L4): what comes of one whose folder is gone is still known for a day."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from settle_mp.core import wire
from tests.collectors import bench, folder_of, is_gone, make_journal
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.worker.journal import Journal
    from tests.collectors import Bench
    from tests.upstreams import Upstream

__all__ = ["upstream"]

HOUR_S = 3600.0


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """Make a collector's parts."""
    with bench(state_dir, upstream) as made:
        yield made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set both clocks so many seconds ahead of what they are."""
    clocks = {"time.time": time.time, "time.monotonic": time.monotonic}

    def set_ahead(by_s: float) -> None:
        for name, clock in clocks.items():
            monkeypatch.setattr(name, lambda clock=clock: clock() + by_s)

    return set_ahead


def frame_of(journal: Journal) -> wire.Frame:
    """All that a journal holds, as its courier would send it."""
    base, body = journal.read(0, wire.FRAME_BODY_BYTES_MAX)
    return wire.Frame(producer=journal.producer, first=0, base=base, cut_s=time.time(), body=body)


def test_a_late_frame_of_one_whose_folder_is_gone_is_not_counted_again(
    parts: Bench, state_dir: Path, later: Callable[[float], None]
) -> None:
    """Rule L4: what ZeroMQ still had of a dead worker, its journal adopted and removed, is known."""
    journal = make_journal(state_dir, "ada", "bob")
    frame = frame_of(journal)
    journal.close()
    parts.take_in()
    assert is_gone(folder_of(state_dir, journal))
    parts.ship()  # nobody is forgotten of whom something is open
    for age_s in (0.0, 23 * HOUR_S):
        later(age_s)
        parts.take_in()
        parts.parts.forget()
        answer = parts.parts.reception.take_frame(frame)
        assert isinstance(answer, wire.Ack), answer
        assert answer.position == frame.last
    later(49 * HOUR_S)
    parts.take_in()
    parts.parts.forget()
    # Refused now, not taken from the start: neither row nor folder nor hello says where it stood.
    assert not isinstance(parts.parts.reception.take_frame(frame), wire.Ack)
    assert not parts.parts.reception.is_gathering
    assert parts.faults() == []
