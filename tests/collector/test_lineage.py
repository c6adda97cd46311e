"""Lineage: a ledger that went back in time, or was damaged, is put aside and named; it is never believed."""

from __future__ import annotations

import errno
import logging
import os
import pathlib
import random
import shutil
import sqlite3
import tempfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector import lineage, schema, sidefile
from settle_mp.collector.database import Database
from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.lineage import Bond, open_or_replace, put_aside, put_aside_ids
from settle_mp.core.books import Amount
from tests.collector.ledgers import MEBIBYTE, NOW_S, Till, dump, dump_of, faults, fill, producer_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path


def start(state_dir: Path, bonds: Iterable[Bond] = ()) -> Till:
    """What the collector does at its start."""
    ledger = open_or_replace(state_dir, bonds, ledger_bytes_max=64 * MEBIBYTE, now_s=NOW_S)
    return Till(ledger)


def files(folder: Path) -> list[str]:
    """The names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def quarantined(state_dir: Path) -> list[str]:
    """The databases in the quarantine."""
    return [name for name in files(state_dir / "quarantine") if name.endswith(".db")]


def copy_files(source: Path, target: Path) -> None:
    """Put the database as it was once in the place of what it is."""
    for suffix in ("", "-wal", "-shm"):
        (target / f"ledger.db{suffix}").unlink(missing_ok=True)
        if (source / f"ledger.db{suffix}").exists():
            shutil.copy(source / f"ledger.db{suffix}", target)


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state folder."""
    return tmp_path / "state"


def test_a_new_folder_gets_a_ledger_and_keeps_it(state_dir: Path) -> None:
    """The first start makes a ledger with a random id, and every later one finds it."""
    till = start(state_dir)
    ledger_id = till.ledger.id
    till.ledger.close()
    assert len(ledger_id) == 16
    assert files(state_dir) == ["ledger"]
    assert (state_dir / "ledger").stat().st_mode & 0o777 == 0o700
    till = start(state_dir)
    assert till.ledger.id == ledger_id
    assert till.ledger.residues() == []
    till.ledger.close()


# L6: a ledger that went back in time is damaged.


