"""Names with a new value in nearly every event are found, others are not, and the rule proposed mends it."""

from __future__ import annotations

import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core import unfolded
from settle_mp.core.event import pack_event
from settle_mp.core.fold import fold_payload
from settle_mp.core.rules import MetadataRule, read_rule, read_rules
from settle_mp.core.unfolded import Observer, Unfolded, proposed_rule, rule_text
from settle_mp.core.window import Window

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Rules = dict[str, MetadataRule]


def window(*events: tuple[str, str, Any], rules: Rules | None = None) -> Window:
    """A window of events: user, type and metadata."""
    made = Window(0)
    made.add(
        (fold_payload(pack_event(user, kind, 1, metadata), rules or {}), 1) for user, kind, metadata in events
    )
    return made


def seen(*events: tuple[str, str, Any], rules: Rules | None = None) -> Observer:
    """An observer that has looked at one window of these."""
    observer = Observer()
    observer.look(window(*events, rules=rules).entries, 1000.0)
    return observer


def names(observer: Observer, rules: Rules | None = None) -> list[tuple[str, str]]:
    """What it has found."""
    return [(each.event_type, each.name) for each in observer.found(rules or {})]


def test_a_new_value_in_every_event_is_found() -> None:
    """Numbers may be added up, text can only be forgotten; what repeats is left alone."""
    observer = seen(
        *[
            (
                f"user_{n % 3}",
                "AI_QUERY",
                {"model": f"m{n % 4}", "request_id": f"r{n}", "tokens": n, "ms": n / 7},
            )
            for n in range(200)
        ]
    )
    found = {each.name: each for each in observer.found({})}
    assert found.keys() == {"request_id", "tokens", "ms"}
    assert found["request_id"] == Unfolded(
        event_type="AI_QUERY", name="request_id", share=1.0, is_number=False
    )
    assert found["tokens"].is_number
    assert found["ms"].is_number


@pytest.mark.parametrize(
    "metadata_of",
    [
        # What differs from user to user keeps nothing apart that the user does not.
        lambda n: (f"user_{n}", "AI_QUERY", {"plan_id": f"plan_{n}"}),
        lambda n: (f"user_{n % 10}", "AI_QUERY", {"plan_id": f"plan_{n % 10}"}),
        lambda n: ("user", "AI_QUERY", {"model": f"m{n % 20}"}),
        # Changes the bill, so it is never proposed.
        lambda n: ("user", "AI_QUERY", {"skipBilling": f"{n}"}),
        lambda _: ("user", "AI_QUERY", None),
        lambda _: ("user", "AI_QUERY", {}),
        # As often as that another value, but not in nearly every event.
        lambda n: ("user", "AI_QUERY", {"session": n // 2}),
    ],
)
def test_what_folds_is_not_named(metadata_of: Any) -> None:
    """However many sums there are."""
    assert names(seen(*[metadata_of(n) for n in range(1000)])) == []


def test_little_proves_nothing() -> None:
    """A handful of events says nothing of the next thousand; over several windows it adds up."""
    observer = Observer()
    for number in range(20):
        events = [("user", "AI_QUERY", {"id": f"{number}-{n}"}) for n in range(11)]
        observer.look(window(*events).entries, 1000.0 + number)
        assert bool(names(observer)) == ((number + 1) * 10 >= unfolded.EVENTS_MIN)


def test_a_rule_ends_it() -> None:
    """What is kept on purpose is not named, what was summed or dropped is in no sum any more."""
    events = [("user", "AI_QUERY", {"a": f"{n}", "b": n, "c": f"{n}"}) for n in range(100)]
    observer = seen(*events)
    assert {name for _, name in names(observer)} == {"a", "b", "c"}
    assert (
        names(observer, {"AI_QUERY": read_rule("AI_QUERY", {"keep": ["a"], "sum": ["b"], "drop": ["c"]})})
        == []
    )
    assert {name for _, name in names(observer, {"OTHER": read_rule("OTHER", {"drop": ["a"]})})} == {
        "a",
        "b",
        "c",
    }


def test_the_proposed_rule_mends_it() -> None:
    """With it, the same events are few sums, and none of what the old rule said is gone."""
    rules = read_rules({"AI_QUERY": {"keep": ["model"], "drop": ["trace"]}})
    events = [
        ("user", "AI_QUERY", {"model": "m", "trace": f"{n}", "id": f"{n}", "cost": Decimal(n) / 10})
        for n in range(1, 101)
    ]
    found = seen(*events, rules=rules).found(rules)
    rule = proposed_rule(rules["AI_QUERY"], found)
    assert rule == read_rule("AI_QUERY", {"keep": ["model"], "sum": ["cost"], "drop": ["id", "trace"]})
    (entry,) = window(*events, rules={"AI_QUERY": rule}).entries.values()
    assert (entry.count, entry.sums["cost"]) == (100, 505)


@given(st.text(max_size=20), st.sets(st.text(min_size=1, max_size=10), max_size=3))
def test_a_rule_is_written_as_the_settings_file_reads_it(event_type: str, listed: set[str]) -> None:
    """Whatever the names are."""
    rule = MetadataRule(drop=frozenset(listed - {"settle_mp", "skipBilling"}))
    tables = tomllib.loads(rule_text(event_type, rule))["events"]
    assert read_rules(tables) == {event_type: rule}


def test_a_usual_rule_reads_well() -> None:
    """As the documentation writes it."""
    rule = read_rule("AI_QUERY", {"keep": ["model"], "sum": ["tokens"], "drop": ["request_id", "trace"]})
    assert rule_text("AI_QUERY", rule) == (
        '[events.AI_QUERY]\nkeep = ["model"]\nsum = ["tokens"]\ndrop = ["request_id", "trace"]'
    )


def test_a_look_is_bounded() -> None:
    """A window of any size costs what its bound allows, a flood of seals no more than the time between."""
    big = window(*[("user", "AI_QUERY", {"id": f"{n}"}) for n in range(unfolded.ROWS_MAX * 2)])
    observer = Observer()
    looked = []
    for at_s in (1000.0, 1000.0, 1001.0, 1001.5, 900.0, 2000.0):
        before = observer._tallies["AI_QUERY", "id"].events if observer._tallies else 0
        observer.look(big.entries, at_s)
        looked.append(observer._tallies["AI_QUERY", "id"].events - before + 1)
    rows_per_s = unfolded.ROWS_PER_S
    assert looked == [unfolded.ROWS_MAX, 1, rows_per_s, rows_per_s / 2, 1, unfolded.ROWS_MAX]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that an application makes up, and names of any length."""
    monkeypatch.setattr(unfolded, "NAMES_MAX", 5)
    observer = seen(*[("user", "AI_QUERY", {f"name_{n}": n}) for n in range(50)])
    assert len(observer._tallies) == 5
    long = "x" * (unfolded.CHARS_MAX + 1)
    assert seen(*[("user", "AI_QUERY", {long: n}) for n in range(100)])._tallies == {}


def test_what_was_mended_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """New events outweigh old ones: who sends no new values any more is not named for ever."""
    monkeypatch.setattr(unfolded, "EVENTS_MAX", 500)
    observer = seen(*[("user", "AI_QUERY", {"id": f"{n}"}) for n in range(1000)])
    assert names(observer)
    for number in range(20):
        observer.look(window(*[("user", "AI_QUERY", {"id": "same"})] * 100).entries, 2000.0 + number)
    assert names(observer) == []
