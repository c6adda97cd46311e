"""The ledger: what it was told, it holds, to itself, and for as long as its file is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector.database import Database
from settle_mp.collector.ledger import Intake, Ledger, LedgerDamagedError, LedgerError
from settle_mp.core.books import Amount
from settle_mp.core.ticket import Trouble
from tests.collector.ledgers import HOUR, NOW_S, Till, dump_of, faults, fill, open_ledger, producer_id

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


# What is committed is there.


def test_what_was_committed_is_read_back(till: Till, tmp_path: Path) -> None:
    """Bytes, places, times, exact quantities and skipped events come back as they went in, in order."""
    bad = ((1, b"\x00\xff", "not msgpack"), (4, b"\x01", "no list"))
    first = till.intake(1, 3, Decimal("0.3"), invalid=bad)
    second = till.intake(2, 1, 10**30)
    till.ledger.commit([first, second], NOW_S)
    till.ledger.close()
    ledger = open_ledger(tmp_path)
    frames: list[Any] = list(ledger.stored())
    for frame, intake in zip(frames, [first, second], strict=True):
        for name in (
            "producer",
            "first",
            "last",
            "base",
            "hour",
            "cut_s",
            "body",
            "events_count",
            "quantity",
        ):
            assert getattr(frame, name) == getattr(intake, name)
    assert [frame.skipped for frame in frames] == [{1, 4}, set()]
    assert type(frames[1].quantity) is int
    row = ledger.producers()[producer_id(1)]
    assert (row.position, row.sealed_position, row.open_events_count) == (first.last, 0, 3)
    assert row.events == Amount(5, Decimal("0.3"))
    assert faults(ledger) == []
    ledger.close()


def test_invalid_events_are_counted_and_kept(till: Till) -> None:
    """An invalid event moves the position and lies in the dead letters, with nobody's quantity."""
    till.take(1, 2, 5, invalid=((0, b"\xc1", "not msgpack: ExtraData"),))
    (letter,) = till.ledger.outbox.dead_letters()
    assert (letter.origin, letter.producer, letter.payload) == ("event", producer_id(1), b"\xc1")
    assert (letter.hour, letter.reason, letter.quantity) == (HOUR, "not msgpack: ExtraData", 0)
    assert till.ledger.totals()["committed"] == Amount(3, 5)
    assert till.ledger.totals()["pending"] == Amount(2, 5)
    assert till.ledger.totals()["dead_lettered"] == Amount(1, 0)
    till.take(1, events_count=0, invalid=((0, b"\xc1", "again"),))
    assert len(list(till.ledger.stored())) == 1
    assert faults(till.ledger) == []


def test_memory_that_ran_ahead_is_refused(till: Till) -> None:
    """A run that does not begin at its producer's position is not taken, nor is what came with it."""
    before = dump_of(till)
    good, ahead = till.intake(1), till.intake(2)
    till.ledger.commit([ahead], NOW_S)
    with pytest.raises(LedgerError, match=f"stands at {ahead.last}"):
        till.ledger.commit([good, ahead], NOW_S)
    with pytest.raises(LedgerError, match="not introduced"):
        till.ledger.commit([good, unknown(good)], NOW_S)
    assert till.ledger.producers()[producer_id(1)].position == 0
    assert dump_of(till)["producers"][0] == before["producers"][0]
    assert faults(till.ledger) == []


def test_several_runs_of_one_producer_make_one_advance(till: Till) -> None:
    """Runs of the same producer in one commit follow each other."""
    first = till.intake(1, 2)
    till.ledger.commit([first, follow(first), follow(follow(first))], NOW_S)
    assert till.ledger.producers()[producer_id(1)].position == 3 * first.last
    assert till.ledger.totals()["committed"] == Amount(6, 6)


def test_the_ledger_is_bound_to_one_key_mode(till: Till, tmp_path: Path) -> None:
    """The mode is set once, survives, and another one is refused."""
    assert till.ledger.key_mode == ""
    till.ledger.set_key_mode("live")
    till.ledger.set_key_mode("live")
    with pytest.raises(ValueError, match="'live'"):
        till.ledger.set_key_mode("test")
    till.ledger.close()
    ledger = open_ledger(tmp_path)
    assert ledger.key_mode == "live"
    ledger.close()


def test_small_things_survive(till: Till, tmp_path: Path) -> None:
    """Counters, troubles, drops and residues are there after a restart; each can be changed."""
    ledger = till.ledger
    ledger.bump("requests_count")
    ledger.bump("requests_count", 4)
    trouble = Trouble(40, 2, "held: \ud800 no answer")
    ledger.put_troubles({producer_id(1): trouble, producer_id(2): trouble})
    ledger.take_trouble(producer_id(2))
    ledger.record_dropped({producer_id(1): Amount(3, Decimal("1.5")), producer_id(77): Amount(1, 1)})
    ledger.add_residue("a", "first", NOW_S)
    ledger.add_residue("a", "second", NOW_S)
    ledger.close()
    ledger = open_ledger(tmp_path)
    assert ledger.counters() == {"requests_count": 5}
    assert ledger.troubles() == {producer_id(1): Trouble(40, 2, "held: ? no answer")}
    assert ledger.producers()[producer_id(1)].dropped == Amount(3, Decimal("1.5"))
    assert ledger.residues() == ["second"]
    assert faults(ledger) == ["second"]
    ledger.close()


# Seals.


