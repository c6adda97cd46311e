"""Segments: what is appended is there, whole and once; the full, sealed and closed take nothing."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from settle_mp.core.record import encode_record, mark_s, read_records, segment_seed
from settle_mp.statedir import UNBORN_SUFFIX, parse_segment_name
from settle_mp.worker import segment as segments
from settle_mp.worker.segment import NoRoomError, Segment
from tests.worker import children, reading
from tests.worker.interruptions import interrupt, points

PRODUCER = bytes(range(16))
SIZE = 4096


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a journal's folder."""
    folder = tmp_path / PRODUCER.hex()
    folder.mkdir()
    return folder


def make(folder: Path | None, base: int = 0, size: int = SIZE) -> Segment:
    """Make a segment."""
    return Segment(producer=PRODUCER, base=base, size=size, folder=folder, mode=0o600)


def append(segment: Segment, payload: bytes) -> None:
    """Append as the hot path does."""
    write, tell, seed = segment.appender
    write(encode_record(payload, seed, tell()))


def fill(segment: Segment, payload: bytes) -> int:
    """Append until there is no room, and return how often."""
    for count in range(SIZE):
        try:
            append(segment, payload)
        except (ValueError, NoRoomError):
            return count
    pytest.fail("it is never full")


def test_a_segment_begins_with_the_time_and_holds_what_was_appended(folder: Path) -> None:
    """Rule J3: a reader of the file finds the mark and the records at once, though nothing was flushed."""
    segment = make(folder, base=512)
    append(segment, b"one")
    append(segment, b"two")
    (found,) = reading.segments(folder)
    assert mark_s(found.payloads[0]) is not None
    assert found.payloads[1:] == [b"one", b"two"]
    assert (found.base, found.size) == (512, SIZE)
    assert segment.last == 512 + found.used_bytes
    segment.close()


def test_the_file_has_its_blocks_and_its_rights(folder: Path) -> None:
    """A page that the disk could not back would be SIGBUS at the first write; others must not read it."""
    before = os.umask(0)
    try:
        segment = make(folder)
    finally:
        os.umask(before)
    found = (folder / segment.name).stat()
    assert found.st_blocks * 512 >= SIZE
    assert found.st_mode & 0o777 == 0o600
    segment.close()


def test_a_group_may_write_whatever_the_umask(folder: Path) -> None:
    """The collector of another user in the group needs the right that a usual umask takes."""
    before = os.umask(0o077)
    try:
        segment = Segment(producer=PRODUCER, base=0, size=SIZE, folder=folder, mode=0o660)
    finally:
        os.umask(before)
    assert (folder / segment.name).stat().st_mode & 0o777 == 0o660
    segment.close()


def test_a_full_segment_refuses_and_keeps_what_it_has(folder: Path) -> None:
    """The record that does not fit leaves no trace."""
    segment = make(folder)
    count = fill(segment, bytes(99))
    assert len(reading.segments(folder)[0].payloads) == count + 1
    segment.close()


def test_a_sealed_segment_takes_nothing_and_knows_its_end(folder: Path) -> None:
    """However often it is sealed, and by whom: the end is where the last record ends."""
    segment = make(folder)
    append(segment, b"one")
    end = segment.end
    assert segment.seal() == segment.seal() == segment.end == end
    assert fill(segment, b"x") == 0
    assert segment.read(0, SIZE) == (folder / segment.name).read_bytes()[:end]
    segment.close()


@pytest.mark.parametrize("has_gil", [True, False])
def test_sealing_loses_nothing_that_is_appended_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, has_gil: bool
) -> None:
    """Rule J6: whatever a handler appends between any two steps of sealing stands before the end."""
    monkeypatch.setattr(segments, "HAS_GIL", has_gil)
    probe = make(folder)
    for at in range(1, points(probe.seal) + 1):
        segment = make(folder, base=at * SIZE)
        appended: list[bytes] = []

        def handler(segment: Segment = segment, appended: list[bytes] = appended) -> None:
            appended.extend([b"x"] * fill(segment, b"x"))

        end = interrupt(segment.seal, at, handler)
        seed = segment_seed(PRODUCER, segment.base)
        payloads, used = read_records((folder / segment.name).read_bytes(), seed, 0)
        assert (payloads[1:], used) == (appended, end), at
        segment.close()
    probe.close()


