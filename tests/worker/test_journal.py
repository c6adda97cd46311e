"""Journals: each event that was appended is in the files once, within bounds, and freed when committed."""

from __future__ import annotations

import collections
import errno
import os
from typing import TYPE_CHECKING

import pytest

from settle_mp.core.record import Slot, encode_slot, whole_records_bytes
from settle_mp.worker import journal as journals
from settle_mp.worker.room import JournalFullError
from settle_mp.worker.segment import NoRoomError
from tests.worker import children, reading
from tests.worker.faults import failing
from tests.worker.interruptions import interrupt, points
from tests.worker.journaling import LEDGER, MEBIBYTE, build, event, fill, folder_of, in_memory, names

if TYPE_CHECKING:
    from pathlib import Path

    from settle_mp.worker.journal import Journal

KIBIBYTE = 1024


def sizes(journal: Journal) -> list[int]:
    """Return the sizes of the segments on disk."""
    return [segment.size for segment in reading.segments(folder_of(journal))]


def appended_until_full(journal: Journal) -> int:
    """Append until a bound is met; returns how many events were taken."""
    count = 0
    while True:
        try:
            journal.append(event("user"))
        except JournalFullError:
            return count
        count += 1


def test_events_are_in_the_files_as_soon_as_they_are_appended(tmp_path: Path) -> None:
    """Rule J3: nothing is kept back, across segments too."""
    journal = build(tmp_path)
    wanted = [f"user-{number}" for number in range(3000)]
    for user in wanted:
        journal.append(event(user))
    assert names(reading.users(folder_of(journal))) == wanted
    assert len(sizes(journal)) == 3
    journal.close()


def test_an_event_survives_sigkill_at_once(tmp_path: Path) -> None:
    """Rule J3: the page cache has it, whatever becomes of the process."""

    def work() -> None:
        journal = build(tmp_path)
        journal.append(event("last words"))
        os.kill(os.getpid(), 9)

    child = children.start(work)
    assert child.wait() == -9
    (folder,) = tmp_path.iterdir()
    assert names(reading.users(folder)) == ["last words"]


def test_segments_begin_small_and_double(tmp_path: Path) -> None:
    """A process that tracks one event takes 64 KiB; a busy one changes segments rarely."""
    journal = build(tmp_path)
    for _ in range(8):
        fill(journal)
        journal.append(event("user"))
    assert sizes(journal) == [64 * KIBIBYTE << number for number in range(7)] + [4 * MEBIBYTE] * 2
    journal.close()


def test_journal_bytes_max_holds_and_acks_make_room(tmp_path: Path) -> None:
    """Rule J5: at the bound the newest event is refused, naming the bound; acks make room again."""
    journal = build(tmp_path, bytes_max=256 * KIBIBYTE)
    assert appended_until_full(journal) > 1000
    assert sum(sizes(journal)) <= 256 * KIBIBYTE
    with pytest.raises(JournalFullError, match=r"journal_bytes_max \(262,144 bytes\)"):
        journal.append(event("user"))
    journal.commit(LEDGER, journal.tail)
    assert appended_until_full(journal) > 1000
    assert sum(sizes(journal)) <= 2 * 256 * KIBIBYTE
    journal.close()


def test_journals_bytes_max_holds_for_all_of_a_host(tmp_path: Path) -> None:
    """Rule J5: recycled workers' journals add up, and the bound is theirs together."""
    bound = MEBIBYTE
    made: list[Journal] = []

    def add() -> None:
        made.append(build(tmp_path, bytes_max=256 * KIBIBYTE, host_bytes_max=bound))
        appended_until_full(made[-1])

    with pytest.raises(JournalFullError, match="journals_bytes_max"):
        collections.deque(iter(add, "for ever"))
    assert len(made) >= 4
    taken = sum(path.stat().st_size for path in tmp_path.glob("*/*"))
    assert bound - 256 * KIBIBYTE < taken <= bound
    for journal in made:
        journal.close()


