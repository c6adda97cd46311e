"""The ledger's file (rule L1): what fails, at whatever statement, for whatever reason, never happened."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector.bound import LENT_BYTES_MAX
from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.reserve import RESERVE_BYTES
from settle_mp.core.books import Amount
from settle_mp.core.ticket import Trouble
from tests.collector.ledgers import (
    EVENT_BYTES,
    MEBIBYTE,
    NOW_S,
    FailingConnection,
    Till,
    dump_of,
    error_of,
    faults,
    fill,
    open_ledger,
    producer_id,
    put_connection,
    real_connection,
    unsettled,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A new ledger that knows producers 1 and 2."""
    till = Till(open_ledger(tmp_path))
    till.introduce(1, 2)
    yield till
    till.ledger.close()


def batch_in(till: Till, state: str) -> int:
    """A batch in a state, never in doubt."""
    found = map(till.ledger.outbox.get, unsettled(till))
    return next(batch.id for batch in found if batch.state == state and not batch.is_in_doubt)


def wide(till: Till) -> int:
    """A batch of two rows, never in doubt."""
    found = map(till.ledger.outbox.get, unsettled(till))
    return next(batch.id for batch in found if len(batch.lots) == 2 and not batch.is_in_doubt)


def family(till: Till) -> int:
    """The root of a family with a suspect."""
    return till.ledger.outbox.get(batch_in(till, "suspect")).root


def ready_for_all(folder: Path) -> Till:
    """A filled ledger in which each of the operations below has something to do."""
    till = fill(folder)
    till.attempt(till.batch("kim").id)
    till.batch("lou", "moe")
    till.introduce(7)
    till.ledger.mark_gone([producer_id(7)], NOW_S)
    till.take(1, 2, user="max")
    return till


OPERATIONS: dict[str, Callable[[Till], object]] = {
    "commit": lambda till: till.take(1, 2, Decimal("0.5"), invalid=((0, b"x", "bad"),)),
    "introduce": lambda till: till.introduce(8, 9),
    "compact": lambda till: till.compact(),
    "seal": lambda till: till.seal(rows_max=2),
    "forget": lambda till: till.ledger.forget(gone_before_s=NOW_S + 9),
    "mark_gone": lambda till: till.ledger.mark_gone([producer_id(2)], NOW_S),
    "drops": lambda till: till.ledger.record_dropped({producer_id(1): Amount(1, 1)}),
    "bump": lambda till: till.ledger.bump("requests_count"),
    "residue": lambda till: till.ledger.add_residue("b", "c", NOW_S),
    "acknowledge": lambda till: till.ledger.decisions.acknowledge(1, NOW_S),
    "attempt": lambda till: till.attempt(batch_in(till, "ready")),
    "recover": lambda till: till.ledger.outbox.recover(NOW_S),
    "settle": lambda till: till.ledger.outbox.settle(batch_in(till, "attempting"), NOW_S),
    "retry": lambda till: till.ledger.outbox.retry(
        batch_in(till, "attempting"), at_s=NOW_S, is_in_doubt=True, reason="r", now_s=NOW_S
    ),
    "rekey": lambda till: till.ledger.outbox.rekey(
        batch_in(till, "attempting"), at_s=NOW_S, reason="r", now_s=NOW_S
    ),
    "divide": lambda till: till.ledger.outbox.divide(wide(till), [(0,), (1,)], reason="r", now_s=NOW_S),
    "suspect": lambda till: till.ledger.outbox.suspect(batch_in(till, "ready"), reason="r", now_s=NOW_S),
    "bury": lambda till: till.ledger.outbox.dead_letter_suspects(
        family(till), now_s=NOW_S, troubles={producer_id(2): Trouble(0, 1, "r")}
    ),
    "regroup": lambda till: till.ledger.outbox.regroup(family(till), at_s=NOW_S, reason="r", now_s=NOW_S),
    "dead_letter": lambda till: till.ledger.outbox.dead_letter(
        batch_in(till, "attempting"), reason="r", now_s=NOW_S
    ),
    "hold": lambda till: till.ledger.outbox.hold(
        batch_in(till, "attempting"), reason="r", now_s=NOW_S, is_in_doubt=True
    ),
}


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_error_at_any_statement_undoes_everything(tmp_path: Path, name: str, *, is_after: bool) -> None:
    """Whatever statement of whatever operation fails: no row has changed, and the ledger goes on (L1)."""
    till = ready_for_all(tmp_path)
    before = dump_of(till)
    fails_at, error = 0, None
    for fails_at in count(1):
        connection = FailingConnection(real_connection(till.ledger), fails_at, is_after=is_after)
        put_connection(till.ledger, connection)
        error = error_of(lambda: OPERATIONS[name](till), times=1)
        if connection.failed == "COMMIT":
            break
        assert not error.is_outcome_unknown
        put_connection(till.ledger, connection.inner)
        assert dump_of(till) == before
    assert fails_at > 2
    # Only an error of COMMIT leaves open whether it happened: the file tells, once it is opened again.
    assert error is not None
    assert error.is_outcome_unknown
    assert error_of(till.ledger.totals, times=1).is_outcome_unknown
    till.ledger.reopen()
    assert (dump_of(till) == before) == (not is_after)
    if not is_after:
        OPERATIONS[name](till)
    assert faults(till.ledger) == till.ledger.residues()
    till.ledger.close()


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_behind_commit_looks_like_an_error_before_it(tmp_path: Path, name: str) -> None:
    """When the statements that follow a COMMIT fail, the caller is told that it may have happened (L1)."""
    till = ready_for_all(tmp_path / "0")
    recorder = FailingConnection(real_connection(till.ledger), -1, is_after=False)
    put_connection(till.ledger, recorder)
    OPERATIONS[name](till)
    till.ledger.close()
    behind = recorder.statements.index("COMMIT") + 1
    for fails_at in range(behind + 1, len(recorder.statements) + 1):
        till = ready_for_all(tmp_path / str(fails_at))
        connection = FailingConnection(real_connection(till.ledger), fails_at, is_after=False)
        put_connection(till.ledger, connection)
        assert error_of(lambda: OPERATIONS[name](till), times=1).is_outcome_unknown  # noqa: B023  in this turn
        till.ledger.close()


