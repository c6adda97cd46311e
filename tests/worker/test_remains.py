"""What a dead producer left: pieces that stand where the journal has them, and all that can be read."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from settle_mp import journals
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.reading import read_journal
from settle_mp.core.record import HEAD_BYTES, mark_s, read_records, segment_seed
from settle_mp.core.wire import FRAME_BODY_BYTES_MAX, Frame, Lost, decode_frame, encode_frame
from settle_mp.worker.remains import Remains
from tests.collectors import folder_of, make_journal, segment_of, track

HOUR_S = 3600.0


def remains_of(folder: Path) -> Remains:
    """Look at a dead one's folder."""
    return Remains(folder, folder.parent.parent / "quarantine")


def payloads_of(frame: Frame) -> list[bytes]:
    """Read a frame's records, all of which must be good where they stand."""
    assert decode_frame(encode_frame(frame)) == frame
    offset = frame.first - frame.base
    payloads, used_bytes = read_records(frame.body, segment_seed(frame.producer, frame.base), offset)
    assert used_bytes == len(frame.body)
    return payloads


def events_in(pieces: list[Frame | Lost]) -> list[bytes]:
    """Read all events of some pieces, each of which must begin where the one before ended."""
    events: list[bytes] = []
    position = None
    for piece in pieces:
        first, last = (piece.first, piece.last) if isinstance(piece, Frame) else (piece.start, piece.end)
        assert position in (None, first)
        position = last
        if isinstance(piece, Frame):
            events += [payload for payload in payloads_of(piece) if mark_s(payload) is None]
    return events


def test_all_of_several_segments_comes_in_frames(state_dir: Path) -> None:
    """No frame exceeds its bound or spans two segments, and none is missing."""
    journal = make_journal(state_dir)
    for number in range(20_000):
        track(journal, f"user-{number}")
    journal.close()
    remains = remains_of(folder_of(state_dir, journal))
    pieces = list(remains.pieces(0))
    assert len(events_in(pieces)) == 20_000
    assert len({piece.base for piece in pieces if isinstance(piece, Frame)}) > 2
    assert all(isinstance(piece, Frame) and len(piece.body) <= FRAME_BODY_BYTES_MAX for piece in pieces)
    assert isinstance(pieces[-1], Frame)
    assert pieces[-1].last == remains.tail