def test_what_another_producer_frees_is_room_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J5: the host's bound is looked at again when a moment has passed."""
    monkeypatch.setattr(journals, "ASK_AGAIN_S", 0.0)
    first = build(tmp_path, bytes_max=MEBIBYTE, host_bytes_max=MEBIBYTE)
    second = build(tmp_path, bytes_max=MEBIBYTE, host_bytes_max=MEBIBYTE)
    appended_until_full(first)
    before = appended_until_full(second)
    assert appended_until_full(second) == 0
    first.commit(LEDGER, first.tail)
    assert appended_until_full(second) > 0
    assert before > 0
    first.close()
    second.close()


def test_the_disk_keeps_a_reserve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J5: journals leave free what the ledger needs to shrink."""
    journal = build(tmp_path)
    real = os.statvfs(tmp_path)
    left_bytes = 16 * MEBIBYTE + 128 * KIBIBYTE

    def statvfs(_: object) -> os.statvfs_result:
        blocks = (left_bytes - sum(sizes(journal)[1:])) // real.f_frsize
        return os.statvfs_result((*real[:3], blocks, blocks, *real[5:]))

    monkeypatch.setattr(os, "statvfs", statvfs)
    appended_until_full(journal)
    assert sizes(journal) == [64 * KIBIBYTE, 128 * KIBIBYTE]
    with pytest.raises(JournalFullError, match=r"less than .* bytes left"):
        journal.append(event("user"))
    journal.close()


def test_a_disk_that_refuses_a_segment_is_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J5: ENOSPC while allocating drops the event instead of raising into a request; then it goes on."""
    journal = build(tmp_path)
    fill(journal)
    with monkeypatch.context() as broken:
        broken.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
        with pytest.raises(JournalFullError, match="No space left"):
            journal.append(event("user"))
    monkeypatch.setattr(journals, "ASK_AGAIN_S", 0.0)
    journal._refusal = ("", 0, 0.0)
    journal.append(event("later"))
    assert names(reading.users(folder_of(journal)))[-1] == "later"
    journal.close()


def test_a_host_without_room_is_not_asked_for_each_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule J5: dropping costs no look through all journals, until something is acked or time has passed."""
    monkeypatch.setattr(journals, "ASK_AGAIN_S", 3600.0)
    journal = build(tmp_path)
    fill(journal)
    asked: list[object] = []

    def full(*arguments: object) -> None:
        asked.append(arguments)
        raise JournalFullError("the host is full")

    with monkeypatch.context() as broken:
        broken.setattr(journals, "allowed_bytes", full)
        for _ in range(100):
            with pytest.raises(JournalFullError, match="the host is full"):
                journal.append(event("user"))
    assert len(asked) == 1
    journal.commit(LEDGER, journal.tail)
    journal.append(event("user"))
    journal.close()


def test_what_is_committed_is_freed_but_the_newest_segment(tmp_path: Path) -> None:
    """Rule J3: segments are never used again; the one that is appended to stays whatever is committed."""
    journal = build(tmp_path)
    for _ in range(3):
        fill(journal)
        journal.append(event("user"))
    before = sizes(journal)
    second = reading.segments(folder_of(journal))[1].base
    journal.commit(LEDGER, second - 1)
    assert sizes(journal) == before
    journal.commit(LEDGER, second)
    assert sizes(journal) == before[1:]
    journal.commit(LEDGER, journal.tail)
    assert sizes(journal) == before[-1:]
    journal.append(event("later"))
    assert names(reading.users(folder_of(journal)))[-1] == "later"
    journal.close()


def test_the_header_says_what_is_committed(tmp_path: Path) -> None:
    """Rule J2: ledger, position and the count of events before it; a position never goes back."""
    journal = build(tmp_path)
    for number in range(5):
        journal.append(event(f"user-{number}"))
    position = journal.tail
    for _ in range(3):
        journal.append(event("user"))
    assert journal.commit(LEDGER, position)
    found = reading.slot(folder_of(journal), "courier")
    assert (found.ledger, found.position, found.events_count) == (LEDGER, position, 5)
    assert journal.commit(LEDGER, 0)
    assert journal.commit(b"M" * 16, 1)
    found = reading.slot(folder_of(journal), "courier")
    assert (found.ledger, found.position, found.events_count) == (b"M" * 16, position, 5)
    assert (journal.committed, journal.pending_count) == (position, 3)
    journal.close()


def test_a_commit_that_is_interrupted_is_done_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule J2: wherever a handler raises while segments are freed, nothing waits for ever or is lost."""
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MIN", 4096)
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MAX", 4096)
    journal = build(tmp_path)

    def stop() -> None:
        raise TimeoutError

    def commit() -> None:
        # As `track()` does where it hears the collector's word in the header.
        journal.commit(LEDGER, journal.tail)

    def turn_over() -> None:
        fill(journal)
        journal.append(event("in a new segment"))

    def prepare() -> None:
        # What is to be committed is the same each time, and so is the number of points.
        turn_over()
        commit()
        turn_over()

    prepare()
    for at in range(1, points(commit) + 1):
        prepare()
        with pytest.raises(TimeoutError):
            interrupt(commit, at, stop)
        _, total = journal.census()
        journal.append(event("later"))
        commit()
        assert (journal.committed, journal.pending_count) == (journal.tail, 0), at
        assert reading.slot(folder_of(journal), "courier").events_count == total + 1, at
        assert len(list(folder_of(journal).glob("*.seg"))) == 1, at
    journal.close()