@pytest.mark.parametrize("name", ["commit", "seal", "compact", "divide"])
def test_an_interrupt_between_any_two_steps_undoes_everything(tmp_path: Path, name: str) -> None:
    """SQLite stopped by itself, in the middle of any statement, leaves nothing of an operation."""
    till = ready_for_all(tmp_path)
    before = dump_of(till)
    connection = real_connection(till.ledger)
    for steps in count(0, 3):
        # True once: what is rolled back after it must not be interrupted as well.
        interrupts = iter([False] * steps + [True])
        connection.set_progress_handler(lambda: next(interrupts, False), 10)  # noqa: B023  used in this turn
        try:
            OPERATIONS[name](till)
            break
        except LedgerError as error:
            # In COMMIT, or behind it in what makes a seal's number known.
            if error.is_outcome_unknown:
                break
        assert dump_of(till) == before
    assert steps > 3
    till.ledger.reopen()
    assert faults(till.ledger) == till.ledger.residues()
    till.ledger.close()


def test_an_error_that_somebody_swallows_still_undoes_its_group(till: Till) -> None:
    """SQLite may have undone the transaction already: what follows in it must not be committed alone."""
    before = dump_of(till)
    intake = till.intake(1)
    with pytest.raises(LedgerError, match="undone"), till.ledger.transaction():  # noqa: PT012  a group
        till.ledger.commit([intake], NOW_S)
        with pytest.raises(LedgerError, match="stands at"):
            till.ledger.commit([intake], NOW_S)
        with pytest.raises(LedgerError, match="can't go on"):
            till.ledger.bump("requests_count")
    assert dump_of(till) == before


def test_a_group_is_one_transaction(till: Till) -> None:
    """Calls within `transaction()` happen together or not at all, whatever error ends the group."""
    before = dump_of(till)
    with pytest.raises(KeyError), till.ledger.transaction():  # noqa: PT012  a group
        till.take(1)
        till.ledger.bump("requests_count")
        raise KeyError
    assert dump_of(till) == before
    till.load()
    with till.ledger.transaction():
        till.take(1)
        till.ledger.bump("requests_count")
    assert till.ledger.counters() == {"requests_count": 1}
    assert till.ledger.totals()["pending"] == Amount(1, 1)


