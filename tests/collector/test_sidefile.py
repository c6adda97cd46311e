"""Side files: whole or not there, ours alone, and never believed when they changed."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import pytest

from settle_mp.collector.sidefile import (
    Aside,
    Mark,
    aside_ids,
    read_asides,
    read_mark,
    write_asides,
    write_mark,
)

if TYPE_CHECKING:
    from pathlib import Path

MARK = Mark(bytes(range(16)), 41)
ASIDE = Aside(ids=("00" * 16, "ff" * 16), name="ledger-1.db", reason="it is “old”", held="nothing", at_s=1.5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Both files come back as they went in, and the newest stands."""
    assert read_mark(tmp_path) is None
    assert read_asides(tmp_path) == []
    write_mark(tmp_path, MARK)
    write_mark(tmp_path, Mark(MARK.ledger, 42))
    write_asides(tmp_path, [ASIDE, ASIDE])
    assert read_mark(tmp_path) == Mark(MARK.ledger, 42)
    assert read_asides(tmp_path) == [ASIDE, ASIDE]
    assert aside_ids(tmp_path) == {bytes(16), b"\xff" * 16}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aside", "seal"]
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_the_old_one_stands_until_the_new_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error while it is written, synced or renamed leaves the file as it was; the next try works."""
    write_mark(tmp_path, MARK)
    for name in ("fsync", "fdopen"):
        with monkeypatch.context() as broken:
            broken.setattr(f"os.{name}", no_space)
            with pytest.raises(OSError, match="no space"):
                write_mark(tmp_path, Mark(MARK.ledger, 99))
        assert read_mark(tmp_path) == MARK
    write_mark(tmp_path, Mark(MARK.ledger, 99))
    assert read_mark(tmp_path) == Mark(MARK.ledger, 99)


def no_space(*_: object) -> None:
    """Fail as a full disk does."""
    raise OSError(28, "no space")


def test_a_file_that_changed_is_not_believed(tmp_path: Path) -> None:
    """Cut off anywhere, or with any byte changed, it reads as if there were none."""
    write_mark(tmp_path, MARK)
    write_asides(tmp_path, [ASIDE])
    for path, read, nothing in ((tmp_path / "seal", read_mark, None), (tmp_path / "aside", read_asides, [])):
        content = path.read_bytes()
        for at in range(len(content)):
            for hurt in (content[:at], content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]):
                path.write_bytes(hurt)
                assert read(tmp_path) == nothing


@pytest.mark.parametrize("text", [b"[]", b"{}", b'{"ledger": 1, "seal_number": "x"}', b'[{"ids": 3}]', b"7"])
def test_a_sound_file_of_something_else_is_nothing(tmp_path: Path, text: bytes) -> None:
    """A file with the right checksum and the wrong content stops no start."""
    for name in ("seal", "aside"):
        (tmp_path / name).write_bytes(b"%08x\n%s" % (crc32(text), text))
    assert read_mark(tmp_path) is None
    assert read_asides(tmp_path) == []
