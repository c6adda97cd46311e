"""What the dead left: read to its end under the lock, committed, and only then removed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from settle_mp import statedir
from settle_mp.collector import adoption, reading
from settle_mp.core.books import Amount
from settle_mp.core.record import Slot
from settle_mp.core.wire import Ack, Frame
from settle_mp.journals import read_header
from tests.collector.journal_files import JournalFiles, cut_off, event, events, flip
from tests.collector.ledgers import real_connection
from tests.collectors import Bench, bench, folder_of, is_gone, make_journal, track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

STRANGE_LEDGER = bytes([7]) * 16


@pytest.fixture
def parts(state_dir: Path) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir) as made:
        yield made
        made.parts.adoption.drop()


def dead(state_dir: Path, number: int = 0) -> JournalFiles:
    """A dead producer's journal with a sound header and no events yet."""
    made = JournalFiles(state_dir / "journals", number.to_bytes(16, "big"))
    made.write_header()
    return made


def users(made: Bench) -> dict[str, int]:
    """How many events of each user are committed and not shipped."""
    counts: dict[str, int] = {}
    for window in made.parts.state.windows:
        for key, entry in window.entries.items():
            counts[key.user_id] = counts.get(key.user_id, 0) + entry.count
    return counts


def read_not_settled(made: Bench) -> None:
    """Look through the journals once, and neither commit nor remove."""
    made.parts.adoption.scan_soon()
    made.parts.adoption.turn(made.now_s)


def is_locked(folder: Path) -> bool:
    """Whether anybody, this process included, holds a journal's lock."""
    lock = statedir.try_lock(folder / "lock")
    if lock is not None:
        os.close(lock)
    return lock is None


def descriptors_count() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def kill_after_tracking(state_dir: Path, count: int, user: str, *options: str) -> None:
    """Start a real worker process, have it track, and kill it as soon as the last `track()` has returned."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.tracker", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "SETTLE_MP_STATE_DIR": str(state_dir)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f'["track", {count}, "{user}"]\n'.encode())
    process.stdin.flush()
    assert process.stdout.readline().strip() == str(count).encode()
    process.kill()
    process.communicate()


# --- From death to removal ---


def test_what_killed_workers_tracked_is_committed_and_their_folders_go(state_dir: Path) -> None:
    """Adoption: every event whose track() returned before the SIGKILL counts once, courier or not."""
    kill_after_tracking(state_dir, 3, "ada")
    kill_after_tracking(state_dir, 5000, "bob", "--silent")  # several segments
    with bench(state_dir) as made:
        before = descriptors_count()
        made.take_in()
        assert users(made) == {"ada": 3, "bob": 5000}
        assert list((state_dir / "journals").iterdir()) == []
        assert descriptors_count() <= before
        assert made.faults() == []


def test_a_folder_goes_only_after_the_commit_and_its_lock_is_held_until_then(
    state_dir: Path, parts: Bench
) -> None:
    """Adoption: read, commit, remove, in this order; nobody else takes the journal over in between."""
    journal = dead(state_dir)
    journal.add(events(0, 3))
    read_not_settled(parts)
    parts.parts.adoption.settle()
    assert (journal.folder.exists(), is_locked(journal.folder)) == (True, True)
    parts.parts.reception.commit()
    assert (journal.folder.exists(), is_locked(journal.folder)) == (True, True)
    assert read_header(journal.folder).collector.position == journal.end
    parts.parts.adoption.settle()
    assert is_gone(journal.folder)
    row = parts.parts.state.ledger.producers()[journal.producer]
    assert row.gone_s is not None


def test_the_lock_is_held_while_a_dead_journal_is_read(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adoption: a free lock is the proof of death, so the last reading is one that nothing can follow."""
    journal = dead(state_dir)
    journal.add(events(0, 3))
    seen: list[bool] = []

    def read_journal(*arguments: Any, **more: Any) -> reading.Reading:
        seen.append(is_locked(journal.folder))
        return reading.read_journal(*arguments, **more)

    monkeypatch.setattr(adoption, "read_journal", read_journal)
    parts.take_in()
    assert seen == [True]


def test_a_death_between_commit_and_removal_counts_nothing_twice(state_dir: Path) -> None:
    """Adoption: the next collector finds folder and position, reads nothing again, and removes it."""
    journal = dead(state_dir)
    journal.add(events(0, 3))
    for _ in range(3):
        with bench(state_dir) as made:
            read_not_settled(made)
            if made.parts.reception.is_gathering:
                made.parts.reception.commit()
            made.parts.adoption.drop()
            assert users(made) == {"user_0": 1, "user_1": 1, "user_2": 1}
    with bench(state_dir) as made:
        made.take_in()
        assert is_gone(journal.folder)
        assert sum(users(made).values()) == 3
        assert made.faults() == []


