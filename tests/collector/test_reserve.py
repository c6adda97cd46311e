"""The reserve: it takes space while there is plenty, and gives it when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from settle_mp.collector.reserve import Reserve

if TYPE_CHECKING:
    from pathlib import Path


def test_the_reserve_really_takes_the_space(tmp_path: Path) -> None:
    """Its blocks are allocated, not only its length; it is ours alone; keeping it twice changes nothing."""
    reserve = Reserve(tmp_path / "reserve", 1024 * 1024)
    assert not reserve.is_whole()
    reserve.keep()
    reserve.keep()
    found = (tmp_path / "reserve").stat()
    assert reserve.is_whole()
    assert found.st_blocks * 512 >= 1024 * 1024
    assert found.st_mode & 0o777 == 0o600


def test_what_was_given_is_taken_back(tmp_path: Path) -> None:
    """After a release the blocks are free, until there is room to keep them again."""
    reserve = Reserve(tmp_path / "reserve", 1024 * 1024)
    reserve.keep()
    reserve.release()
    assert (tmp_path / "reserve").stat().st_blocks == 0
    assert not reserve.is_whole()
    reserve.keep()
    assert reserve.is_whole()


def test_no_reserve_is_kept_where_it_would_take_the_last(tmp_path: Path) -> None:
    """A reserve that would itself fill the disk is not made."""
    reserve = Reserve(tmp_path / "reserve", 1 << 60)
    reserve.keep()
    assert not (tmp_path / "reserve").exists()


def test_a_reserve_that_is_not_needed_is_not_lent(tmp_path: Path) -> None:
    """A start with room on the disk leaves the reserve alone."""
    reserve = Reserve(tmp_path / "reserve", 1024 * 1024)
    reserve.keep()
    reserve.lend()
    assert reserve.is_whole()


def test_a_reserve_in_a_folder_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Nothing about the reserve ever stops the ledger."""
    reserve = Reserve(tmp_path / "nowhere" / "reserve")
    reserve.keep()
    reserve.lend()
    reserve.release()
    assert not reserve.is_whole()