def test_frames_keep_to_the_hours_of_the_time_marks(state_dir: Path) -> None:
    """What is taken over days later falls into its own hour."""
    now_s = time.time()
    journal = make_journal(state_dir, "now")
    for ago in (5, 3):
        journal.mark(now_s - ago * HOUR_S)
        track(journal, f"user-{ago}")
    journal.close()
    frames = list(remains_of(folder_of(state_dir, journal)).pieces(0))
    hours = [int(frame.cut_s // HOUR_S) for frame in frames if isinstance(frame, Frame)]
    assert hours == [int((now_s - ago * HOUR_S) // HOUR_S) for ago in (0, 5, 3)]
    later = list(remains_of(folder_of(state_dir, journal)).pieces(frames[1].last))  # type: ignore[union-attr]
    assert later == frames[2:]


def test_acks_are_kept_in_the_header(state_dir: Path) -> None:
    """Rule L3: with the ledger lost, the next one goes on from there, and knows how many came before."""
    journal = make_journal(state_dir, "ada", "bob", "cyd")
    journal.close()
    folder = folder_of(state_dir, journal)
    remains = remains_of(folder)
    remains.commit(bytes(range(16)), remains.tail)
    bond = journals.read_header(folder).bond
    assert (bond.ledger, bond.position, bond.events_count) == (bytes(range(16)), remains.tail, 3)
    again = remains_of(folder)
    assert again.committed == again.tail == remains.tail
    assert list(again.pieces(again.tail)) == []


def test_a_segment_that_was_cut_off_is_a_loss(state_dir: Path) -> None:
    """Rule J3: the file's size says that there was more."""
    journal = make_journal(state_dir, "ada", "bob")
    journal.close()
    segment = segment_of(state_dir, journal)
    data = segment.read_bytes()
    segment.write_bytes(data[: len(data.rstrip(b"\0")) - 5])
    frame, lost = remains_of(folder_of(state_dir, journal)).pieces(0)
    assert len(events_in([frame])) == 1
    assert isinstance(lost, Lost)
    assert "cut off" in lost.reason
    assert "kept as" in lost.reason
    assert lost.end == len(data)


def test_a_segment_that_is_gone_is_a_loss(state_dir: Path) -> None:
    """Rule J3: what stands behind it is shipped, and the gap has a name."""
    journal = make_journal(state_dir)
    for number in range(5_000):
        track(journal, f"user-{number}")
    journal.close()
    folder = folder_of(state_dir, journal)
    gone, second = journals.segments(folder)[:2]
    gone.path.unlink()
    lost, *rest = remains_of(folder).pieces(0)
    assert isinstance(lost, Lost)
    assert (lost.start, lost.end) == (0, second.base)
    assert 0 < len(events_in(rest)) < 5_000


def test_a_journal_without_a_header_is_read_all_the_same(state_dir: Path) -> None:
    """The header alone may be lost; the collector decides what that means."""
    journal = make_journal(state_dir, "ada")
    journal.close()
    (folder_of(state_dir, journal) / "header").unlink()
    remains = remains_of(folder_of(state_dir, journal))
    assert remains.header.identity is None
    assert len(events_in(list(remains.pieces(0)))) == 1


@settings(max_examples=40)
@given(st.data())
def test_damage_costs_what_it_costs_the_collector(data: st.DataObject) -> None:
    """Rule J3: whatever bytes are bad or cut out, an heir saves what a collector does, from any piece on."""
    with tempfile.TemporaryDirectory(prefix="smp-", dir="/tmp") as name:
        state_dir = Path(name)
        users = [f"user-{number}" for number in range(data.draw(st.integers(1, 30)))]
        journal = make_journal(state_dir, *users)
        journal.close()
        segment, folder = segment_of(state_dir, journal), folder_of(state_dir, journal)
        body = bytearray(segment.read_bytes())
        used_bytes = len(bytes(body).rstrip(b"\0"))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, used_bytes - 1))
            if data.draw(st.booleans()):
                body[at] ^= data.draw(st.integers(1, 255))
            else:
                cut = data.draw(st.integers(1, 60))
                body = body[:at] + body[at + cut :] + bytes(len(body[at : at + cut]))
        segment.write_bytes(body)
        reading = read_journal(
            Decoder({}), journal.producer, journals.segments(folder), 0, is_dead=True, now_s=time.time()
        )
        expected = sum(run.intake.events_count + len(run.intake.invalid) for run in reading.runs)
        pieces = list(remains_of(folder).pieces(0))
        assert len(events_in(pieces)) == expected
        assert bool(reading.damages) == any(isinstance(piece, Lost) for piece in pieces)
        for index, piece in enumerate(pieces):
            start = piece.first if isinstance(piece, Frame) else piece.start
            assert events_in(list(remains_of(folder).pieces(start))) == events_in(pieces[index:])


@pytest.mark.parametrize("cut_bytes", [1, HEAD_BYTES, HEAD_BYTES + 3])
def test_a_torn_last_record_is_no_loss(state_dir: Path, cut_bytes: int) -> None:
    """Rule J3: its track() never returned."""
    journal = make_journal(state_dir, "ada", "bob")
    journal.close()
    segment = segment_of(state_dir, journal)
    data = bytearray(segment.read_bytes())
    end = len(bytes(data).rstrip(b"\0"))
    data[end - cut_bytes : end] = bytes(cut_bytes)
    segment.write_bytes(data)
    (frame,) = remains_of(folder_of(state_dir, journal)).pieces(0)
    assert len(events_in([frame])) == 1