@pytest.mark.parametrize("has_gil", [True, False])
def test_threads_append_whole_records(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, has_gil: bool
) -> None:
    """Rule J6: with a GIL one call of C appends a record, without one a lock does; none is lost or torn."""
    monkeypatch.setattr(segments, "HAS_GIL", has_gil)
    segment = make(folder, size=1024 * 1024)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def work(number: int) -> None:
        for count in range(1000):
            append(segment, b"%d-%d" % (number, count))

    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    (found,) = reading.segments(folder)
    assert sorted(found.payloads[1:]) == sorted(b"%d-%d" % (n, c) for n in range(4) for c in range(1000))
    segment.close()


def test_without_a_gil_an_append_holds_a_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J6: a thread that appends waits for the one that does, and a handler in it does not."""
    monkeypatch.setattr(segments, "HAS_GIL", False)
    segment = make(folder)
    has_appended = threading.Event()

    def work() -> None:
        append(segment, b"thread")
        has_appended.set()

    lock: Any = segment._lock
    with lock:
        thread = threading.Thread(target=work)
        thread.start()
        assert not has_appended.wait(0.05)
        append(segment, b"handler")
    assert has_appended.wait(children.DEADLINE_S)
    thread.join()
    assert reading.segments(folder)[0].payloads[1:] == [b"handler", b"thread"]
    segment.close()


def test_a_closed_segment_refuses(folder: Path) -> None:
    """Whoever still holds its appender is sent to the next one; nothing crashes."""
    segment = make(folder)
    segment.close()
    segment.close()
    assert fill(segment, b"x") == 0


def test_a_discarded_segment_leaves_no_file(folder: Path) -> None:
    """Only what was published stays."""
    make(folder).discard(folder)
    assert list(folder.iterdir()) == []


def test_only_the_maker_removes_the_file(folder: Path) -> None:
    """Rule J4: a child's copy of a segment is closed, and its parent's file stays."""
    segment = make(folder)
    children.run(segment.discard, folder)
    append(segment, b"after")
    assert reading.segments(folder)[0].payloads[1:] == [b"after"]
    segment.close()


def test_without_hooks_a_child_cannot_append(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J4: under uWSGI each append asks whose process it is."""
    monkeypatch.setitem(sys.modules, "uwsgi", type(sys)("uwsgi"))
    segment = make(folder)
    append(segment, b"parent")

    def work() -> str:
        with pytest.raises(NoRoomError) as caught:
            append(segment, b"child")
        return str(caught.value)

    assert "parent" in children.run(work)
    assert reading.segments(folder)[0].payloads[1:] == [b"parent"]
    segment.close()


def test_a_child_of_the_memory_variant_has_its_own_pages() -> None:
    """Rule J4: also where there is no file, a child's writes are not its parent's."""
    segment = make(None)
    children.run(append, segment, b"child")
    append(segment, b"parent")
    payloads, _ = read_records(segment.read(0, SIZE), segment.appender[2], 0)
    assert payloads[1:] == [b"parent"]
    segment.close()


@pytest.mark.parametrize("step", ["posix_fallocate", "rename"])
def test_a_segment_that_could_not_be_made_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Rule J7: a full disk is an OSError, and the half-made file is gone."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if step == "rename" else os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        make(folder)
    monkeypatch.undo()
    assert list(folder.iterdir()) == []


def test_no_reader_sees_a_segment_before_it_is_whole(folder: Path) -> None:
    """Rule J1: at every step of the making a file under a segment's name has its size and first record.

    A shorter one would read as cut off, if its maker died there.
    """

    def look() -> None:
        for path in folder.iterdir():
            if parse_segment_name(path.name) is not None:
                reading.Segment(path)
            else:
                assert path.name.endswith(UNBORN_SUFFIX)

    for at in range(1, points(lambda: make(folder)) + 1):
        interrupt(lambda: make(folder), at, look)
    assert len(reading.segments(folder)) == 1


def test_an_exception_in_the_making_goes_on_and_leaves_no_segment(folder: Path) -> None:
    """Rule J2: a handler's exception ends the making; what a reader finds is whole or nothing."""
    made: list[Segment] = []

    def handler() -> None:
        raise TimeoutError

    for at in range(1, points(lambda: made.append(make(folder))) + 1):
        with contextlib.suppress(TimeoutError):
            interrupt(lambda: made.append(make(folder)), at, handler)
            pytest.fail(f"swallowed at {at}")
        reading.segments(folder)
    assert len(made) == 1
