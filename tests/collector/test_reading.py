"""Journals read to runs: each record once, in its hour, whatever was done to the files."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp import journals
from settle_mp.collector import reading
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.frames import StoredFrame
from settle_mp.collector.reading import Reading, read_journal
from settle_mp.core.record import HEAD_BYTES
from settle_mp.core.window import HOUR_S
from settle_mp.core.wire import FRAME_BODY_BYTES_MAX
from tests.collector.journal_files import (
    HOUR,
    NOT_AN_EVENT,
    TIME_S,
    JournalFiles,
    cut_off,
    event,
    events,
    flip,
    mark,
)

if TYPE_CHECKING:
    from pathlib import Path

#: Now, far from the hour of the marks: where a hour comes from now, it shows.
NOW_S = TIME_S + 100 * HOUR_S
MARK_BYTES = HEAD_BYTES + 9


def read(journal: JournalFiles, position: int = 0, *, is_dead: bool = True) -> Reading:
    """Read a journal and check what holds of any reading: runs follow each other and recall alike."""
    decoder = Decoder({})
    files = journals.segments(journal.folder)
    found = read_journal(decoder, journal.producer, files, position, is_dead=is_dead, now_s=NOW_S)
    at = position
    for run in found.runs:
        intake = run.intake
        assert intake.first == at < intake.last
        assert len(intake.body) <= intake.last - intake.first
        assert len(intake.body) <= FRAME_BODY_BYTES_MAX
        frame = StoredFrame(
            producer=intake.producer,
            first=intake.first,
            last=intake.last,
            base=intake.base,
            hour=intake.hour,
            cut_s=intake.cut_s,
            body=intake.body,
            skipped=frozenset(index for index, _, _ in intake.invalid),
            events_count=intake.events_count,
            quantity=intake.quantity,
        )
        recalled = [each.key for each in Decoder({}).recall(frame)]
        assert recalled == [each.key for each in run.events]
        at = intake.last
    assert found.position == at
    return found


def users(found: Reading) -> list[int]:
    """The numbers of the events that were read, in order."""
    keys = [known.key for run in found.runs for known in run.events]
    return [int(key.user_id.removeprefix("user_")) for key in keys]


def assert_read_up(journal: JournalFiles, found: Reading) -> None:
    """A second reading, after a crash before the removal, reads nothing again."""
    again = read(journal, found.position)
    assert again.runs == []
    assert again.position == found.position


@pytest.fixture
def journal(tmp_path: Path) -> JournalFiles:
    """Three segments of ten events each."""
    made = JournalFiles(tmp_path)
    for start in (0, 10, 20):
        made.add(events(start, start + 10))
    return made


def paths(journal: JournalFiles) -> list[Path]:
    """The files of its segments, oldest first."""
    return [file.path for file in journals.segments(journal.folder)]


def boundaries(journal: JournalFiles) -> list[int]:
    """The positions at which a record begins, and the end."""
    lengths = [len(payload) + HEAD_BYTES for start in (0, 10, 20) for payload in events(start, start + 10)]
    found = list(itertools.accumulate(lengths, initial=0))
    assert found[-1] == journal.end
    return found


# --- Sound journals ---


def test_from_any_position_the_rest_is_read_once(journal: JournalFiles) -> None:
    """Rule J2: from each record's position, across segments, exactly what stands behind it, dead or alive."""
    payloads = [payload for start in (0, 10, 20) for payload in events(start, start + 10)]
    for number, position in enumerate(boundaries(journal)):
        behind = sum(payload != mark() for payload in payloads[number:])
        for is_dead in (True, False):
            found = read(journal, position, is_dead=is_dead)
            assert users(found) == list(range(30 - behind, 30))
            assert (found.position, found.damages, found.is_whole) == (journal.end, [], True)


def test_a_run_belongs_to_one_segment(journal: JournalFiles) -> None:
    """Checksums are seeded by segment, so a stored run can only be read again when it is of one."""
    found = read(journal)
    assert [run.intake.base for run in found.runs] == [int(path.name[:16], 16) for path in paths(journal)]


