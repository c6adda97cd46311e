"""Metadata rules: what a settings file may say, and what it may not."""

from __future__ import annotations

import dataclasses

import pytest

from settle_mp.core.rules import MetadataRule, RuleError, read_rules


def test_each_list_is_read_into_its_own_set() -> None:
    """A table with all three lists gives a rule with the same three sets."""
    tables = {"AI_QUERY": {"keep": ["model"], "sum": ["tokens", "images"], "drop": ["request_id"]}}
    assert read_rules(tables) == {
        "AI_QUERY": MetadataRule(
            keep=frozenset({"model"}), sum=frozenset({"tokens", "images"}), drop=frozenset({"request_id"})
        )
    }


def test_a_list_that_is_left_out_is_empty() -> None:
    """A rule says only what it changes."""
    assert read_rules({"A": {"drop": ["x"]}, "B": {}}) == {
        "A": MetadataRule(drop=frozenset({"x"})),
        "B": MetadataRule(),
    }


def test_a_rule_cannot_be_changed() -> None:
    """Rules are shared by the whole collector, so they are frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        MetadataRule().keep = frozenset({"x"})  # type: ignore[misc]


def test_bill_changing_metadata_may_be_kept() -> None:
    """SkipBilling in keep says what holds anyway."""
    assert read_rules({"A": {"keep": ["skipBilling"]}})["A"].keep == {"skipBilling"}


@pytest.mark.parametrize(
    ("events", "key", "problem", "allowed"),
    [
        (["A"], "events", "type list", "tables"),
        ({"A": "keep"}, "events.A", "type str", "table"),
        ({"A": {"kep": ["x"]}}, "events.A.kep", "not part of a rule", "keep, sum and drop"),
        ({"A": {"keep": "model"}}, "events.A.keep", "type str", "list"),
        ({"A": {"sum": ["x", 3]}}, "events.A.sum", "3 was given", "metadata names"),
        ({"A": {"drop": [""]}}, "events.A.drop", "'' was given", "not empty"),
        ({"A": {"keep": ["x"], "sum": ["x"]}}, "events.A.sum", "'x' is in keep too", "one list"),
        ({"A": {"keep": ["x"], "drop": ["x"]}}, "events.A.drop", "'x' is in keep too", "one list"),
        ({"A": {"sum": ["x"], "drop": ["x"]}}, "events.A.drop", "'x' is in sum too", "one list"),
        ({"A": {"drop": ["skipBilling"]}}, "events.A.drop", "changes what is billed", "keep"),
        ({"A": {"sum": ["skipBilling"]}}, "events.A.sum", "changes what is billed", "keep"),
        ({"A": {"keep": ["settle_mp"]}}, "events.A.keep", "reserved", "your own"),
        ({"A": {"sum": ["settle_mp"]}}, "events.A.sum", "reserved", "your own"),
        ({"A": {"drop": ["settle_mp"]}}, "events.A.drop", "reserved", "your own"),
    ],
)
def test_what_is_no_rule_is_refused_by_name(events: object, key: str, problem: str, allowed: str) -> None:
    """The error names the place as the file spells it, what is wrong, and what may stand there."""
    with pytest.raises(RuleError) as caught:
        read_rules(events)
    assert caught.value.key == key
    assert problem in caught.value.problem
    assert allowed in caught.value.allowed
    assert str(caught.value).startswith(f"{key}: ")