@pytest.mark.parametrize("where", ["middle", "end"])
def test_damage_is_named_once_although_the_journal_is_read_twice(state_dir: Path, where: str) -> None:
    """Rule J3 and adoption: a death before the removal counts nothing twice and keeps the word."""
    journal = dead(state_dir)
    path = journal.add(events(0, 9))
    if where == "middle":
        flip(path, 33)  # within the first event
    else:
        cut_off(path, journal.end - 3)
    for _ in range(2):
        with bench(state_dir) as made:
            read_not_settled(made)
            if made.parts.reception.is_gathering:
                made.parts.reception.commit()
            made.parts.adoption.drop()
            assert sum(users(made).values()) == 8
            assert len(made.parts.state.ledger.residues()) == 1
    with bench(state_dir) as made:
        made.take_in()
        assert is_gone(journal.folder)
        (residue,) = made.parts.state.ledger.residues()
        kept = state_dir / "quarantine" / f"{journal.producer.hex()}-{path.name}"
        assert str(kept) in residue
        assert kept.exists()
        assert sum(users(made).values()) == 8


def test_what_was_read_and_not_committed_is_read_again(state_dir: Path, parts: Bench) -> None:
    """Rule L1: after an error of the ledger all is dropped; journal and lock are there as before."""
    journal = dead(state_dir)
    journal.add(events(0, 3))
    before = descriptors_count()
    read_not_settled(parts)
    parts.parts.reload()
    assert (is_locked(journal.folder), descriptors_count()) == (False, before)
    parts.parts.adoption.settle()
    assert journal.folder.exists()
    parts.take_in()
    assert (sum(users(parts).values()), is_gone(journal.folder)) == (3, True)


def test_what_a_producer_wrote_after_the_last_look_and_before_its_death_is_read(
    state_dir: Path, parts: Bench
) -> None:
    """Adoption: once more to the end, under the lock, however far a look at the living had come."""
    journal = make_journal(state_dir, "ada", "ada")
    parts.parts.adoption.is_urgent = True
    parts.take_in()
    assert users(parts) == {"ada": 2}
    track(journal, "bob")
    journal.close()
    parts.take_in()
    assert users(parts) == {"ada": 2, "bob": 1}
    assert is_gone(folder_of(state_dir, journal))


