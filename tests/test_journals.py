"""Journals as files: headers read and written, segments listed, bytes read without a map."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from settle_mp import journals, statedir
from settle_mp.core.record import HEADER_BYTES, NO_LEDGER, Slot, decode_slot
from settle_mp.journals import has_record_at, read_header, segments, write_committed
from tests.collector.journal_files import JournalFiles, cut_off, event, events, flip, mark

if TYPE_CHECKING:
    from pathlib import Path

LEDGER, OTHER = bytes([1]) * 16, bytes([2]) * 16


@pytest.fixture
def journal(tmp_path: Path) -> JournalFiles:
    """A journal of two segments."""
    made = JournalFiles(tmp_path)
    made.write_header()
    made.add(events(0, 5))
    made.add(events(5, 9))
    return made


# --- Headers ---


def test_what_the_collector_writes_it_reads_back_and_nothing_else_changes(journal: JournalFiles) -> None:
    """Rule L3: each writer has slots of its own, so the collector's word never destroys the courier's."""
    courier = Slot(sequence=3, ledger=LEDGER, position=70, events_count=5)
    drops = Slot(sequence=2, dropped_count=4, dropped_quantity="1.5")
    journal.write_header(courier, drops, key_mode="live")
    for sequence in range(1, 4):
        ours = Slot(sequence=sequence, ledger=LEDGER, position=100 * sequence, events_count=sequence)
        write_committed(journal.folder, ours)
        header = read_header(journal.folder)
        assert (header.collector, header.courier, header.drops) == (ours, courier, drops)
        assert header.identity is not None
        assert header.identity.key_mode == "live"
    assert (journal.folder / "header").stat().st_size == HEADER_BYTES


def test_a_word_that_was_cut_short_leaves_the_one_before(journal: JournalFiles) -> None:
    """Rule J1: two slots take turns, so a death in the middle of a write costs one word, not the position."""
    for sequence in (1, 2):
        write_committed(journal.folder, Slot(sequence=sequence, ledger=LEDGER, position=sequence))
    image = (journal.folder / "header").read_bytes()
    at = next(
        at
        for at in range(0, HEADER_BYTES, 64)
        if decode_slot("collector", image[:at] + bytes(64) + image[at + 64 :]).position == 1
    )
    flip(journal.folder / "header", at + 24)
    assert read_header(journal.folder).collector.position == 1


@pytest.mark.parametrize(
    ("courier", "collector", "wanted"),
    [
        ((NO_LEDGER, 0), (NO_LEDGER, 0), (NO_LEDGER, 0)),
        ((LEDGER, 5), (NO_LEDGER, 0), (LEDGER, 5)),
        ((NO_LEDGER, 0), (LEDGER, 5), (LEDGER, 5)),
        ((LEDGER, 5), (LEDGER, 9), (LEDGER, 9)),
        ((LEDGER, 9), (LEDGER, 5), (LEDGER, 9)),
        # The collector begins where the courier stood; its new ledger is the later word.
        ((OTHER, 9), (LEDGER, 9), (LEDGER, 9)),
        ((OTHER, 8), (LEDGER, 9), (LEDGER, 9)),
    ],
)
def test_the_bond_is_the_later_word(
    courier: tuple[bytes, int], collector: tuple[bytes, int], wanted: tuple[bytes, int]
) -> None:
    """Rule L3: of courier and collector, whoever knows of the later commit."""
    slots = [Slot(sequence=1, ledger=ledger, position=position) for ledger, position in (courier, collector)]
    header = journals.Header(identity=None, courier=slots[0], drops=Slot(), collector=slots[1])
    assert (header.bond.ledger, header.bond.position) == wanted


def test_a_damaged_header_reads_as_empty() -> None:
    """Bytes of any kind and length are no error."""
    for image in (b"", b"\xff" * HEADER_BYTES, bytes(100), os.urandom(HEADER_BYTES)):
        header = journals.parse_header(image)
        assert header.identity is None
        assert header.bond == Slot()


def test_no_header_is_an_error_of_the_system(tmp_path: Path) -> None:
    """Gone and unreadable are told apart by the caller; neither makes a file."""
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path)
    with pytest.raises(FileNotFoundError):
        write_committed(tmp_path, Slot(sequence=1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["header", "segment"])
def test_links_are_not_followed(journal: JournalFiles, tmp_path: Path, name: str) -> None:
    """What a journal's folder links to is nothing that its producer wrote."""
    path = journal.folder / "header" if name == "header" else segments(journal.folder)[0].path
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic links"):
        journals._read(path, HEADER_BYTES)


