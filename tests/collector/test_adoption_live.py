"""Live producers whose couriers are silent: read without their lock, never twice, never ahead of them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from settle_mp import journals, statedir
from settle_mp.collector import adoption
from settle_mp.core.event import pack_event
from settle_mp.core.wire import FRAME_BODY_BYTES_MAX, Frame
from tests.collector.journal_files import flip
from tests.collectors import Bench, bench, folder_of, is_gone, make_journal, segment_of, track

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from settle_mp.worker.journal import Journal

SILENT_S = adoption.SILENT_S


@pytest.fixture
def parts(state_dir: Path) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir) as made:
        yield made
        made.parts.adoption.drop()


@pytest.fixture
def journal(state_dir: Path) -> Iterator[Journal]:
    """A live producer's journal with three events; no courier reads it."""
    made = make_journal(state_dir, "ada", "ada", "ada")
    yield made
    made.close()


def counted(made: Bench) -> int:
    """How many events are committed."""
    return sum(window.events_count for window in made.parts.state.windows)


def look_urgently(made: Bench) -> None:
    """Look as during a host-wide flush, which waits for nobody."""
    made.parts.adoption.is_urgent = True
    made.take_in()
    made.parts.adoption.is_urgent = False


def frame_of(journal: Journal, first: int) -> Frame | None:
    """A frame as its courier would send it."""
    base, body = journal.read(first, FRAME_BODY_BYTES_MAX)
    if not body:
        return None
    return Frame(producer=journal.producer, first=first, base=base, cut_s=time.time(), body=body)


def is_locked(folder: Path) -> bool:
    """Whether the producer still holds its lock."""
    return statedir.is_locked(folder / "lock")


# --- When ---


def test_what_lies_for_a_while_is_taken_without_the_lock(
    state_dir: Path, parts: Bench, journal: Journal
) -> None:
    """Adoption: a silent live producer's events are counted after SILENT_S; lock and folder stay its own."""
    parts.take_in()
    for before_s in (0.0, SILENT_S - 0.01):
        parts.now_s = before_s
        parts.take_in()
        assert counted(parts) == 0
    parts.now_s = SILENT_S
    parts.take_in()
    assert counted(parts) == 3
    folder = folder_of(state_dir, journal)
    assert is_locked(folder)
    ours = journals.read_header(folder).collector
    assert (ours.ledger, ours.position) == (parts.parts.state.ledger.id, journal.tail)
    assert ours.events_count == 3


def test_what_comes_later_waits_anew(parts: Bench, journal: Journal) -> None:
    """Adoption: the time runs from when something lies at the committed position."""
    parts.take_in()
    parts.now_s = SILENT_S
    parts.take_in()
    parts.now_s = 100.0
    parts.take_in()
    track(journal, "bob")
    parts.take_in()
    parts.now_s = 100.0 + SILENT_S - 0.01
    parts.take_in()
    assert counted(parts) == 3
    parts.now_s = 100.0 + SILENT_S
    parts.take_in()
    assert counted(parts) == 4


def test_a_courier_that_speaks_is_left_to_its_work(parts: Bench, journal: Journal) -> None:
    """Adoption: who was heard within SILENT_S sends its events itself."""
    parts.take_in()
    member = parts.parts.state.members[journal.producer]
    for now_s in (10.0, 20.0, 30.0):
        parts.now_s = member.heard_s = now_s
        parts.take_in()
    assert counted(parts) == 0
    for now_s in (30.0 + SILENT_S, 30.0 + 2 * SILENT_S):
        parts.now_s = now_s
        parts.take_in()
    assert counted(parts) == 3


def test_a_courier_whose_frames_move_the_position_is_not_silent(parts: Bench, journal: Journal) -> None:
    """Adoption: what lies at another position than before has lain there for no time yet."""
    parts.take_in()
    for number in range(5):
        parts.now_s += SILENT_S - 0.01
        first = parts.parts.reception.position(journal.producer)
        frame = frame_of(journal, first)
        assert frame is not None
        assert parts.parts.reception.take_frame(frame) is None
        parts.parts.reception.commit()
        track(journal, "bob")
        parts.take_in()
        assert counted(parts) == 3 + number


def test_a_host_wide_flush_waits_for_no_courier(parts: Bench, journal: Journal) -> None:
    """Adoption: while one waits, live journals are read at once."""
    look_urgently(parts)
    track(journal, "bob")
    look_urgently(parts)
    assert counted(parts) == 4


# --- The tail ---


def test_a_bad_live_tail_is_not_yet(state_dir: Path, parts: Bench, journal: Journal) -> None:
    """Rule J3: bytes that are no record yet are no damage, however often they are looked at."""
    path, end = segment_of(state_dir, journal), journal.tail
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"\x20\x00half a record", end)
    for _ in range(3):
        look_urgently(parts)
    assert counted(parts) == 3
    assert not (state_dir / "quarantine").exists()
    os.pwrite(descriptor, bytes(32), end)
    os.close(descriptor)
    track(journal, "bob")
    look_urgently(parts)
    assert counted(parts) == 4
    assert parts.parts.state.ledger.residues() == []


def test_a_live_bad_record_is_waited_for_and_never_stepped_over(
    state_dir: Path, parts: Bench, journal: Journal
) -> None:
    """Rule J3: another thread may still write it, also when good records stand behind it already."""
    path, end = segment_of(state_dir, journal), journal.tail
    track(journal, "bob", "cy")
    flip(path, end + 12)
    for _ in range(4):
        look_urgently(parts)
    assert counted(parts) == 3
    assert parts.parts.reception.position(journal.producer) == end
    flip(path, end + 12)
    look_urgently(parts)
    assert counted(parts) == 5
    assert parts.parts.state.ledger.residues() == []