def test_a_long_journal_is_read_in_pieces_and_removed_after_the_last(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: a turn takes a bounded piece of a journal; the folder waits for its end."""
    monkeypatch.setattr(reading, "READ_BYTES_MAX", 1)
    monkeypatch.setattr(adoption, "TURN_BYTES_MAX", 1)
    journal = dead(state_dir)
    for start in (0, 10, 20):
        journal.add(events(start, start + 10))
    for committed in (10, 20):
        read_not_settled(parts)
        parts.parts.reception.commit()
        parts.parts.adoption.settle()
        assert sum(users(parts).values()) == committed
        assert journal.folder.exists()
    parts.take_in()
    assert (sum(users(parts).values()), is_gone(journal.folder)) == (30, True)


def test_many_dead_journals_share_few_transactions(state_dir: Path, parts: Bench) -> None:
    """Adoption: a fsync for many, or hundreds of recycled workers would keep the collector from all else."""
    for number in range(200):
        dead(state_dir, number).add(events(number, number + 2))
    statements: list[str] = []
    connection = real_connection(parts.parts.state.ledger)
    connection.set_trace_callback(statements.append)
    before = descriptors_count()
    parts.take_in()
    connection.set_trace_callback(None)
    begun = [statement for statement in statements if statement.startswith("BEGIN")]
    assert 1 <= len(begun) <= 4
    assert sum(users(parts).values()) == 400
    assert list((state_dir / "journals").iterdir()) == []
    assert descriptors_count() <= before


def test_a_turn_takes_a_bounded_number_of_journals(
    state_dir: Path, parts: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: each takes a descriptor until the commit; the next turn goes on where this one ended."""
    monkeypatch.setattr(adoption, "TURN_JOURNALS_MAX", 4)
    for number in range(10):
        dead(state_dir, number).add([event(number)])
    for done in (4, 8, 10):
        parts.parts.adoption.turn(parts.now_s)
        parts.parts.reception.commit()
        parts.parts.adoption.settle()
        assert len(users(parts)) == done
    assert list((state_dir / "journals").iterdir()) == []


# --- Beside couriers ---


def test_what_came_as_frames_is_skipped_and_late_frames_are_acked(state_dir: Path, parts: Bench) -> None:
    """Adoption: positions tell what was counted, whether frames come before, between or after."""
    journal = make_journal(state_dir, *["ada"] * 10)
    base, body = journal.read(0, 10**6)
    reception = parts.parts.reception

    def frame(first: int, size: int) -> Frame:
        part = body[first : first + size]
        return Frame(producer=journal.producer, first=first, base=base, cut_s=1.8e9, body=part)

    first = journal.read(0, 100)[1]
    reception.take_frame(frame(0, len(first)))
    journal.close()
    read_not_settled(parts)
    reception.take_frame(frame(0, len(body)))
    reception.commit()
    assert users(parts) == {"ada": 10}
    for _ in range(2):
        answer = reception.take_frame(frame(0, len(body)))
        assert answer == Ack(parts.parts.state.ledger.id, len(body))
        assert not reception.is_gathering
        parts.parts.adoption.settle()
    assert is_gone(folder_of(state_dir, journal))
    assert users(parts) == {"ada": 10}


# --- Headers ---


def test_drops_in_a_header_are_recorded_once(state_dir: Path) -> None:
    """Rule J5: what a dead producer refused at a bound is counted where the count survives its folder."""
    journal = dead(state_dir)
    journal.write_header(drops=Slot(sequence=1, dropped_count=4, dropped_quantity="6.5"))
    journal.add(events(0, 2))
    for _ in range(2):
        with bench(state_dir) as made:
            read_not_settled(made)
            if made.parts.reception.is_gathering:
                made.parts.reception.commit()
            made.parts.adoption._settle_estates()
            row = made.parts.state.ledger.producers()[journal.producer]
            assert (row.dropped.events, str(row.dropped.quantity)) == (4, "6.5")
            assert row.events == Amount(2, 2)
            made.parts.adoption.drop()
    assert is_gone(journal.folder)


def test_a_journal_of_an_unknown_ledger_waits_and_keeps_nobody(state_dir: Path, parts: Bench) -> None:
    """Rule L3: it stays as it is, unlocked, for an operator's word; others go on; the reason is told."""
    waiting, other = dead(state_dir, 1), dead(state_dir, 2)
    waiting.write_header(courier=Slot(sequence=1, ledger=STRANGE_LEDGER, position=0))
    waiting.add(events(0, 2))
    other.add(events(2, 3))
    before = descriptors_count()
    for _ in range(2):
        parts.take_in()
    assert users(parts) == {"user_2": 1}
    assert (waiting.folder.exists(), is_locked(waiting.folder), is_gone(other.folder)) == (True, False, True)
    (reason,) = parts.parts.reception.refusals
    assert f"settle-mp adopt {waiting.producer.hex()}" in reason
    assert descriptors_count() <= before


def test_a_journal_of_another_key_mode_waits(state_dir: Path) -> None:
    """Rule C2: refused by adoption as by frame; its events stay journaled."""
    journal = dead(state_dir)
    journal.write_header(key_mode="live")
    journal.add(events(0, 2))
    with bench(state_dir, api_key="ss_test_1") as made:
        made.take_in()
        assert users(made) == {}
        assert "live key" in made.parts.reception.refusals[0]
    assert journal.folder.exists()


def test_a_producer_unknown_to_the_ledger_begins_at_its_headers_position(state_dir: Path) -> None:
    """Rule L3: a forgotten producer's events before that are not taken again."""
    with bench(state_dir) as made:
        ledger = made.parts.state.ledger.id
    journal = dead(state_dir)
    path = journal.add(events(0, 3))
    committed = journal.end
    journal.add(events(3, 5))
    journal.write_header(courier=Slot(sequence=1, ledger=ledger, position=committed, events_count=3))
    assert path.exists()
    with bench(state_dir) as made:
        made.take_in()
        assert set(users(made)) == {"user_3", "user_4"}
        assert is_gone(journal.folder)


def test_a_journal_without_a_header_is_read_from_its_start(state_dir: Path, parts: Bench) -> None:
    """Adoption: the header went, the events are there; no other ledger ever was here to take them."""
    journal = dead(state_dir)
    (journal.folder / "header").unlink()
    journal.add(events(0, 3))
    parts.take_in()
    assert (len(users(parts)), is_gone(journal.folder)) == (3, True)


def test_a_journal_without_segments_is_removed(state_dir: Path, parts: Bench) -> None:
    """Adoption: a producer that tracked nothing leaves nothing."""
    journal = dead(state_dir)
    parts.take_in()
    assert is_gone(journal.folder)