@pytest.mark.parametrize("bytes_more", [0, 100, 5000, 20_000])
def test_a_file_that_cannot_grow_fails_whole(till: Till, tmp_path: Path, bytes_more: int) -> None:
    """A real write error of the system, in a statement or in COMMIT: all of a commit is there, or nothing."""
    wal_bytes = (tmp_path / "ledger.db-wal").stat().st_size
    before = dump_of(till)
    intakes = [till.intake(1, 2000), till.intake(2, 2000)]
    with file_size_limit(wal_bytes + bytes_more), pytest.raises(LedgerError) as caught:
        till.ledger.commit(intakes, NOW_S)
    assert "disk I/O error" in str(caught.value)
    till.ledger.reopen()
    assert dump_of(till) == before
    till.ledger.commit(intakes, NOW_S)
    assert till.ledger.totals()["committed"] == Amount(4000, 4000)
    assert faults(till.ledger) == []


def test_at_its_bound_the_ledger_takes_no_more_and_gives_all(tmp_path: Path) -> None:
    """At `ledger_bytes_max` commits are refused, and compaction, seals and answers work; then it goes on."""
    till = Till(open_ledger(tmp_path, ledger_bytes_max=MEBIBYTE))
    till.introduce(1)
    assert error_of(lambda: till.take(1, 100, user=f"user {till.ledger.raw_bytes}")).is_full
    assert till.ledger._database.used_bytes() <= MEBIBYTE + 64 * 1024
    numbers = count(100)
    assert error_of(lambda: till.introduce(next(numbers))).is_full
    till.compact()
    till.take(1, user="ann")
    for batch_id in till.seal():
        till.attempt(batch_id)
        till.ledger.outbox.settle(batch_id, NOW_S)
    till.take(1, 100)
    assert faults(till.ledger) == []
    till.ledger.close()