def test_a_seal_turns_everything_into_batches(till: Till) -> None:
    """Frames and sums become batches of the same bytes; each producer is sealed to its end."""
    till.take(1, 3, user="ann")
    till.compact()
    till.take(2, 2, Decimal("0.5"), user="bob")
    drafts, reaches = till.drafts(rows_max=1), till.reaches()
    sealed = till.ledger.seal(drafts, reaches, NOW_S)
    batches = [till.ledger.outbox.get(batch_id) for batch_id in sealed.batches]
    assert [batch.draft for batch in batches] == drafts
    assert len({batch.key for batch in batches}) == 2
    assert list(till.ledger.stored()) == []
    rows = till.ledger.producers().values()
    assert all(row.sealed_position == row.position and row.open_events_count == 0 for row in rows)
    assert till.ledger.totals()["pending"] == Amount(5, Decimal("3.5"))
    (seal,) = till.ledger.outbox.seals()
    assert (seal.number, dict(seal.reaches), seal.batches) == (1, reaches, set(sealed.batches))
    assert batches[0].oldest_s == till.ledger.oldest_pending_s() == HOUR * 3600 + 60.0


def test_a_seal_of_nothing_makes_no_seal(till: Till) -> None:
    """Producers that only tracked what was refused count as sealed, and there is nothing to send."""
    till.take(1, events_count=0, invalid=((0, b"x", "bad"),))
    sealed = till.ledger.seal([], {}, NOW_S)
    assert sealed.batches == ()
    assert till.ledger.outbox.seals() == []
    row = till.ledger.producers()[producer_id(1)]
    assert row.sealed_position == row.position > 0


# Files.


def test_the_files_are_ours_alone(tmp_path: Path) -> None:
    """Nobody else reads what was tracked, whatever the umask; the ledger's log and side files included."""
    before = os.umask(0)
    try:
        till = fill(tmp_path / "ledger")
    finally:
        os.umask(before)
    names = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "ledger").iterdir()}
    assert names == dict.fromkeys(["ledger.db", "ledger.db-wal", "ledger.db-shm", "seal", "reserve"], "0o600")
    till.ledger.close()


def test_a_loss_of_power_keeps_what_was_committed(till: Till) -> None:
    """The log is synced with each commit, which only `synchronous=FULL` does."""
    assert till.ledger._database.value("PRAGMA synchronous") == 2
    assert till.ledger._database.value("PRAGMA journal_mode") == "wal"


def test_what_is_read_again_is_on_the_disk_first(
    till: Till, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit whose sync failed may be read in the log all the same, and by the kernel's word be synced.

    So the log is written into the file before anybody is told of it; an error of that is one of opening.
    """
    log = tmp_path / "ledger.db-wal"
    # A reader keeps `close` from doing the same.
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as reader:
        reader.execute("SELECT * FROM meta").fetchall()
        for is_start in (False, True):
            till.take(1)
            assert log.stat().st_size > 0
            open_ledger(tmp_path).close() if is_start else till.ledger.reopen()
            assert log.stat().st_size == 0
    for error in (LedgerError("disk I/O error"), LedgerError("database or disk is full", is_full=True)):
        monkeypatch.setattr(Database, "cut_log", raising(error))
        with contextlib.nullcontext() if error.is_full else pytest.raises(LedgerError, match="I/O"):
            till.ledger.reopen()


def raising(error: LedgerError) -> Callable[[Database], None]:
    """Something that can't be done."""

    def fail(_: Database) -> None:
        raise error

    return fail


def test_a_file_that_was_removed_or_replaced_is_noticed(till: Till, tmp_path: Path) -> None:
    """What is written into a file without a name is gone with us: no commit is acknowledged from then on."""
    (tmp_path / "ledger.db").rename(tmp_path / "elsewhere")
    with pytest.raises(LedgerError, match="gone"):
        till.take(1)
    with pytest.raises(LedgerDamagedError, match="gone"):
        till.ledger.reopen()


def test_a_closed_ledger_refuses(till: Till) -> None:
    """After `close` every call raises, and closing again does nothing."""
    till.ledger.close()
    till.ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        till.ledger.totals()
    with pytest.raises(LedgerError, match="closed"):
        till.introduce(5)


def test_a_reader_sees_one_moment_and_changes_nothing(till: Till, tmp_path: Path) -> None:
    """`status` reads beside a running collector: one snapshot, in balance, and no write."""
    till.take(1, 3)
    reader = Ledger.open_read_only(tmp_path)
    assert (faults(reader), reader.totals()["pending"]) == ([], Amount(3, 3))
    till.take(1, 4)
    assert (faults(reader), reader.totals()["pending"]) == ([], Amount(3, 3))
    with pytest.raises(LedgerError):
        reader.bump("x")
    reader.close()
    reader = Ledger.open_read_only(tmp_path)
    assert reader.totals()["pending"] == Amount(7, 7)
    reader.close()


def test_a_reader_needs_no_collector(till: Till, tmp_path: Path) -> None:
    """What a killed collector had committed can be read from its files, which stay as they are."""
    till.take(1, 3)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(tmp_path / name, killed)
    before = {path.name: path.read_bytes() for path in killed.iterdir()}
    reader = Ledger.open_read_only(killed)
    assert (faults(reader), reader.totals()["pending"]) == ([], Amount(3, 3))
    reader.close()
    assert {name: (killed / name).read_bytes() for name in before} == before
    with pytest.raises(LedgerError, match="unable to open"):
        Ledger.open_read_only(tmp_path / "nowhere")


def follow(intake: Intake) -> Intake:
    """The run behind a run."""
    return replace(intake, first=intake.last, last=2 * intake.last - intake.first)


def unknown(intake: Intake) -> Intake:
    """The run of a producer that nobody introduced."""
    return replace(intake, producer=producer_id(99))
