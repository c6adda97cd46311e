"""Headers: who a producer is, what is committed, and every drop counted once, whatever comes in between."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from settle_mp.core.record import HEADER_BYTES, Slot, decode_slot, encode_slot
from settle_mp.worker import header as headers
from settle_mp.worker.header import Header
from tests.worker import children, reading
from tests.worker.interruptions import interrupt, points
from tests.worker.journaling import IDENTITY, LEDGER

if TYPE_CHECKING:
    from pathlib import Path

ME = replace(IDENTITY, producer=bytes(range(16)))


@pytest.fixture
def header(tmp_path: Path) -> Header:
    """Make a header on disk."""
    return Header(tmp_path, ME, 0o600)


def dropped(folder: Path) -> tuple[int, str]:
    """Read how many drops the file says there were, and their sum."""
    slot = reading.slot(folder, "drops")
    return slot.dropped_count, slot.dropped_quantity


def test_it_says_who_the_producer_is(tmp_path: Path, header: Header) -> None:
    """Rule C2: also the key's mode, for whoever adopts the journal later."""
    found = reading.identity(tmp_path)
    assert (found.key_mode, found.name, found.host) == ("test", "test", "here")
    assert (tmp_path / "header").stat().st_size == HEADER_BYTES
    assert header.image == (tmp_path / "header").read_bytes()


def test_drops_are_counted_exactly(tmp_path: Path, header: Header) -> None:
    """Rule J5: events and quantity; fractions add as decimals."""
    quantities: list[int | Decimal] = [1, Decimal("0.1"), Decimal("0.2"), 10**12, Decimal("1e-9")]
    for quantity in quantities:
        header.drop(quantity)
    assert dropped(tmp_path) == (5, "1000000000001.300000001")
    assert header.dropped.dropped_count == 5


def test_drops_survive_sigkill(tmp_path: Path) -> None:
    """Rule J5: the count is where it survives whoever counted."""

    def work() -> None:
        header = Header(tmp_path, ME, 0o600)
        for _ in range(7):
            header.drop(3)
        os.kill(os.getpid(), 9)

    assert children.start(work).wait() == -9
    assert dropped(tmp_path) == (7, "21")


def test_a_torn_slot_leaves_the_one_before(header: Header) -> None:
    """Rule J1: two slots take turns, so that a death in the middle of a write loses one drop at most."""
    for count in range(1, 5):
        header.drop(1)
        at, data = encode_slot("drops", header.dropped)
        image = bytearray(header.image)
        image[at : at + len(data) // 2] = bytes(len(data) // 2)
        assert decode_slot("drops", bytes(image)).dropped_count == count - 1


def test_writers_do_not_disturb_each_other(tmp_path: Path, header: Header) -> None:
    """Rule L3: the courier's word, the drops and the collector's word have slots of their own."""
    header.commit(LEDGER, 100, 5)
    header.drop(1)
    theirs = Slot(sequence=1, ledger=b"C" * 16, position=70, events_count=3)
    at, data = encode_slot("collector", theirs)
    with (tmp_path / "header").open("r+b") as file:
        file.seek(at)
        file.write(data)
    header.commit(LEDGER, 200, 9)
    header.drop(1)
    assert header.collectors == theirs
    assert (header.committed.position, header.committed.events_count) == (200, 9)
    assert reading.slot(tmp_path, "courier") == header.committed
    assert dropped(tmp_path) == (2, "2")


def test_a_handler_that_drops_in_the_midst_of_a_drop(tmp_path: Path, header: Header) -> None:
    """Rule J5: no lock is waited for, and each drop is counted once wherever the handler came."""
    drop = partial(header.drop, 1)
    total = 1
    for at in range(1, points(drop) + 1):
        interrupt(drop, at, partial(header.drop, 10))
        total += 11
        assert dropped(tmp_path) == (2 * at + 1, str(total)), at


def test_exceptions_in_the_midst_of_a_drop(tmp_path: Path, header: Header) -> None:
    """Rule J5: the interrupted drop counts or not; those that waited for it count once, at the next drop."""

    def handler() -> None:
        header.drop(1000)
        raise TimeoutError

    drop = partial(header.drop, 1)
    for at in range(1, points(drop) + 1):
        before_count, before_sum = header.dropped.dropped_count, int(header.dropped.dropped_quantity)
        with pytest.raises(TimeoutError):
            interrupt(drop, at, handler)
        drop()
        count, total = dropped(tmp_path)
        grown = (count - before_count, int(total) - before_sum)
        assert grown in ((3, 1002), (2, 1001)), at


def test_a_child_counts_in_no_header_of_its_parents(tmp_path: Path, header: Header) -> None:
    """Rule J4: a closed header refuses, so that a child's drop is not taken for its parent's."""
    header.drop(1)

    def work() -> bool:
        header.close()
        with pytest.raises(ValueError, match="closed"):
            header.drop(1)
        return True

    assert children.run(work)
    header.drop(1)
    assert dropped(tmp_path) == (2, "2")


def test_threads_drop_together(tmp_path: Path, header: Header) -> None:
    """Rule J5: whoever is at it counts for all, and no call returns before its drop is counted."""
    returned = [0] * 4
    too_early: list[int] = []

    def drop_many(number: int) -> None:
        for _ in range(300):
            header.drop(Decimal("0.1"))
            returned[number] += 1
            returned_count = sum(returned)
            if decode_slot("drops", header.image).dropped_count < returned_count:
                too_early.append(returned_count)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=drop_many, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert dropped(tmp_path) == (1200, "120")
    assert too_early == []


def test_a_count_that_is_held_up_is_not_waited_for_for_ever(
    tmp_path: Path, header: Header, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 2: a handler in the midst of a count may itself wait for whoever drops."""
    monkeypatch.setattr(headers, "OTHERS_S", 0.05)
    others: list[threading.Thread] = []

    def handler() -> None:
        others.append(threading.Thread(target=header.drop, args=(10,)))
        others[-1].start()
        others[-1].join()

    drop = partial(header.drop, 1)
    for at in range(1, points(drop) + 1):
        interrupt(drop, at, handler)
    drop()
    assert dropped(tmp_path) == (2 * len(others) + 2, str(11 * len(others) + 2))


def test_a_late_child_does_not_undo_what_the_parent_wrote(tmp_path: Path) -> None:
    """Rule J4: a child forked while the header is made goes on there as well, and touches no slot."""
    numbers = iter(range(1000))

    def make() -> Header:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return Header(folder, ME, 0o600)

    turn_in, turn_out = os.pipe()
    for at in range(1, points(make) + 1):
        forked: list[children.Child | None] = []

        def handler(forked: list[children.Child | None] = forked) -> None:
            forked.append(children.split())
            if forked[0] is None:
                os.read(turn_in, 1)

        made = []
        try:
            made.append(interrupt(make, at, handler))
        except FileExistsError:
            assert forked == [None]
        if forked == [None]:
            children.answer(lambda: None)
        made[0].drop(5)
        os.write(turn_out, b"!")
        assert forked[0] is not None
        forked[0].result()
        assert decode_slot("drops", made[0].image).dropped_quantity == "5", at
    os.close(turn_in)
    os.close(turn_out)
