"""The naming rule, declared names, and what was meant."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.naming import (
    ill_named_text,
    is_well_named,
    name_of,
    read_names,
    undeclared_text,
    well_named,
)


class Named(str, enum.Enum):
    """As StrEnum, which came with Python 3.11."""

    AI_QUERY = "AI_QUERY"
    PDF = "PDF_EXPORT"


class Plain(enum.Enum):
    """Members that are no text themselves."""

    AI_QUERY = "AI_QUERY"
    PDF = "PDF_EXPORT"


class Numbered(enum.Enum):
    """Members that can be no names."""

    AI_QUERY = 1


@pytest.mark.parametrize("name", ["AI_QUERY", "A", "A1", "PDF_2_TEXT", "X_1"])
def test_screaming_snake_case_is_well_named(name: str) -> None:
    """The vendor's naming rule, met."""
    assert is_well_named(name)
    assert well_named(name) == name


@pytest.mark.parametrize("name", ["", "ai_query", "Ai", "_A", "A_", "A__B", "1A", "A B", "A\n", "É", "A-B"])
def test_any_other_case_is_not_well_named(name: str) -> None:
    """The vendor's naming rule, missed."""
    assert not is_well_named(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        # The vendor's own bad examples.
        ("aiQuery", "AI_QUERY"),
        ("pdf-export", "PDF_EXPORT"),
        ("event1", "EVENT1"),
        ("userDidSomething", "USER_DID_SOMETHING"),
        ("PDFExport", "PDF_EXPORT"),
        ("video minute", "VIDEO_MINUTE"),
        ("_A__B_", "A_B"),
        ("1st", ""),
        ("--", ""),
        ("", ""),
        ("café", ""),
    ],
)
def test_a_name_is_spelled_as_the_rule_asks(name: str, meant: str) -> None:
    """Where letters and digits say which name is meant; otherwise nothing is proposed."""
    assert well_named(name) == meant
    assert (f"; did you mean {meant!r}?" in ill_named_text(name)) == bool(meant)


@given(st.text(max_size=40))
def test_what_is_proposed_is_well_named(name: str) -> None:
    """Whatever is given."""
    meant = well_named(name)
    assert meant == "" or is_well_named(meant)
    assert len(ill_named_text(name)) < 300


@pytest.mark.parametrize(
    "given_names",
    [
        Named,
        Plain,
        ["AI_QUERY", "PDF_EXPORT"],
        iter(Plain),
        {"AI_QUERY", Named.PDF},
        dict.fromkeys(Named).keys(),
    ],
)
def test_names_are_read_from_any_iterable(given_names: Any) -> None:
    """An Enum class stands for its values, in any form, and all names are plain text."""
    names = read_names(given_names)
    assert names == {"AI_QUERY", "PDF_EXPORT"}
    assert {type(name) for name in names} == {str}


@pytest.mark.parametrize(
    ("given_names", "error", "words"),
    [
        ("AI_QUERY", TypeError, "a value of type str was given"),
        ({"AI_QUERY": "AI_QUERY"}, TypeError, "a value of type dict was given"),
        (5, TypeError, "a value of type int was given"),
        ([], ValueError, "there is no name in it"),
        (["AI_QUERY", 5], TypeError, "5 is no name and has none"),
        (Numbered, TypeError, "Numbered.AI_QUERY.* is no name and has none"),
    ],
)
def test_what_holds_no_names_is_refused(given_names: Any, error: type[Exception], words: str) -> None:
    """A text is no list of letters, and a dict has two candidates."""
    with pytest.raises(error, match=words):
        read_names(given_names)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("AI_QUERRY", "AI_QUERY"), ("aiQuery", "AI_QUERY"), ("pdf-exprt", "PDF_EXPORT"), ("VIDEO", None)],
)
def test_an_undeclared_name_is_told_what_was_meant(name: str, meant: str | None) -> None:
    """By its spelling, or by what is near; where nothing is, nothing is made up."""
    text = undeclared_text(name, frozenset({"AI_QUERY", "PDF_EXPORT"}))
    assert text.startswith("event_type must be one of event_types (AI_QUERY, PDF_EXPORT), not ")
    assert text.endswith(f"; did you mean {meant!r}?" if meant else repr(name))


def test_a_long_list_is_cut() -> None:
    """An error is a line and no catalogue."""
    text = undeclared_text("X", frozenset(f"TYPE_{number:03}" for number in range(300)))
    assert "TYPE_009 and 290 more)" in text


def test_a_member_stands_for_its_value() -> None:
    """As plain text where it is one."""
    assert name_of("AI_QUERY") == "AI_QUERY"
    assert (name_of(Named.PDF), type(name_of(Named.PDF))) == ("PDF_EXPORT", str)
    assert name_of(Plain.PDF) == "PDF_EXPORT"
    assert name_of(Numbered.AI_QUERY) == 1