def test_runs_are_cut_where_the_hour_changes(tmp_path: Path) -> None:
    """Adoption: events are billed to the hour of the mark before them, also when read from the middle."""
    made = JournalFiles(tmp_path)
    marks = {0: 0, 3: 1, 5: 1, 6: 3}  # before which event the clock said which hour
    payloads: list[bytes] = []
    starts: dict[int, int] = {}
    at = 0
    for number in range(8):
        if number in marks:
            payloads.append(mark(TIME_S + marks[number] * HOUR_S))
            at += MARK_BYTES
        starts[number] = at
        payloads.append(event(number))
        at += HEAD_BYTES + len(payloads[-1])
    made.add(payloads)
    hours = [HOUR] * 3 + [HOUR + 1] * 3 + [HOUR + 3] * 2
    for number, position in starts.items():
        found = read(made, position)
        seen = [run.intake.hour for run in found.runs for _ in run.events]
        assert seen == hours[number:]
        assert len(found.runs) == len(set(hours[number:]))


def test_a_segment_without_a_mark_is_of_the_present_hour(tmp_path: Path) -> None:
    """Where no time was noted, the hour is that of the reading, and nothing is lost."""
    made = JournalFiles(tmp_path)
    made.add([event(0), mark(), event(1)])
    assert [run.intake.hour for run in read(made).runs] == [HOUR + 100, HOUR]


def test_long_segments_are_cut_to_runs_of_a_frames_size(tmp_path: Path) -> None:
    """Promise 3: a stored run is never larger than a frame, and none is lost at the cuts."""
    made = JournalFiles(tmp_path)
    made.add([mark(), *(event(number, 8000) for number in range(60))], size=512 * 1024)
    found = read(made)
    assert users(found) == list(range(60))
    assert len(found.runs) == 4


