"""The books as `status` reads them: they balance at every look, and one row or record less tells."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import config
from settle_mp.collector.status import read_status
from settle_mp.core.record import HEAD_BYTES, Slot, encode_slot, whole_records_bytes
from tests.chaos import mounts
from tests.collector.ledgers import fill, rows_of, take_away
from tests.collectors import bench, bind, folder_of, make_journal, segment_of, track, worker
from tests.hosts import host
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from settle_mp.collector.status import Report
    from tests.hosts import Host
    from tests.upstreams import Upstream

__all__ = ["host", "upstream"]

USERS = tuple(f"user_{number}" for number in range(20))


def look(state_dir: Path) -> Report:
    """What `status` finds in a state folder."""
    return read_status(config.load(state_dir=state_dir))


def shape(value: Any) -> Any:
    """The keys and kinds of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return type(value)


# --- What it shows ---


def test_the_shape_is_the_documented_one(state_dir: Path) -> None:
    """Every key of the documented JSON is there with its kind, in a folder that nobody has used."""
    amounts = ("tracked", "confirmed", "pending", "in_doubt", "dead_lettered", "dropped")
    found = look(state_dir).json
    documented = {
        "balanced": True,
        "events": dict.fromkeys(amounts, 0),
        "quantity": dict.fromkeys(amounts, "0"),
        "in_doubt_ever": {"events": 0, "quantity": "0"},
        "oldest_pending_age_s": 0.0,
        "producers_count": 0,
        "durable": True,
        "schema": 1,
        "collector": {"state": "down"},
        "upstream": {"state": "unknown", "last_error": None, "requests_count": 0, "retries_count": 0},
    }
    assert {name: found[name] for name in documented} == documented
    assert shape(json.loads(json.dumps(found))) == shape(found)


def test_events_are_counted_wherever_they_are(state_dir: Path, upstream: Upstream) -> None:
    """Journaled and committed events are pending, sent ones confirmed, in events and in exact quantity."""
    with bench(state_dir, upstream) as parts:
        make_journal(state_dir, "ada", "bob").close()
        parts.take_in()
        parts.ship()
        journal = make_journal(state_dir, "ada")
        parts.take_in()
        track(journal, "ada", quantity=0.1)
        found = look(state_dir).json
        assert found["balanced"]
        assert found["events"] == {
            "tracked": 4, "confirmed": 2, "pending": 2, "in_doubt": 0, "dead_lettered": 0, "dropped": 0,
        }  # fmt: skip
        assert found["quantity"]["pending"] == "1.1"
        assert found["producers_count"] == 1
        assert found["upstream"]["requests_count"] == 1
    journal.close()


def test_the_age_of_the_oldest_event_is_known_without_a_collector(state_dir: Path) -> None:
    """With nobody collecting, the journal's time marks say how long the oldest event has waited."""
    journal = make_journal(state_dir, "ada", at_s=time.time() - 3600)
    age_s = look(state_dir).json["oldest_pending_age_s"]
    assert 3600 <= age_s < 3600 + 60
    journal.close()


def test_dropped_events_are_tracked_and_shown(state_dir: Path) -> None:
    """What a bound or a check refused is in the books, also after its worker is gone and adopted."""
    journal = make_journal(state_dir, "ada")
    journal.drop(Decimal("2.5"))
    found = [look(state_dir).json]
    journal.close()
    with bench(state_dir) as parts:
        parts.take_in()
        found.append(look(state_dir).json)
    for each in found:
        assert each["balanced"]
        assert (each["events"]["dropped"], each["quantity"]["dropped"]) == (1, "2.5")
        assert each["events"]["tracked"] == 2


def test_who_waits_for_a_person_is_named(state_dir: Path) -> None:
    """A journal that is bound to a ledger nobody here knows is named, also while no collector runs."""
    with bench(state_dir):
        pass
    journal = make_journal(state_dir, "ada")
    bind(state_dir, journal, bytes(range(16)), 0)
    report = look(state_dir)
    assert [journal.producer.hex() in note for note in report.notes] == [True]
    assert report.json["waiting"] == report.notes
    assert report.json["events"]["pending"] == 1
    journal.close()


