"""Journals read beside a snapshot of the ledger: what moves meanwhile is neither missed nor counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp import config
from settle_mp.collector import status
from settle_mp.collector.inventory import HeldJournal
from settle_mp.collector.status import read_status
from tests.collectors import bench, folder_of, make_journal, segment_of, track

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from settle_mp.collector.roster import ProducerRow
    from settle_mp.statedir import StateDir

LEDGER = bytes(range(16))
#: More events than the first segment holds.
MANY = tuple(f"user_{number}" for number in range(3_000))


def test_what_is_freed_after_it_was_opened_is_still_read(state_dir: Path) -> None:
    """A segment that its worker removes is counted all the same, since it is held open."""
    journal = make_journal(state_dir, *MANY)
    held = HeldJournal(folder_of(state_dir, journal))
    journal.commit(LEDGER, journal.tail)
    assert len(list(folder_of(state_dir, journal).glob("*.seg"))) == 1
    held.settle()
    stretch = held.behind(0)
    assert (stretch.amount.events, stretch.damages) == (len(MANY), [])
    held.close()
    journal.close()


def test_events_committed_and_freed_during_a_look_are_counted_once(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the reading of the ledger and that of the journals, all of them may become committed."""
    journal = make_journal(state_dir, *MANY)
    read_ledger = status.Snapshot._read_ledger

    with bench(state_dir) as parts:

        def read_and_commit(self: status.Snapshot, folder: StateDir) -> dict[bytes, ProducerRow]:
            known = read_ledger(self, folder)
            parts.take_in()
            journal.commit(parts.parts.state.ledger.id, journal.tail)
            return known

        monkeypatch.setattr(status.Snapshot, "_read_ledger", read_and_commit)
        found = read_status(config.load(state_dir=state_dir)).json
    assert found["balanced"], found
    assert found["events"]["tracked"] == len(MANY)
    journal.close()


def test_a_journal_removed_during_a_look_is_counted_once(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead worker's folder may go between the reading of the ledger and that of the journals."""
    make_journal(state_dir, *MANY).close()
    read_ledger = status.Snapshot._read_ledger

    with bench(state_dir) as parts:

        def read_and_adopt(self: status.Snapshot, folder: StateDir) -> dict[bytes, ProducerRow]:
            known = read_ledger(self, folder)
            parts.take_in()
            assert not list((state_dir / "journals").iterdir())
            return known

        monkeypatch.setattr(status.Snapshot, "_read_ledger", read_and_adopt)
        for _ in range(2):
            found = read_status(config.load(state_dir=state_dir)).json
            assert found["balanced"], found
            assert found["events"]["tracked"] == len(MANY)


def test_a_header_that_moves_is_read_again(state_dir: Path) -> None:
    """The producer's own count belongs to segments that were opened before it moved on."""
    journal = make_journal(state_dir, "ada")

    class Moving(HeldJournal):
        """A journal whose worker goes on between our looks at header and segments."""

        moves_left = 0

        def hold(self) -> None:
            super().hold()
            if self.moves_left:
                self.moves_left -= 1
                track(journal, *MANY)
                journal.commit(LEDGER, journal.tail)
                track(journal, "bob")

    held = Moving(folder_of(state_dir, journal))
    held.moves_left = 2
    held.settle()
    acked = held.header.courier
    assert acked == journal.header.committed
    assert held.events_behind(acked.position) == (1, True)
    held.close()
    journal.close()


def test_damage_in_a_live_journal_is_believed_when_it_stays(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker writes while it is read: the second of two records may be seen before the first."""
    journal = make_journal(state_dir, "ada", "bob", "cy")
    path = segment_of(state_dir, journal)
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[60:64] = bytes(4)
    held = HeldJournal(folder_of(state_dir, journal))
    path.write_bytes(torn)
    held.settle()
    monkeypatch.setattr("settle_mp.collector.inventory.time.sleep", lambda _: path.write_bytes(whole))
    stretch = held.behind(0)
    assert (stretch.amount.events, stretch.damages) == (3, [])
    monkeypatch.setattr("settle_mp.collector.inventory.time.sleep", lambda _: path.write_bytes(torn))
    path.write_bytes(torn)
    held.settle()
    assert held.behind(0).damages
    held.close()
    journal.close()