def test_a_long_journal_is_read_piece_by_piece(
    journal: JournalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: one look takes a bounded piece and says that there is more; the pieces are the whole."""
    monkeypatch.setattr(reading, "READ_BYTES_MAX", 1)
    position, seen = 0, []
    for is_last in (False, False, True):
        found = read(journal, position)
        assert found.is_whole is is_last
        seen += users(found)
        position = found.position
    assert seen == list(range(30))


def test_an_invalid_event_is_read_over(tmp_path: Path) -> None:
    """Rule L1: it advances the position like any other."""
    made = JournalFiles(tmp_path)
    made.add([mark(), event(0), NOT_AN_EVENT, event(1)])
    found = read(made)
    assert users(found) == [0, 1]
    assert [index for index, _, _ in found.runs[0].intake.invalid] == [1]
    assert (found.position, found.damages) == (made.end, [])


# --- The tail ---


def test_a_live_bad_tail_is_not_yet(journal: JournalFiles) -> None:
    """Rule J3: in a live journal a bad record is "not yet": no damage, and it is read once whole."""
    last = paths(journal)[-1]
    whole = last.read_bytes()
    flip(last, journal.end - int(last.name[:16], 16) - 1)
    found = read(journal, is_dead=False)
    assert (users(found), found.damages) == (list(range(29)), [])
    assert found.position == boundaries(journal)[-2]
    last.write_bytes(whole)
    later = read(journal, found.position, is_dead=False)
    assert (users(later), later.position) == ([29], journal.end)


def test_good_records_behind_a_live_bad_one_wait_for_it(journal: JournalFiles) -> None:
    """Rule J3: what another thread is still writing is not stepped over, whatever stands behind it."""
    last, starts = paths(journal)[-1], boundaries(journal)
    whole = last.read_bytes()
    flip(last, starts[25] - int(last.name[:16], 16) + HEAD_BYTES + 2)
    found = read(journal, is_dead=False)
    assert (users(found), found.damages, found.position) == (list(range(22)), [], starts[25])
    last.write_bytes(whole)
    assert users(read(journal, found.position, is_dead=False)) == list(range(22, 30))


def test_a_live_bad_record_in_a_segment_that_was_left_is_damage(journal: JournalFiles) -> None:
    """Rule J3: nobody writes there any more, so "not yet" would be for ever; the rest is saved."""
    first, starts = paths(journal)[0], boundaries(journal)
    flip(first, starts[4] + HEAD_BYTES + 2)
    found = read(journal, is_dead=False)
    assert users(found) == [each for each in range(30) if each != 3]
    assert [damage.file.path for damage in found.damages] == [first]
    assert found.position == journal.end


def test_a_torn_last_record_of_the_dead_is_harmless(journal: JournalFiles) -> None:
    """Rule J3: a bad last record followed by zeros was never tracked: no damage, all others are read."""
    last = paths(journal)[-1]
    start = boundaries(journal)[-2] - int(last.name[:16], 16)
    body = bytearray(last.read_bytes())
    body[start + HEAD_BYTES : start + HEAD_BYTES + 5] = bytes(5)
    last.write_bytes(body)
    found = read(journal)
    assert (users(found), found.damages) == (list(range(29)), [])
    assert_read_up(journal, found)


def test_the_same_bytes_behind_a_segment_that_was_left_are_damage(journal: JournalFiles) -> None:
    """Rule J3: only a *last* record can be torn; a segment that was left for the next one was whole."""
    middle = paths(journal)[1]
    start = boundaries(journal)[21] - int(middle.name[:16], 16)
    body = bytearray(middle.read_bytes())
    body[start + HEAD_BYTES : start + HEAD_BYTES + 5] = bytes(5)
    middle.write_bytes(body)
    found = read(journal)
    assert users(found) == [*range(19), *range(20, 30)]
    assert [damage.file.path for damage in found.damages] == [middle]


# --- Damage ---


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("number", [0, 4, 8])
def test_damage_anywhere_takes_its_record_alone(journal: JournalFiles, which: int, number: int) -> None:
    """Rule J3: in the first, a middle or the last segment: the rest is saved once, and the loss is named."""
    path = paths(journal)[which]
    starts = boundaries(journal)
    index = 11 * which + 1 + number
    flip(path, starts[index] - int(path.name[:16], 16) + HEAD_BYTES + 2)
    found = read(journal)
    assert sorted(users(found)) == [each for each in range(30) if each != 10 * which + number]
    (damage,) = found.damages
    assert damage.file.path == path
    assert f"{starts[index + 1] - starts[index]} bytes at position {starts[index]}" in damage.text
    assert found.position >= journal.end
    assert_read_up(journal, found)


@given(st.integers(0, 2), st.integers(0, 8 * 600), st.integers(0, 33))
def test_a_flipped_bit_loses_at_most_its_record(
    tmp_path_factory: pytest.TempPathFactory, which: int, bit: int, first: int
) -> None:
    """Rule J3: whichever bit flips, and wherever reading begins: others are read once, a loss is told."""
    made = JournalFiles(tmp_path_factory.mktemp("flip"))
    for start in (0, 10, 20):
        made.add(events(start, start + 10))
    path = paths(made)[which]
    flip(path, bit // 8, 1 << bit % 8)
    starts = boundaries(made)
    position = starts[first]
    whole = users_behind(position, starts)
    found = read(made, position)
    lost = set(whole) - set(users(found))
    assert len(users(found)) == len(set(users(found)))
    assert set(users(found)) <= set(whole)
    assert len(lost) <= 1
    at = int(path.name[:16], 16) + bit // 8
    is_last_record = starts[-2] <= at
    if lost:
        assert found.damages or (lost == {29} and is_last_record)
    assert_read_up(made, found)


def users_behind(position: int, starts: list[int]) -> list[int]:
    """The events whose records begin at a position or behind it."""
    numbers = [None if index % 11 == 0 else 10 * (index // 11) + index % 11 - 1 for index in range(33)]
    return [
        number for number, at in zip(numbers, starts, strict=False) if number is not None and at >= position
    ]


def test_salvaged_events_keep_their_hour(tmp_path: Path) -> None:
    """Adoption: what is saved behind a damaged record is of the hour of the mark before it."""
    made = JournalFiles(tmp_path)
    path = made.add([mark(), event(0), event(1), mark(TIME_S + HOUR_S), event(2)])
    flip(path, MARK_BYTES + HEAD_BYTES + 2)
    found = read(made)
    assert {run.intake.hour: len(run.events) for run in found.runs if run.events} == {HOUR: 1, HOUR + 1: 1}


def test_an_excised_record_is_told(tmp_path: Path) -> None:
    """Promise 4: a record that somebody cut out cleanly shows, by the offsets of those behind it."""
    made = JournalFiles(tmp_path)
    path = made.add(events(0, 5))
    body = path.read_bytes()
    start, size = MARK_BYTES + HEAD_BYTES + len(event(0)), HEAD_BYTES + len(event(1, 7))
    path.write_bytes(body[:start] + body[start + size :] + bytes(size))
    found = read(made)
    assert users(found) == [0, 2, 3, 4]
    assert [damage.text for damage in found.damages] == [f"{size} bytes at position {start} can't be read"]
    assert_read_up(made, found)


def test_a_truncated_segment_in_the_middle_is_told(journal: JournalFiles) -> None:
    """Rule J3: what was cut off is named; the segments behind it are read."""
    path = paths(journal)[1]
    cut_off(path, boundaries(journal)[15] - int(path.name[:16], 16))
    found = read(journal)
    assert users(found) == [*range(13), *range(20, 30)]
    (damage,) = found.damages
    assert damage.file.path == path
    assert_read_up(journal, found)


@pytest.mark.parametrize("more", [0, 1, 9, 15, -1])
def test_a_truncated_last_segment_is_told(journal: JournalFiles, more: int) -> None:
    """Rule J3: the size in its name says that something is missing, wherever the cut was."""
    path = paths(journal)[-1]
    cut_off(path, boundaries(journal)[28] - int(path.name[:16], 16) + more)
    found = read(journal)
    assert users(found) == list(range(25 if more >= 0 else 24))
    assert [damage.file.path for damage in found.damages] == [path]
    assert_read_up(journal, found)


def test_cut_off_zeros_are_no_loss(journal: JournalFiles) -> None:
    """Where zeros stand behind the last record, nothing was cut off that anybody wrote."""
    path = paths(journal)[-1]
    cut_off(path, journal.end - int(path.name[:16], 16) + 64)
    found = read(journal)
    assert (users(found), found.damages) == (list(range(30)), [])


@pytest.mark.parametrize("which", [0, 1])
def test_a_missing_segment_is_told(journal: JournalFiles, which: int) -> None:
    """Promise 4: a hole in the journal is named with its size, and what stands behind it is read."""
    starts = boundaries(journal)
    paths(journal)[which].unlink()
    found = read(journal)
    assert users(found) == [each for each in range(30) if each // 10 != which]
    assert found.damages
    lost = starts[11 * which + 11] - starts[11 * which]
    assert any(f"{lost} bytes" in damage.text or "are gone" in damage.text for damage in found.damages)
    assert found.position == journal.end
    assert_read_up(journal, found)


def test_a_freed_segment_is_not_missing(journal: JournalFiles) -> None:
    """Rule J2: what stands before the committed position was freed, which is no damage."""
    position = boundaries(journal)[11]
    paths(journal)[0].unlink()
    found = read(journal, position)
    assert (users(found), found.damages) == (list(range(10, 30)), [])


@pytest.mark.parametrize("nonces", [("aa", "bb"), ("bb", "aa")])
def test_of_two_files_of_one_position_the_fuller_is_read(tmp_path: Path, nonces: tuple[str, str]) -> None:
    """Rule J6: a change of segments that was interrupted leaves a loser, which holds no event."""
    made = JournalFiles(tmp_path)
    made.add(events(0, 5))
    made.put(made.end, [mark()], nonce=nonces[1])
    made.add(events(5, 9), nonce=nonces[0])
    found = read(made)
    assert (users(found), found.damages) == (list(range(9)), [])


def test_a_position_that_no_journal_reaches_takes_no_memory(journal: JournalFiles) -> None:
    """Promise 3: a hole is named and not filled with zeros, however far away the next segment says it is."""
    far = 2**40
    journal.put(far, events(30, 33))
    found = read(journal)
    assert users(found) == list(range(33))
    gap = far - boundaries(journal)[-1]
    assert [each.text for each in found.damages] == [f"{gap} bytes before position {far} are gone"]
    assert found.position > far
    assert_read_up(journal, found)


def test_a_segment_name_beyond_all_positions_is_none_of_ours(journal: JournalFiles) -> None:
    """A name that no producer gives leads to no position that a ledger could hold."""
    (journal.folder / f"{'f' * 16}-1000-aa.seg").write_bytes(bytes(4096))
    found = read(journal)
    assert (users(found), found.damages) == (list(range(30)), [])