# --- Every look balances ---


@pytest.mark.slow
def test_the_books_balance_at_every_look(host: Host) -> None:
    """Fifty looks while workers track as fast as they can, die and begin, and the collector is killed."""
    tracked = 0
    collector = host.collector()
    with worker(host) as ada, worker(host) as bob, worker(host, "--silent") as cy:
        bursts = [each.ask("burst", 6.0) for each in (ada, bob, cy)]
        for number in range(50):
            report = look(host.state_dir)
            assert report.is_balanced, (number, report.json)
            assert report.json["events"]["tracked"] >= tracked, (number, report.json)
            tracked = report.json["events"]["tracked"]
            if number == 15:
                ada.kill()
            if number == 25:
                collector.kill_group()
            if number == 32:
                collector = host.collector()
        counts = [burst.wait() for burst in bursts[1:]]
        assert tracked > 0
        wait_until(lambda: host.status()["events"]["pending"] == 0, "all is shipped", 60.0)
        books = look(host.state_dir).json
        assert books["balanced"]
        # On a busy machine a journal may come to its bound while the collector is away.
        assert books["events"]["confirmed"] + books["events"]["dropped"] >= sum(counts)
        assert host.upstream.quantity() == books["events"]["confirmed"]


def test_a_record_that_is_being_written_is_no_damage(state_dir: Path) -> None:
    """The last record of a journal may be half there, whether its writer lives or was killed just then."""
    journal = make_journal(state_dir, *USERS)
    path = segment_of(state_dir, journal)
    end = whole_records_bytes(path.read_bytes())
    with path.open("r+b") as file:
        file.seek(end)
        file.write(b"\x20\x00\x01\x02\x03\x04")
    assert look(state_dir).json["balanced"]
    journal.close()
    assert look(state_dir).json["balanced"]


# --- One thing less ---


def zero_record(body: bytearray, start: int, end: int) -> None:
    """As a lost page does."""
    body[start:end] = bytes(end - start)


def cut_out_record(body: bytearray, start: int, end: int) -> None:
    """As somebody does who does not want to be seen."""
    body[start:] = body[end:] + bytes(end - start)


def records_of(body: bytes) -> list[tuple[int, int]]:
    """Where each record begins and ends."""
    found, at, end = [], 0, whole_records_bytes(body)
    while at < end:
        length = HEAD_BYTES + int.from_bytes(body[at : at + 2], "little")
        found.append((at, at + length))
        at += length
    return found


@pytest.mark.parametrize("take", [zero_record, cut_out_record])
@pytest.mark.parametrize("is_dead", [False, True])
def test_one_record_less_tells(
    state_dir: Path, take: Callable[[bytearray, int, int], None], *, is_dead: bool
) -> None:
    """Any journal record but the last, zeroed or cut out, is missed, and its journal named."""
    journal = make_journal(state_dir, *USERS)
    path = segment_of(state_dir, journal)
    if is_dead:
        journal.close()
    whole = path.read_bytes()
    assert look(state_dir).json["balanced"]
    for start, end in records_of(whole)[:-1]:
        body = bytearray(whole)
        take(body, start, end)
        path.write_bytes(body)
        report = look(state_dir)
        assert not report.json["balanced"], start
        assert journal.producer.hex() in report.faults[0]
    path.write_bytes(whole)
    assert look(state_dir).json["balanced"]
    journal.close()


def test_a_record_that_was_acked_by_nobody_is_missed_in_the_count(state_dir: Path) -> None:
    """The worker's own count up to the last ack and its records from there on must meet the ledger's."""
    journal = make_journal(state_dir, *USERS)
    with bench(state_dir) as parts:
        parts.take_in()
        ledger = parts.parts.state.ledger.id
    journal.commit(ledger, journal.tail)
    track(journal, "ada")
    assert look(state_dir).json["balanced"]
    at, data = encode_slot(
        "courier",
        Slot(sequence=9, ledger=ledger, position=journal.committed, events_count=len(USERS) + 1),
    )
    with (folder_of(state_dir, journal) / "header").open("r+b") as file:
        file.seek(at)
        file.write(data)
    faults = look(state_dir).faults
    assert ["producer" in fault and journal.producer.hex()[:8] in fault for fault in faults] == [True]
    journal.close()