def test_a_position_behind_the_end_is_not_ours(tmp_path: Path) -> None:
    """A collector that mixes up journals must not free what it never had."""
    journal = build(tmp_path)
    journal.append(event("user"))
    assert not journal.commit(LEDGER, journal.tail + 1)
    assert (journal.committed, journal.pending_count) == (0, 1)
    journal.close()


def test_events_are_counted_across_freed_segments(tmp_path: Path) -> None:
    """Rule J2: counts come of decoding from positions, and marks are not events."""
    journal = build(tmp_path)
    total = 0
    for _ in range(3):
        total += fill(journal) + 1
        journal.append(event("user"))
        journal.mark(5.0)
        assert journal.census() == (journal.tail, total)
        journal.commit(LEDGER, journal.tail)
        assert journal.census() == (journal.tail, total)
        assert journal.pending_count == 0
    journal.close()


def test_reading_gives_whole_records_of_one_segment(tmp_path: Path) -> None:
    """What a frame carries begins and ends at records, within the bytes that were asked for."""
    journal = build(tmp_path)
    fill(journal)
    journal.append(event("user"))
    position = bytes_count = 0
    while True:
        base, body = journal.read(position, 1000)
        if not body:
            break
        assert len(body) <= 1000
        assert whole_records_bytes(body) == len(body)
        assert base in (0, reading.segments(folder_of(journal))[1].base)
        position += len(body)
        bytes_count += 1
    assert position == journal.tail
    assert bytes_count > 60
    journal.close()


def test_without_a_courier_the_collectors_slot_frees_segments(tmp_path: Path) -> None:
    """Where the collector reads a live journal itself, its word in the header is heard at the bound."""
    journal = build(tmp_path, bytes_max=256 * KIBIBYTE)
    appended_until_full(journal)
    slot = Slot(sequence=1, ledger=LEDGER, position=journal.tail, events_count=0)
    at, data = encode_slot("collector", slot)
    descriptor = os.open(folder_of(journal) / "header", os.O_WRONLY)
    os.pwrite(descriptor, data, at)
    os.close(descriptor)
    assert appended_until_full(journal) > 1000
    assert journal.header.committed.ledger == LEDGER
    journal.close()


def test_a_closed_journal_takes_nothing_and_frees_its_lock(tmp_path: Path) -> None:
    """What it holds stays for the collector, which sees that nobody appends any more."""
    journal = build(tmp_path)
    journal.append(event("user"))
    folder = folder_of(journal)
    assert children.run(reading.is_locked, folder)
    journal.close()
    assert not children.run(reading.is_locked, folder)
    with pytest.raises(NoRoomError):
        journal.append(event("late"))
    assert names(reading.users(folder)) == ["user"]


def test_a_discarded_journal_leaves_nothing(tmp_path: Path) -> None:
    """The loser of two that were made at once was never seen."""
    build(tmp_path).discard()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_in_memory_is_bounded_and_freed_likewise() -> None:
    """Rule J7: 4 MiB, and no more, wherever nothing can be written."""
    journal = in_memory()
    assert journal.is_volatile
    count = appended_until_full(journal)
    assert 30_000 < count < 60_000
    journal.commit(LEDGER, journal.tail)
    assert appended_until_full(journal) > 1000
    journal.close()