def test_damage_in_a_live_journal_is_believed_when_it_is_still_there(
    state_dir: Path, parts: Bench, journal: Journal
) -> None:
    """Adoption: its segments come and go while they are read, so one look alone proves nothing."""
    while journal.tail < 66_000:
        track(journal, *["ada"] * 100)
    tracked = journal.census()[1]
    path = segment_of(state_dir, journal)
    parts.take_in()
    parts.now_s = SILENT_S
    flip(path, 40)
    parts.take_in()
    assert (counted(parts), parts.parts.state.ledger.residues()) == (0, [])
    flip(path, 40)
    parts.now_s += SILENT_S
    parts.take_in()
    assert (counted(parts), parts.parts.state.ledger.residues()) == (tracked, [])


def test_damage_in_a_live_journal_is_told_and_the_rest_saved(
    state_dir: Path, parts: Bench, journal: Journal
) -> None:
    """Rule J3: in a segment that its producer has left; what it tracks from now on is counted as before."""
    while journal.tail < 66_000:
        track(journal, *["ada"] * 100)
    tracked = journal.census()[1]
    flip(segment_of(state_dir, journal), 40)
    for _ in range(3):
        look_urgently(parts)
    assert counted(parts) == tracked - 1
    assert len(parts.parts.state.ledger.residues()) == 1
    track(journal, "bob")
    look_urgently(parts)
    assert counted(parts) == tracked
    journal.close()
    parts.take_in()
    assert counted(parts) == tracked
    assert is_gone(folder_of(state_dir, journal))


# --- Both ways at once ---


@pytest.mark.parametrize("seed", range(6))
def test_frames_and_adoption_of_the_same_bytes_never_count_twice(
    state_dir: Path, parts: Bench, seed: int
) -> None:
    """Rule J2: in any order and mixture, with repeats, half frames and lost memory, each counts once."""
    choose = random.Random(seed)  # noqa: S311  a test's dice
    journal = make_journal(state_dir, "ada")
    reception, sent = parts.parts.reception, [0]
    look_urgently(parts)
    for _ in range(60):
        step = choose.randrange(6)
        if step == 0:
            track(journal, *["ada"] * choose.randrange(1, 300))
        elif step == 1:
            # From a record's start that the courier has sent from before, as after a reconnect.
            frame = frame_of(journal, choose.choice(sent))
            if frame is not None:
                reception.take_frame(frame)
        elif step == 2:
            parts.parts.adoption.is_urgent = True
            parts.parts.adoption.scan_soon()
            parts.parts.adoption.turn(parts.now_s)
        elif step == 3 and reception.is_gathering:
            reception.commit()
        elif step == 4:
            parts.parts.adoption.settle()
        elif step == 5 and choose.random() < 0.3:
            parts.parts.reload()
        if reception.knows(journal.producer):
            sent.append(reception.position(journal.producer))
    tracked = journal.census()[1]
    assert tracked > 100
    journal.close()
    parts.take_in()
    assert counted(parts) == tracked
    assert is_gone(folder_of(state_dir, journal))
    assert parts.faults() == []


# --- What the worker makes of it ---


def test_a_worker_frees_its_segments_by_what_the_collector_wrote(
    state_dir: Path, parts: Bench, journal: Journal
) -> None:
    """Adoption: without a courier the header's committed position keeps the journal within its bounds."""
    folder, payload = folder_of(state_dir, journal), pack_event("ada", "AI_QUERY", 1, {"pad": "x" * 4000})
    tracked, sizes = 3, []
    for _ in range(40):
        for _ in range(100):
            journal.append(payload)
        tracked += 100
        look_urgently(parts)
        assert counted(parts) == tracked
        sizes.append(sum(file.size for file in journals.segments(folder)))
    assert journal.tail > 16_000_000
    # A segment that is being left and the one that follows it, of 4 MiB each.
    assert max(sizes) <= 2 * 4 * 1024 * 1024
    assert journal.committed > 0
    journal.close()
    parts.take_in()
    assert counted(parts) == tracked
    assert is_gone(folder)


def test_a_worker_without_a_collector_frees_nothing(state_dir: Path, journal: Journal) -> None:
    """Promise 1: what nobody has committed stays, segment after segment."""
    payload = pack_event("ada", "AI_QUERY", 1, {"pad": "x" * 4000})
    for _ in range(200):
        journal.append(payload)
    files = journals.segments(folder_of(state_dir, journal))
    assert files[0].base == 0
    assert len(files) >= 3


def test_a_real_worker_without_threads_is_counted_while_it_lives_and_when_it_is_killed(
    state_dir: Path, parts: Bench
) -> None:
    """Adoption: as under uWSGI's defaults; what was read of the living is not read again of the dead."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.tracker", "--silent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "SETTLE_MP_STATE_DIR": str(state_dir)},
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    for tracked in (500, 3000, 3001):
        worker.stdin.write(f'["track", {tracked - counted(parts)}, "ada"]\n'.encode())
        worker.stdin.flush()
        assert worker.stdout.readline().strip() == str(tracked).encode()
        if tracked < 3001:
            look_urgently(parts)
            assert counted(parts) == tracked
    (folder,) = (state_dir / "journals").iterdir()
    assert is_locked(folder)
    worker.kill()
    worker.communicate()
    parts.take_in()
    assert counted(parts) == 3001
    assert is_gone(folder)
    assert parts.faults() == []
