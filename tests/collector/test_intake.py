"""What comes in: committed first, then remembered, published and acked; frames give way to sums."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from settle_mp import journals
from settle_mp.collector.ledger import LedgerError
from settle_mp.core import wire
from settle_mp.core.record import NO_LEDGER
from tests.collector.ledgers import FailingConnection, put_connection, real_connection
from tests.collectors import bench, folder_of, make_journal, track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.worker.journal import Journal
    from tests.collectors import Bench


@pytest.fixture
def parts(state_dir: Path) -> Iterator[Bench]:
    """Make a collector's parts, without a key: nothing is shipped."""
    with bench(state_dir) as made:
        yield made


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    """Make a live worker's journal with two events."""
    made = make_journal(state_dir, "ada", "bob")
    yield made
    made.close()


def send(parts: Bench, journal: Journal, first: int = 0) -> wire.Message | None:
    """Have a journal's bytes from a position on come as a frame, and return what is said at once."""
    base, body = journal.read(first, wire.FRAME_BODY_BYTES_MAX)
    frame = wire.Frame(producer=journal.producer, first=first, base=base, cut_s=time.time(), body=body)
    return parts.parts.reception.take_frame(frame)


def events_count(parts: Bench) -> int:
    """The events in the open windows."""
    return sum(window.events_count for window in parts.parts.state.windows)


@pytest.mark.parametrize("is_known", [False, True])
def test_nothing_is_remembered_or_published_before_it_is_committed(
    parts: Bench, state_dir: Path, journal: Journal, *, is_known: bool
) -> None:
    """Rule L1: when the transaction fails, neither sums nor positions nor the header know of its events."""
    first = 0
    if is_known:
        send(parts, journal)
        parts.parts.reception.commit()
        first = journal.tail
        track(journal, "cy")
    before = events_count(parts)
    send(parts, journal, first)
    ledger = parts.parts.state.ledger
    real = real_connection(ledger)
    put_connection(ledger, FailingConnection(real, 2, is_after=False))
    with pytest.raises(LedgerError):
        parts.parts.reception.commit()
    put_connection(ledger, real)
    bond = journals.read_header(folder_of(state_dir, journal)).bond
    assert (bond.ledger, bond.position) == ((ledger.id, first) if is_known else (NO_LEDGER, 0))
    assert events_count(parts) == before
    parts.parts.reload()
    assert events_count(parts) == before
    send(parts, journal, first)
    assert parts.parts.reception.commit() == [journal.producer]
    assert journals.read_header(folder_of(state_dir, journal)).bond.position == journal.tail
    assert parts.faults() == []


def test_frames_give_way_to_sums_at_a_bound(
    parts: Bench, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule L2: with an upstream that is away, raw bytes stay below their bound, and nothing else changes."""
    bound = 2_000
    monkeypatch.setattr("settle_mp.collector.reception.RAW_BYTES_MAX", bound)
    first, sent = 0, 0
    for _ in range(30):
        track(journal, *["ada", "bob"] * 5)
        send(parts, journal, first)
        sent += journal.tail - first
        first = journal.tail
        parts.parts.reception.commit()
        assert parts.parts.state.ledger.raw_bytes <= bound
    assert sent > 3 * bound
    assert events_count(parts) == 2 + 30 * 10
    parts.parts.reload()
    assert events_count(parts) == 2 + 30 * 10
    assert parts.faults() == []