def test_a_segment_less_tells(state_dir: Path) -> None:
    """A whole file of a journal that is gone, or its end, is missed as well."""
    journal = make_journal(state_dir)
    track(journal, *(f"user_{number}" for number in range(3_000)))
    journal.close()
    files = sorted(folder_of(state_dir, journal).glob("*.seg"))
    assert len(files) > 1
    assert look(state_dir).json["balanced"]
    away = files[0].with_suffix(".away")
    files[0].rename(away)
    assert "are gone" in look(state_dir).faults[0]
    away.rename(files[0])
    for file in files:
        file.rename(file.with_suffix(".away"))
    assert "its segments are gone" in look(state_dir).faults[0]


def test_one_ledger_row_less_tells(state_dir: Path, tmp_path: Path) -> None:
    """Any row of any table of the ledger, taken away, is missed, and its bucket or table named."""
    till = fill(state_dir / "ledger")
    till.ledger.close()
    before = set(look(state_dir).faults)
    assert len(before) == 1, "the residue that `fill` puts in"
    rows = rows_of(state_dir / "ledger" / "ledger.db")
    assert len({table for table, _ in rows}) > 10
    for number, (table, key) in enumerate(rows):
        copy = tmp_path / str(number)
        shutil.copytree(state_dir, copy)
        take_away(copy / "ledger" / "ledger.db", table, key)
        report = look(copy)
        assert not report.json["balanced"]
        assert set(report.faults) - before, (table, key)
        shutil.rmtree(copy)


def test_a_ledger_that_is_gone_tells(state_dir: Path) -> None:
    """A folder whose ledger was removed does not pass for a new one."""
    with bench(state_dir):
        pass
    for path in (state_dir / "ledger").glob("ledger.db*"):
        path.unlink()
    report = look(state_dir)
    assert not report.json["balanced"]
    assert "is gone" in report.faults[0]


def test_a_ledger_that_is_none_tells(state_dir: Path) -> None:
    """A file that SQLite can't read is a fault with the usual shape around it, and no error."""
    with bench(state_dir):
        pass
    journal = make_journal(state_dir, "ada")
    (state_dir / "ledger" / "ledger.db").write_bytes(os.urandom(4096))
    report = look(state_dir)
    assert not report.json["balanced"]
    assert report.faults[0].startswith("ledger: it can't be read")
    assert report.json["events"]["pending"] == 1
    journal.close()


@pytest.mark.skipif(bool(mounts.cannot_mount()), reason=mounts.cannot_mount())
def test_it_is_read_where_nobody_may_write(state_dir: Path, upstream: Upstream) -> None:
    """Under a collector; where none runs SQLite can't read its file, and that is told."""
    journal = make_journal(state_dir, "ada", "bob")
    with bench(state_dir, upstream) as made:
        made.take_in()
        with mounts.read_only(state_dir):
            report = look(state_dir)
    assert (report.faults, report.json["events"]["tracked"]) == ([], 2)
    with mounts.read_only(state_dir):
        report = look(state_dir)
    assert report.faults == ["ledger: it can't be read: unable to open database file"]
    journal.close()


@pytest.mark.parametrize("name", ["header", "segment"])
def test_what_cant_be_read_now_is_no_damage(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is read again, and told when it can't be read then either."""
    journal = make_journal(state_dir, "ada")
    path = segment_of(state_dir, journal) if name == "segment" else folder_of(state_dir, journal) / name
    real, left = os.pread, [0]

    def pread(descriptor: int, size: int, at: int) -> bytes:
        if left[0] and os.path.samestat(os.fstat(descriptor), path.stat()):
            left[0] -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, size, at)

    monkeypatch.setattr(os, "pread", pread)
    for left[0], faults in (1, []), (1000, [f"journal {journal.producer.hex()}: it can't be read"]):
        report = look(state_dir)
        assert [fault.partition(": Input")[0] for fault in report.faults] == faults
    journal.close()