def test_what_is_more_than_the_bound_comes_in_all_the_same(tmp_path: Path) -> None:
    """A dead worker's journal that is read at once may be larger than a small ledger may become."""
    till = Till(open_ledger(tmp_path, ledger_bytes_max=MEBIBYTE))
    till.introduce(1)
    till.take(1, 2 * MEBIBYTE // EVENT_BYTES)
    assert error_of(lambda: till.take(1), times=1).is_full
    assert faults(till.ledger) == []
    till.ledger.close()


def test_a_slow_reader_does_not_stop_intake_for_good(tmp_path: Path) -> None:
    """A log that a reader kept from being cut counts against the bound, until the reader is gone."""
    till = Till(open_ledger(tmp_path, ledger_bytes_max=4 * MEBIBYTE))
    till.introduce(1)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM meta").fetchall()
        assert error_of(lambda: turn_over(till), times=600).is_full
        assert error_of(lambda: till.take(1, 3000), times=1).is_full
    till.take(1, 3000)
    assert faults(till.ledger) == []
    till.ledger.close()


def turn_over(till: Till) -> None:
    """Let a lot come and go."""
    till.take(1, 3000)
    for batch_id in till.seal():
        till.ledger.outbox.settle(batch_id, NOW_S)


def test_a_full_disk_refuses_intake_and_lets_everything_else_work(small_disk: Path) -> None:
    """On a full disk nothing happens by half, and the reserve lets seals and answers through."""
    till = Till(open_ledger(small_disk / "ledger"))
    till.introduce(1)
    assert till.ledger._reserve.is_whole()
    for user in range(200):
        till.take(1, 200, user=f"user {user}")
    till.ledger._database.cut_log()  # its blocks would be used again, and hide the full disk for a while
    fill_disk(small_disk)
    error = error_of(lambda: till.take(1, 2000, user="ann"), times=1)
    assert error.is_full
    if error.is_outcome_unknown:
        till.ledger.reopen()
    till.load()
    known, row = till.ledger.totals()["committed"], till.ledger.producers()[producer_id(1)]
    assert known.events * EVENT_BYTES == row.position
    assert till.ledger._reserve.is_whole()
    assert faults(till.ledger) == []
    retried(till, till.compact)
    assert not till.ledger._reserve.is_whole()
    for batch_id in retried(till, till.seal):
        retried(till, lambda: till.attempt(batch_id))  # noqa: B023  used in this turn
        retried(till, lambda: till.ledger.outbox.settle(batch_id, NOW_S))  # noqa: B023
    assert till.ledger.totals()["confirmed"] == known
    assert faults(till.ledger) == []
    (small_disk / "filler").unlink()
    till.take(1, 2000)
    assert till.ledger._reserve.is_whole()
    till.ledger.close()


def test_nothing_comes_in_where_it_would_keep_others_from_leaving(small_disk: Path) -> None:
    """While the reserve is lent, the ledger takes in little at a time; once there is room, all again."""
    till = Till(open_ledger(small_disk / "ledger"))
    till.introduce(1)
    reserve = till.ledger._reserve
    while till.ledger._database.used_bytes() < LENT_BYTES_MAX:
        till.take(1, 3000)
    reserve.release()
    space = os.statvfs(small_disk)
    with (small_disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_frsize - RESERVE_BYTES)
    assert "while the disk is full" in str(error_of(lambda: till.take(1), times=1))
    for batch_id in till.seal():
        till.ledger.outbox.settle(batch_id, NOW_S)
    till.take(1)
    assert not reserve.is_whole()
    (small_disk / "filler").unlink()
    till.take(1)
    assert reserve.is_whole()
    assert faults(till.ledger) == []
    till.ledger.close()


def test_a_collector_starts_on_a_full_disk(small_disk: Path) -> None:
    """Even opening a database takes room, which the reserve gives."""
    till = Till(open_ledger(small_disk / "ledger"))
    till.introduce(1)
    till.take(1, 20)
    till.ledger.close()
    fill_disk(small_disk)
    till = Till(open_ledger(small_disk / "ledger"))
    till.seal()
    assert faults(till.ledger) == []
    till.ledger.close()


def retried(till: Till, do: Callable[[], Any]) -> Any:
    """Do it as the collector does: after an error, read again what the ledger holds, and try once more."""
    try:
        return do()
    except LedgerError as error:
        if error.is_outcome_unknown:
            till.ledger.reopen()
        till.load()
        return do()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=0700", "tmpfs", str(disk)]
    try:
        is_mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    if not is_mounted:
        pytest.skip("mounting a small file system needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill_disk(disk: Path) -> None:
    """Leave not one free block."""
    with (disk / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        list(iter(lambda: file.write(bytes(4096)), None))


WRITER = """
import sys
from pathlib import Path
from tests.collector.ledgers import Till, open_ledger, producer_id
till = Till(open_ledger(Path(sys.argv[1])))
till.introduce(1)
till.ledger.outbox.recover(0.0)
number = till.ledger.producers()[producer_id(1)].position
for turn in range(10**9):
    till.take(1, 20, user=f"user {turn % 50}")
    position, confirmed = till.ledger.producers()[producer_id(1)].position, till.ledger.totals()["confirmed"]
    print(position, confirmed.events, flush=True)
    if turn % 7 == 6:
        till.compact()
    if turn % 5 == 4:
        for batch in till.seal(rows_max=3):
            till.attempt(batch)
            till.ledger.outbox.settle(batch, 0.0)
"""


def test_what_commit_returned_for_survives_sigkill(tmp_path: Path) -> None:
    """Killed again and again at any moment: all that was acknowledged is there, and the books balance."""
    for lines_count in range(1, 60, 6):
        position, confirmed = killed_after(lines_count, tmp_path)
        till = Till(open_ledger(tmp_path))
        row, totals = till.ledger.producers()[producer_id(1)], till.ledger.totals()
        assert row.position >= position
        assert totals["confirmed"].events >= confirmed
        assert totals["committed"].events * EVENT_BYTES == row.position
        assert faults(till.ledger) == []
        till.seal()
        till.ledger.close()


def killed_after(lines_count: int, folder: Path) -> tuple[int, int]:
    """What a writer had said last before it was killed."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(lines_count)]
        writer.send_signal(signal.SIGKILL)
        lines += writer.stdout.readlines()
    # A line without its end was cut off by the kill.
    position, confirmed = [line for line in lines if line.endswith("\n")][-1].split()
    return int(position), int(confirmed)


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size; Python ignores SIGXFSZ, so that writes fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