def test_an_older_copy_is_not_believed(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With an older file under a newer side file the ledger is put aside, and a new one names the loss."""
    till = start(state_dir)
    till.introduce(1)
    till.batch("ann")
    till.ledger.close()
    shutil.copytree(state_dir / "ledger", state_dir / "copy")
    till = start(state_dir)
    till.batch("bob")
    till.ledger.close()
    copy_files(state_dir / "copy", state_dir / "ledger")
    with caplog.at_level(logging.ERROR, "settle_mp"):
        new = start(state_dir)
    assert new.ledger.id != till.ledger.id
    assert put_aside_ids(state_dir) == {till.ledger.id}
    (name,) = quarantined(state_dir)
    (residue,) = new.ledger.residues()
    assert name in residue
    assert till.ledger.id.hex() in residue
    assert "ends with seal 1, and seal 2 had been written" in residue
    assert "1 events (quantity 1) pending" in residue
    assert faults(new.ledger) == [residue]
    assert [record.message for record in caplog.records] == ["ledger_put_aside"]
    assert len(dump(state_dir / "quarantine" / name)["batches"]) == 1
    new.ledger.close()
    again = start(state_dir)
    assert (again.ledger.id, again.ledger.residues()) == (new.ledger.id, [residue])
    again.ledger.close()


def test_a_ledger_behind_a_header_is_not_believed(state_dir: Path) -> None:
    """A header that was told a later position by this ledger, or of a producer it does not know, decides."""
    till = start(state_dir)
    till.introduce(1)
    till.take(1, 3)
    position = till.ledger.producers()[producer_id(1)].position
    till.ledger.close()
    sound = [
        Bond(producer=producer_id(1), ledger=till.ledger.id, position=position),
        Bond(producer=producer_id(2), ledger=till.ledger.id, position=0),
        Bond(producer=producer_id(1), ledger=bytes(16), position=position + 9),
    ]
    for producer, at in ((1, position + 1), (2, 1)):
        folder = state_dir.with_name(f"copy {producer}")
        shutil.copytree(state_dir, folder)
        ahead = Bond(producer=producer_id(producer), ledger=till.ledger.id, position=at)
        new = start(folder, [*sound, ahead])
        assert new.ledger.id != till.ledger.id
        assert "3 events (quantity 3) pending" in new.ledger.residues()[0]
        new.ledger.close()
    same = start(state_dir, sound)
    assert same.ledger.id == till.ledger.id
    same.ledger.close()


def test_the_mark_is_there_before_a_batch_is(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is handed out, nor marked as attempting, while its seal's number is not in the side file."""
    till = start(state_dir)
    till.introduce(1)
    till.take(1)
    with monkeypatch.context() as broken:
        broken.setattr(sidefile, "write_mark", _no_space)
        with pytest.raises(LedgerError) as caught:
            till.seal()
        assert caught.value.is_full
        assert caught.value.is_outcome_unknown
        with pytest.raises(LedgerError):
            till.ledger.reopen()
        with pytest.raises(LedgerError):
            till.attempt(1)
        assert sidefile.read_mark(state_dir / "ledger") == sidefile.Mark(till.ledger.id, 0)
    till.ledger.reopen()
    assert sidefile.read_mark(state_dir / "ledger") == sidefile.Mark(till.ledger.id, 1)
    (batch,) = till.ledger.outbox.due(NOW_S, 9)
    till.attempt(batch.id)
    till.ledger.close()


def _no_space(folder: Path, mark: sidefile.Mark) -> None:
    raise OSError(28, f"No space left for {mark} in {folder}")


def test_a_death_between_seal_and_mark_is_made_good_at_the_start(state_dir: Path) -> None:
    """A ledger ahead of its side file is sound, and the side file is written before anything is sent."""
    till = start(state_dir)
    till.introduce(1)
    till.batch("ann")
    till.ledger.close()
    for mark in (sidefile.Mark(till.ledger.id, 0), None):
        if mark is None:
            (state_dir / "ledger" / "seal").unlink()
        else:
            sidefile.write_mark(state_dir / "ledger", mark)
        again = start(state_dir)
        assert again.ledger.id == till.ledger.id
        assert sidefile.read_mark(state_dir / "ledger") == sidefile.Mark(till.ledger.id, 1)
        again.ledger.close()


def test_a_seal_within_a_group_marks_when_the_group_ends(state_dir: Path) -> None:
    """The number is only written once it is committed, and not at all when the group is undone."""
    till = start(state_dir)
    till.introduce(1)
    till.take(1)
    with pytest.raises(KeyError), till.ledger.transaction():  # noqa: PT012  a group
        till.seal()
        raise KeyError
    till.load()
    assert sidefile.read_mark(state_dir / "ledger") == sidefile.Mark(till.ledger.id, 0)
    with till.ledger.transaction():
        till.seal()
        assert sidefile.read_mark(state_dir / "ledger") == sidefile.Mark(till.ledger.id, 0)
    assert sidefile.read_mark(state_dir / "ledger") == sidefile.Mark(till.ledger.id, 1)
    till.ledger.close()


# Lost, swapped, foreign.


@pytest.mark.parametrize("gone", [("",), ("", "-wal", "-shm")])
def test_a_ledger_that_is_gone_is_named(state_dir: Path, gone: tuple[str, ...]) -> None:
    """A removed file is a lost ledger and not a first start; its log does not become part of the next one."""
    till = Till(fill(state_dir / "ledger").ledger)
    shutil.copytree(state_dir / "ledger", state_dir / "killed")
    till.ledger.close()
    shutil.rmtree(state_dir / "ledger")
    (state_dir / "killed").rename(state_dir / "ledger")
    for suffix in gone:
        (state_dir / "ledger" / f"ledger.db{suffix}").unlink()
    new = start(state_dir)
    assert put_aside_ids(state_dir) == {till.ledger.id}
    (residue,) = new.ledger.residues()
    assert "is gone" in residue
    assert new.ledger.totals()["committed"] == Amount()
    assert new.ledger.producers() == {}
    new.ledger.close()


def test_a_log_without_anything_else_is_not_taken_up(state_dir: Path) -> None:
    """Even with every other trace gone, a log that lies around is put aside before a ledger is made."""
    till = fill(state_dir / "ledger")
    log = (state_dir / "ledger" / "ledger.db-wal").read_bytes()
    till.ledger.close()
    shutil.rmtree(state_dir / "ledger")
    (state_dir / "ledger").mkdir()
    (state_dir / "ledger" / "ledger.db-wal").write_bytes(log)
    new = start(state_dir)
    assert new.ledger.producers() == {}
    assert len(new.ledger.residues()) == 1
    assert [name for name in files(state_dir / "quarantine") if name.endswith("-wal")]
    new.ledger.close()


def test_another_ledger_in_its_place_is_not_believed(tmp_path: Path) -> None:
    """A ledger from elsewhere is put aside; journals bound to either are known as bound to a lost one."""
    mine, other = start(tmp_path / "mine"), start(tmp_path / "other")
    for till in (mine, other):
        till.ledger.close()
    copy_files(tmp_path / "other" / "ledger", tmp_path / "mine" / "ledger")
    new = start(tmp_path / "mine")
    assert put_aside_ids(tmp_path / "mine") == {mine.ledger.id, other.ledger.id}
    assert new.ledger.id not in {mine.ledger.id, other.ledger.id}
    new.ledger.close()


def test_a_ledger_that_was_put_aside_does_not_come_back(state_dir: Path) -> None:
    """A quarantined file that somebody copies back is put aside once more, and overwrites nothing there."""
    till = start(state_dir)
    till.ledger.close()
    first = put_aside(state_dir, "a test", NOW_S)
    for _ in range(2):
        start(state_dir).ledger.close()
        (state_dir / "ledger" / "ledger.db").unlink()
        shutil.copy(state_dir / "quarantine" / first, state_dir / "ledger" / "ledger.db")
    last = start(state_dir)
    assert len(quarantined(state_dir)) == 3
    assert till.ledger.id in put_aside_ids(state_dir)
    assert last.ledger.id not in put_aside_ids(state_dir)
    assert len(last.ledger.residues()) == 1
    last.ledger.close()


def test_a_ledger_of_another_version_stays_where_it_is(state_dir: Path) -> None:
    """A newer settle-mp's ledger is no damage: the start fails and says so, the file is left alone."""
    till = start(state_dir)
    till.ledger.close()
    with closing(sqlite3.connect(state_dir / "ledger" / "ledger.db")) as connection, connection:
        connection.execute("ALTER TABLE producers ADD COLUMN more TEXT")
        row = schema.META.with_checksum(("schema", str(schema.SCHEMA_VERSION + 1)))
        connection.execute("UPDATE meta SET value = ?, checksum = ? WHERE name = ?", (row[1], row[2], row[0]))
    with pytest.raises(LedgerError, match=f"version {schema.SCHEMA_VERSION + 1}"):
        start(state_dir)
    assert files(state_dir) == ["ledger"]


@pytest.mark.parametrize("content", [b"", b"not a database" * 1000, bytes(8192)])
def test_what_is_no_database_is_put_aside(state_dir: Path, content: bytes) -> None:
    """An empty file or any other is not a first start: the side file still knows whose place it took."""
    till = start(state_dir)
    till.ledger.close()
    (state_dir / "ledger" / "ledger.db").write_bytes(content)
    new = start(state_dir)
    (name,) = quarantined(state_dir)
    assert (state_dir / "quarantine" / name).read_bytes() == content
    assert put_aside_ids(state_dir) == {till.ledger.id}
    assert len(new.ledger.residues()) == 1
    new.ledger.close()


@pytest.mark.parametrize("at", [18, 19])
def test_a_file_that_could_only_be_read_is_put_aside(state_dir: Path, at: int) -> None:
    """SQLite opens a file of a later format without a word, and fails at the first write."""
    till = start(state_dir)
    till.ledger.close()
    with (state_dir / "ledger" / "ledger.db").open("r+b") as file:
        file.seek(at)
        file.write(b"\x07")
    new = start(state_dir)
    assert put_aside_ids(state_dir) == {till.ledger.id}
    new.introduce(1)
    new.ledger.close()


def test_the_log_is_kept_up_whatever_a_tool_has_set(state_dir: Path) -> None:
    """A ledger that somebody took out of WAL mode is in it again."""
    till = start(state_dir)
    till.ledger.close()
    with closing(sqlite3.connect(state_dir / "ledger" / "ledger.db")) as connection:
        assert connection.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    again = start(state_dir)
    assert again.ledger.id == till.ledger.id
    assert again.ledger._database.value("PRAGMA journal_mode") == "wal"
    again.ledger.close()


def test_a_free_list_that_holds_pages_in_use_is_damage(state_dir: Path) -> None:
    """Every row may be sound, and the next write would still go over them: SQLite's own check finds it."""
    till = fill(state_dir / "ledger")
    till.ledger.close()
    with (state_dir / "ledger" / "ledger.db").open("r+b") as file:
        file.seek(32)  # the first page of the free list, and how many there are (sqlite.org/fileformat.html)
        file.write((3).to_bytes(4, "big") + (1).to_bytes(4, "big"))
    new = start(state_dir)
    assert put_aside_ids(state_dir) == {till.ledger.id}
    assert "SQLite finds" in new.ledger.residues()[0]
    new.ledger.close()


def test_a_text_that_is_no_text_is_damage(original: Original, memory_dir: Path) -> None:
    """SQLite quotes what it can't read, and Python fails to decode the quote: that must not stop a start."""
    database = original.files["ledger.db"]
    at = database.index(b"CREATE TABLE producers") + 3
    assert not original.start(memory_dir, "ledger.db", database[:at] + b"\xff\xfe" + database[at + 2 :])
    at = database.rindex(b"requests_count")
    assert not original.start(memory_dir, "ledger.db", database[:at] + b"\xff" + database[at + 1 :])


def test_a_file_that_cannot_be_read_now_is_left_alone(state_dir: Path) -> None:
    """What the system refuses may work later: that is no damage, and nothing is moved."""
    till = start(state_dir)
    till.ledger.close()
    (state_dir / "ledger" / "ledger.db").rename(state_dir / "away")
    (state_dir / "ledger" / "ledger.db").mkdir()
    with pytest.raises(LedgerError):
        start(state_dir)
    assert (state_dir / "ledger" / "ledger.db").is_dir()
    assert put_aside_ids(state_dir) == frozenset()


@pytest.mark.parametrize("times", [1, 2])
def test_damage_is_what_is_found_twice(state_dir: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """SQLite says of an error of reading that the file is malformed; `tests/chaos` has a disk say so."""
    till = start(state_dir)
    till.ledger.close()
    real, left = Database.value, [times]

    def value(database: Database, sql: str, values: Any = ()) -> Any:
        if left[0] and "quick_check" in sql:
            left[0] -= 1
            return "Page 10: unable to get the page. error code=8458"
        return real(database, sql, values)

    monkeypatch.setattr(Database, "value", value)
    after = start(state_dir)
    assert (after.ledger.id != till.ledger.id) is bool(put_aside_ids(state_dir)) is (times == 2)
    after.ledger.close()


def test_what_cant_be_read_is_no_damage(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the disk says so, whatever SQLite says: the file stays where it is."""
    till = start(state_dir)
    till.ledger.close()

    def fail(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(Database, "value", lambda *_: "malformed")
        patch.setattr(lineage, "refuse_unreadable", fail)
        with pytest.raises(LedgerError, match="Input/output error"):
            start(state_dir)
    after = start(state_dir)
    assert after.ledger.id == till.ledger.id
    assert put_aside_ids(state_dir) == frozenset()
    after.ledger.close()


# Deaths in the middle of putting aside, and of being born.


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.mark.parametrize("is_readable", [True, False])
@pytest.mark.parametrize("steps_count", range(12))
def test_a_death_while_it_is_put_aside_is_made_good(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, steps_count: int, *, is_readable: bool
) -> None:
    """Killed between any two changes of the folder: the next start has a new ledger and names the old one."""
    till = fill(state_dir / "ledger")
    ledger_id = till.ledger.id
    shutil.copytree(state_dir / "ledger", state_dir / "killed")
    till.ledger.close()
    shutil.rmtree(state_dir / "ledger")
    (state_dir / "killed").rename(state_dir / "ledger")
    path = state_dir / "ledger" / "ledger.db"
    if not is_readable:
        path.write_bytes(b"?" + path.read_bytes()[1:])
    ahead = Bond(producer=producer_id(1), ledger=ledger_id, position=10**9)
    with monkeypatch.context() as dies:
        left = iter(range(steps_count))
        for owner, name in ((pathlib.Path, "rename"), (pathlib.Path, "replace"), (os, "fsync")):
            dies.setattr(owner, name, dying(getattr(owner, name), left))
        try:
            start(state_dir, [ahead]).ledger.close()
            died = False
        except Killed:
            died = True
    assert died or steps_count > 8
    # Once it is known as put aside, the journal that gave it away may be gone.
    new = start(state_dir, [] if put_aside_ids(state_dir) else [ahead])
    assert new.ledger.id != ledger_id
    assert put_aside_ids(state_dir) == {ledger_id}
    (name,) = quarantined(state_dir)
    (residue,) = new.ledger.residues()
    assert ledger_id.hex() in residue
    assert f"quarantine/{name}" in residue
    # With its log beside it, the database can be read.
    path = state_dir / "quarantine" / name
    path.write_bytes(b"S" + path.read_bytes()[1:])
    assert len(dump(path)["frames"]) == 2
    new.ledger.close()


def dying(real: Callable[..., object], left: Iterator[int]) -> Callable[..., object]:
    """A function that kills its caller once there are no steps left."""

    def step(*values: object, **named: object) -> object:
        if next(left, None) is None:
            raise Killed
        return real(*values, **named)

    return step


def test_a_half_born_ledger_is_born_again(state_dir: Path) -> None:
    """What a death in the middle of the first start left is removed, and is no damage."""
    (state_dir / "ledger").mkdir(parents=True)
    for name in ("ledger.new", "ledger.new-wal", "ledger.new-journal", "seal.new"):
        (state_dir / "ledger" / name).write_bytes(b"half")
    till = start(state_dir)
    assert till.ledger.residues() == []
    assert set(files(state_dir / "ledger")) == {
        "ledger.db",
        "ledger.db-wal",
        "ledger.db-shm",
        "reserve",
        "seal",
    }
    till.ledger.close()


# Whatever happened to the files, a start ends in a ledger that is sound.


class Original:
    """A filled ledger as a kill leaves it: a file, a log, and all the moments that the log can tell of."""

    def __init__(self, folder: Path) -> None:
        till = fill(folder / "live" / "ledger")
        till.ledger._database.cut_log()
        self.moments = [dump_of(till)]
        for change in (
            lambda: till.introduce(8),
            lambda: till.take(8, 2, user="kay"),
            lambda: till.seal(rows_max=3),
            lambda: till.attempt(till.ledger.outbox.due(NOW_S, 1)[0].id),
            lambda: till.ledger.outbox.recover(NOW_S),
            lambda: till.take(8, 1, user="kay"),
        ):
            change()
            self.moments.append(dump_of(till))
        self.id = till.ledger.id
        self.keys = {row[4] for moment in self.moments for row in moment["batches"]}
        self.bodies = {row[2] for moment in self.moments for row in moment["bodies"]}
        self.files = {
            path.name: path.read_bytes()
            for path in (folder / "live" / "ledger").iterdir()
            if path.name in {"ledger.db", "ledger.db-wal", "seal"}
        }
        till.ledger.close()

    def start(self, state_dir: Path, name: str, content: bytes) -> bool:
        """Start with one file replaced. Returns whether the ledger was kept, which is checked either way."""
        (state_dir / "ledger").mkdir(parents=True)
        for each, before in self.files.items():
            (state_dir / "ledger" / each).write_bytes(content if each == name else before)
        till = start(state_dir)
        is_kept = till.ledger.id == self.id
        if is_kept:
            self.check_kept(till)
        else:
            assert put_aside_ids(state_dir) == {self.id}
            assert till.ledger.totals()["committed"] == Amount()
            assert len(till.ledger.residues()) == 1
        till.load()
        till.introduce(77)
        till.take(77, 3)
        till.seal()
        assert faults(till.ledger) == till.ledger.residues()
        till.ledger.close()
        shutil.rmtree(state_dir)
        return is_kept

    def check_kept(self, till: Till) -> None:
        """It is as it was at one moment; only a batch may be hurt, and is held then."""
        found = dump_of(till)
        others = found.keys() - {"batches", "bodies"}
        assert any(all(found[table] == moment[table] for table in others) for moment in self.moments)
        till.ledger.outbox.recover(NOW_S)
        due = till.ledger.outbox.due(NOW_S + 1e6, 100)
        assert {batch.key for batch in due} <= self.keys
        assert {batch.body for batch in due} <= self.bodies
        if not any(found == moment for moment in self.moments):
            assert [text for text in till.ledger.residues() if "fails its checksum" in text]


@pytest.fixture
def memory_dir(tmp_path: Path) -> Iterator[Path]:
    """A state folder in memory, where there is such a place: hundreds of starts sync thousands of times."""
    shared = pathlib.Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield pathlib.Path(folder) / "state"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    """One for all."""
    return Original(tmp_path_factory.mktemp("original"))


def test_a_log_cut_off_anywhere_is_told_by_its_seal(original: Original, memory_dir: Path) -> None:
    """Wherever the log ends, the ledger is as at an earlier moment; before its last seal it is put aside."""
    log = original.files["ledger.db-wal"]
    kept = {
        size: original.start(memory_dir, "ledger.db-wal", log[:size])
        for size in (*range(0, len(log), 512), len(log))
    }
    assert kept[len(log)]
    assert not kept[0]
    assert sorted(kept.values()) == list(kept.values()), "once it is whole enough, it stays so"


def test_a_database_cut_off_anywhere_is_put_aside_or_whole(original: Original, memory_dir: Path) -> None:
    """A file that lost its end is only believed when all that it lost stands in the log."""
    database = original.files["ledger.db"]
    kept = [original.start(memory_dir, "ledger.db", database[:size]) for size in range(0, len(database), 512)]
    assert not all(kept)


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "seal"])
def test_a_flipped_bit_is_found(original: Original, memory_dir: Path, name: str) -> None:
    """Wherever one bit flips, no start crashes, and nothing that changed is believed."""
    dice = random.Random(7)  # noqa: S311
    for _ in range(120):
        content = bytearray(original.files[name])
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        original.start(memory_dir, name, bytes(content))


def test_a_zeroed_or_doubled_page_is_found(original: Original, memory_dir: Path) -> None:
    """What a disk loses by whole pages, or writes to the wrong place, is not believed either."""
    database = original.files["ledger.db"]
    pages = [database[at : at + 4096] for at in range(0, len(database), 4096)]
    for number in range(len(pages)):
        for other in (bytes(4096), pages[number - 1]):
            hurt = [*pages[:number], other, *pages[number + 1 :]]
            original.start(memory_dir, "ledger.db", b"".join(hurt))
