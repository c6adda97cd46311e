"""Rows carry a checksum that any change of any column breaks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.collector import schema
from settle_mp.collector.schema import TEXT_CHARS_MAX, Table, plain_text

VALUES = st.one_of(
    st.none(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(), st.binary()
)
PLAIN = Table("plain", "a", "b", "c")
NUMBERED = Table("numbered", "a", "b", "c", is_numbered=True)


@given(st.tuples(VALUES, VALUES, VALUES), st.integers(0, 2), VALUES)
def test_a_changed_column_breaks_the_checksum(row: tuple[Any, ...], at: int, other: Any) -> None:
    """One value in the place of another is found, also an int for the equal float, or in another table."""
    written = PLAIN.with_checksum(row)
    assert PLAIN.is_sound(written)
    changed = (*written[:at], other, *written[at + 1 :])
    is_same = repr(other) == repr(row[at])
    assert PLAIN.is_sound(changed) == is_same
    assert not Table("another", "a", "b", "c").is_sound(written)


@given(st.tuples(VALUES, VALUES, VALUES), st.integers(1, 2**40))
def test_a_number_given_by_sqlite_is_in_no_checksum(row: tuple[Any, ...], number: int) -> None:
    """It is not known yet when the row is written."""
    assert NUMBERED.is_sound((number, *NUMBERED.with_checksum(row)))


@pytest.mark.parametrize("value", ["\ud800", 2**64, object()])
def test_what_cannot_have_been_written_is_not_sound(value: object) -> None:
    """A damaged file may hold what no row of ours ever did; that is an answer and no error."""
    assert not PLAIN.is_sound((value, 1, 1, 1234))


def test_every_table_is_counted_or_fixed() -> None:
    """A table in neither list would lose rows without a word."""
    tables = [table for table in vars(schema).values() if isinstance(table, Table)]
    assert set(tables) == set(schema.TABLES)
    assert len(schema.TABLES) == len(set(schema.TABLES)) == len(tables)


def test_texts_from_elsewhere_are_cut_and_made_storable() -> None:
    """Whatever a server says can be stored."""
    assert plain_text("a" * 10_000) == "a" * TEXT_CHARS_MAX
    assert plain_text("é\udfff\n\0") == "é?\n\0"
