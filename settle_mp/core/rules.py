"""Metadata rules: which metadata of an event type tell events apart, which are added up, which are forgotten.

Rule 1: without a rule all metadata are part of the key; with one, names that it does not list stay so.
Rule 2: a name has one meaning, and what changes the bill can be neither added up nor forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

#: The name under which a row carries our own count and window; users cannot make rules about it.
RESERVED_NAME: Final = "settle_mp"

#: Metadata that change what is billed: the vendor's examples stop a charge with it, so merging over it would
#: bill wrongly.
BILLING_NAMES: Final = frozenset({"skipBilling"})

_LISTS: Final = ("keep", "sum", "drop")


class RuleError(ValueError):
    """A metadata rule that cannot hold.

    Attributes:
        key: What is wrong, as the settings file spells it ("events.AI_QUERY.sum").
        problem: What was given.
        allowed: What may stand there.
    """

    def __init__(self, key: str, problem: str, allowed: str) -> None:
        super().__init__(key, problem, allowed)
        self.key = key
        self.problem = problem
        self.allowed = allowed

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}; allowed: {self.allowed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataRule:
    """What to do with the metadata of one event type, by name; the rest stays part of the key."""

    keep: frozenset[str] = frozenset()
    sum: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()


def read_rules(events: object) -> dict[str, MetadataRule]:
    """Check the `[events.NAME]` tables of a settings file.

    Args:
        events: The value of `events` as the file's parser gave it.

    Returns:
        A rule for each event type named.

    Raises:
        RuleError: If anything in there is not a rule, naming it and what is allowed.
    """
    if not isinstance(events, Mapping):
        raise RuleError("events", f"{_kind(events)} was given", "tables [events.NAME]")
    return {event_type: read_rule(event_type, table) for event_type, table in events.items()}


def read_rule(event_type: str, table: object) -> MetadataRule:
    """Check one `[events.NAME]` table; see read_rules."""
    key = f"events.{event_type}"
    if not isinstance(table, Mapping):
        raise RuleError(key, f"{_kind(table)} was given", "a table with keep, sum and drop")
    for name in table:
        if name not in _LISTS:
            raise RuleError(f"{key}.{name}", "this is not part of a rule", "keep, sum and drop")
    rule = MetadataRule(**{name: _names(f"{key}.{name}", table[name]) for name in _LISTS if name in table})
    _refuse_contradictions(key, rule)
    return rule


def _names(key: str, value: object) -> frozenset[str]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise RuleError(key, f"{_kind(value)} was given", "a list of metadata names")
    for name in value:
        if not isinstance(name, str) or not name:
            raise RuleError(key, f"{name!r} was given as a name", "metadata names that are not empty")
    return frozenset(value)


def _refuse_contradictions(key: str, rule: MetadataRule) -> None:
    for first, second in (("keep", "sum"), ("keep", "drop"), ("sum", "drop")):
        for name in sorted(getattr(rule, first) & getattr(rule, second)):
            raise RuleError(f"{key}.{second}", f"{name!r} is in {first} too", "each name in one list")
    for name in sorted(BILLING_NAMES & (rule.sum | rule.drop)):
        raise RuleError(
            f"{key}.{'sum' if name in rule.sum else 'drop'}",
            f"{name!r} changes what is billed",
            f"{name!r} in keep or in no list",
        )
    for which in _LISTS:
        if RESERVED_NAME in getattr(rule, which):
            raise RuleError(f"{key}.{which}", f"{RESERVED_NAME!r} is reserved", "names of your own metadata")


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