# --- Segments ---


def test_segments_come_by_position_with_base_and_size_of_their_names(tmp_path: Path) -> None:
    """Names sort as text only while bases have one width; what counts is the number."""
    made = JournalFiles(tmp_path)
    for base in (0x10000, 0, 0x100000000, 0x200):
        made.put(base, [mark()], size=1024 + base % 7)
    assert [file.base for file in segments(made.folder)] == [0, 0x200, 0x10000, 0x100000000]
    assert [file.size for file in segments(made.folder)] == [
        1024 + file.base % 7 for file in segments(made.folder)
    ]


def test_other_files_are_no_segments(journal: JournalFiles) -> None:
    """Rule J1: an unborn segment is ignored, as is whatever else lies there."""
    before = segments(journal.folder)
    whole = before[-1].path.name
    for name in (
        whole + statedir.UNBORN_SUFFIX,
        "core",
        "x.seg",
        "-1-1-aa.seg",
        f"{2**63 - 9:016x}-10-aa.seg",
    ):
        (journal.folder / name).write_bytes(b"?")
    assert segments(journal.folder) == before


def test_of_files_of_one_position_the_fuller_is_taken(tmp_path: Path) -> None:
    """Rule J6: whichever way the folder lists them."""
    for number, nonces in enumerate(itertools.permutations(["aa", "bb", "cc"])):
        made = JournalFiles(tmp_path, bytes([number]) * 16)
        made.put(0, [mark()], nonce=nonces[0])
        full = made.put(0, events(0, 3), nonce=nonces[1])
        made.put(0, [mark(), event(0)], nonce=nonces[2])
        assert [file.path for file in segments(made.folder)] == [full]


def test_a_cut_off_file_gives_what_is_there(journal: JournalFiles) -> None:
    """Adoption reads with pread: a truncated file is short, not SIGBUS."""
    (file, _) = segments(journal.folder)
    whole = file.read()
    assert len(whole) == file.size
    for size in (100, 0):
        cut_off(file.path, size)
        assert file.read() == whole[:size]
    cut_off(file.path, 2 * file.size)  # longer than it was made: what is behind is nobody's
    assert len(file.read()) == file.size


def test_a_look_finds_a_record_without_reading_all(journal: JournalFiles) -> None:
    """True exactly where a journal goes on behind a position."""
    files = segments(journal.folder)
    assert has_record_at(files, 0)
    assert has_record_at(files, files[1].base)
    assert not has_record_at(files, journal.end)
    assert not has_record_at([], 0)
    # Before the first and in a hole something is missing, which only a reading can tell.
    assert has_record_at(files[1:], 0)
    assert has_record_at(files, files[1].base - 1)
    journal.put(100_000, [mark()])
    assert has_record_at(segments(journal.folder), journal.end)


def test_no_descriptor_is_left_open(journal: JournalFiles) -> None:
    """Promise 3: whatever is read, also where it fails."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for file in segments(journal.folder):
        file.read()
    has_record_at(segments(journal.folder), 0)
    read_header(journal.folder)
    write_committed(journal.folder, Slot(sequence=1))
    with pytest.raises(IsADirectoryError):
        journals._read(journal.folder, 10)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
