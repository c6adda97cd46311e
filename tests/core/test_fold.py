"""Sums are exact, and only what may be added up is."""

from __future__ import annotations

import decimal
import json
from collections import defaultdict
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.core.event import InvalidEventError, pack_event, unpack_event
from settle_mp.core.fold import (
    Entry,
    Folded,
    Key,
    add,
    fold_payload,
    fold_payload_without_rules,
    number_text,
    parse_number,
    row_text,
    subtract,
    times,
    total,
)
from settle_mp.core.rules import MetadataRule, RuleError, read_rule
from tests.core.strategies import METADATA, PAYLOADS, QUANTITIES, exact

Metadata = dict[str, Any] | None

#: What sums are made of: quantities, and any number in metadata, down to the smallest float.
NUMBERS: st.SearchStrategy[int | Decimal] = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False).map(exact),
    st.sampled_from([5e-324, 1.7976931348623157e308, -1.7976931348623157e308]).map(exact),
    QUANTITIES.map(exact),
)


# --- Numbers ---


@given(st.lists(NUMBERS, max_size=12))
def test_a_total_is_exact(numbers: list[int | Decimal]) -> None:
    """Equal to the sum of fractions, from the smallest float to the largest."""
    found = total(numbers)
    assert Fraction(found) == sum(map(Fraction, numbers))
    if all(type(number) is int for number in numbers):
        assert type(found) is int


@given(NUMBERS, NUMBERS, st.integers(0, 2**63))
def test_each_operation_is_exact(left: int | Decimal, right: int | Decimal, count: int) -> None:
    """Adding, taking away and multiplying round nothing, whatever context the caller has."""
    with decimal.localcontext(decimal.Context(prec=1, traps=[decimal.Inexact, decimal.FloatOperation])):
        assert Fraction(add(left, right)) == Fraction(left) + Fraction(right)
        assert Fraction(subtract(left, right)) == Fraction(left) - Fraction(right)
        assert Fraction(times(left, count)) == Fraction(left) * count
    are_ints = type(left) is int and type(right) is int
    assert {type(add(left, right)), type(subtract(left, right))} == {int if are_ints else Decimal}
    assert type(times(left, count)) is (int if type(left) is int else Decimal)


def test_a_tenth_ten_times_is_one() -> None:
    """Fractions add as decimals."""
    tenth = exact(0.1)
    assert total([tenth] * 10) == times(tenth, 10) == 1
    assert number_text(total([tenth] * 10)) == "1"
    assert number_text(add(tenth, exact(0.2))) == "0.3"


@given(NUMBERS)
def test_a_numbers_text_comes_back(number: int | Decimal) -> None:
    """Plain digits, no exponent, nothing superfluous, and JSON reads the same number."""
    text = number_text(number)
    assert set(text) <= set("-.0123456789")
    assert not ("." in text and text.endswith(("0", ".")))
    assert text == "0" or text.lstrip("-").split(".")[0] == str(abs(int(number)))
    assert parse_number(text) == number == json.loads(text, parse_float=Decimal)
    assert number_text(parse_number(text)) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (-7, "-7"),
        (10**30, "1" + "0" * 30),
        (Decimal("1E+3"), "1000"),
        (Decimal("1E-9"), "0.000000001"),
        (Decimal("1.50"), "1.5"),
        (Decimal("2.00"), "2"),
        (Decimal(100), "100"),
        (Decimal("-0.0"), "0"),
        (Decimal(-0), "0"),
        (Decimal("-0"), "0"),
        (Decimal("0E+3"), "0"),
        (Decimal("-0E-30"), "0"),
        (Decimal("-0.50"), "-0.5"),
    ],
)
def test_numbers_look_plain(number: int | Decimal, text: str) -> None:
    """As a person would write them."""
    assert number_text(number) == text
    assert parse_number(text) == number


# --- Keys ---


def shape(value: Any) -> Any:
    """A value as JSON tells it apart from others: by kind as well, and without the order of keys."""
    if isinstance(value, dict):
        return "object", tuple(sorted((name, shape(item)) for name, item in value.items()))
    if isinstance(value, list):
        return "array", tuple(shape(item) for item in value)
    return type(value).__name__, repr(value)


def key_of(metadata: Metadata, rules: dict[str, MetadataRule] | None = None) -> Key:
    """The key of an event with these metadata."""
    return fold_payload(pack_event("u", "E", 1, metadata), rules or {}).key


@given(METADATA, METADATA)
def test_keys_are_equal_when_metadata_are(left: Metadata, right: Metadata) -> None:
    """Two events meet exactly when their metadata are the same JSON."""
    assert (key_of(left) == key_of(right)) == (shape(left or {}) == shape(right or {}))


@given(METADATA)
def test_a_keys_metadata_are_canonical_json(metadata: Metadata) -> None:
    """The short way for flat metadata and the long way for any other write the same text."""
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert key_of(metadata).metadata == (text if metadata else "")
    for name, value in (metadata or {}).items():
        assert key_of({name: value}).metadata == json.dumps(
            {name: value}, separators=(",", ":"), ensure_ascii=False, sort_keys=True
        )


CLOSE: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([1, 1.0, True, "1", "true", None, 0, 0.0, False, "", "null", [], {}]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    ),
    max_leaves=3,
)


@given(st.dictionaries(st.sampled_from("ab"), CLOSE), st.dictionaries(st.sampled_from("ab"), CLOSE))
def test_keys_of_close_metadata_are_equal_when_they_are(left: dict[str, Any], right: dict[str, Any]) -> None:
    """The same among values that Python and careless code take for each other."""
    assert (key_of(left) == key_of(right)) == (shape(left) == shape(right))


@pytest.mark.parametrize("nest", [lambda value: {"a": value}, lambda value: {"a": [{"b": value}]}])
def test_one_as_int_float_bool_and_text_differ(nest: Any) -> None:
    """1, 1.0, true and "1" are four things, at any level."""
    assert len({key_of(nest(value)) for value in (1, 1.0, True, "1", None, 0, 0.0, False, "")}) == 9


def test_the_order_of_keys_does_not_matter() -> None:
    """At any level; the order of a list does."""
    assert key_of({"a": {"x": 1, "y": 2}, "b": 3}) == key_of({"b": 3, "a": {"y": 2, "x": 1}})
    assert key_of({"a": [1, 2]}) != key_of({"a": [2, 1]})


def test_no_metadata_and_empty_metadata_are_one() -> None:
    """Both leave a row without metadata, so two rows would read the same upstream."""
    assert key_of({}) == key_of(None)
    rule = read_rule("E", {"drop": ["a"]})
    assert key_of({"a": 1}, {"E": rule}) == key_of(None)


@given(METADATA)
def test_skipping_a_charge_never_meets_not_skipping_it(metadata: Metadata) -> None:
    """Whatever else is in the metadata and whatever the rules may say."""
    others = {name: value for name, value in (metadata or {}).items() if name != "skipBilling"}
    rule = read_rule("E", {"drop": sorted(filter(None, others))})
    for rules in ({}, {"E": rule}):
        keys = {key_of(others, rules), key_of({**others, "skipBilling": True}, rules)}
        assert len(keys) == 2
        assert key_of({**others, "skipBilling": False}, rules) not in keys


@pytest.mark.parametrize("which", ["drop", "sum"])
def test_no_rule_forgets_or_sums_what_skips_a_charge(which: str) -> None:
    """It could not be kept apart then."""
    with pytest.raises(RuleError):
        read_rule("E", {which: ["skipBilling"]})


def test_users_and_types_are_kept_apart() -> None:
    """Names that would read the same when put together are different keys."""
    payloads = [pack_event(*names, 1, None) for names in [("a", "bc"), ("ab", "c"), ("a", "BC")]]
    assert len({fold_payload(payload, {}).key for payload in payloads}) == 3


# --- Rules ---


def test_a_rule_keeps_sums_and_drops() -> None:
    """What it does not name stays part of the key; other types are not touched."""
    rule = read_rule("E", {"keep": ["model"], "sum": ["tokens"], "drop": ["request_id"]})
    metadata = {"model": "m", "tokens": 12, "request_id": "r", "region": "eu"}
    folded = fold_payload(pack_event("u", "E", 2, metadata), {"E": rule})
    assert folded == Folded(Key("u", "E", '{"model":"m","region":"eu"}'), 2, {"tokens": 12})
    other = fold_payload(pack_event("u", "F", 2, metadata), {"E": rule})
    assert json.loads(other.key.metadata) == metadata
    assert other.sums is None


def test_a_rule_names_the_top_level_only() -> None:
    """A name inside of something else is another name."""
    rule = read_rule("E", {"sum": ["tokens"], "drop": ["id"]})
    folded = fold_payload(pack_event("u", "E", 1, {"a": {"id": 1, "tokens": 2}}), {"E": rule})
    assert folded == Folded(Key("u", "E", '{"a":{"id":1,"tokens":2}}'), 1, None)


def test_a_missing_sum_counts_as_nothing() -> None:
    """An event without it joins the others."""
    rules = {"E": read_rule("E", {"sum": ["tokens"]})}
    entry = Entry()
    for metadata in ({"tokens": 5}, {}, None, {"tokens": 0.5}):
        folded = fold_payload(pack_event("u", "E", 1, metadata), rules)
        assert folded.key == Key("u", "E", "")
        entry.add(folded, 1)
    assert (entry.count, entry.sums) == (4, {"tokens": Decimal("5.5")})


@pytest.mark.parametrize(
    ("value", "kind"), [("5", "str"), (True, "bool"), (None, "NoneType"), ([5], "list"), ({"a": 5}, "dict")]
)
def test_what_is_no_number_is_not_summed(value: object, kind: str) -> None:
    """It is invalid with a reason that names field and kind; without the rule it is valid."""
    payload = pack_event("u", "E", 1, {"tokens": value})
    rules = {"E": read_rule("E", {"sum": ["tokens"]})}
    with pytest.raises(InvalidEventError, match=rf"^metadata\['tokens'\] is to be summed .* not {kind}$"):
        fold_payload(payload, rules)
    assert fold_payload_without_rules(payload) == fold_payload(payload, {})


@given(st.binary(max_size=100), st.booleans())
def test_bytes_that_are_no_event_are_invalid(data: bytes, has_rules: bool) -> None:  # noqa: FBT001
    """Nothing else is raised, with rules and without."""
    rules = {"E": read_rule("E", {"sum": ["tokens"]})} if has_rules else {}
    with pytest.raises(InvalidEventError):
        fold_payload(data, rules)


# --- Sums against a model of fractions ---

NAMES = st.sampled_from(["k", "s", "d", "x"])
SUMMABLE = st.integers(-5, 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
EVENTS = st.builds(
    pack_event,
    st.sampled_from(["u", "v"]),
    st.sampled_from(["RULED", "FREE"]),
    QUANTITIES,
    st.none()
    | st.fixed_dictionaries(
        {}, optional={"k": CLOSE, "s": SUMMABLE, "d": CLOSE, "x": st.sampled_from([1, True])}
    ),
)
RULE_TABLES = st.fixed_dictionaries(
    {}, optional={"keep": st.just(["k"]), "sum": st.just(["s"]), "drop": st.just(["d"])}
)


def model(payloads: list[bytes], table: dict[str, list[str]]) -> dict[Any, list[Any]]:
    """What a reader of the rules would add up by hand: count, quantity and summed metadata by key."""
    sums: dict[Any, list[Any]] = defaultdict(lambda: [0, Fraction(), defaultdict(Fraction)])
    for payload in payloads:
        event = unpack_event(payload)
        kept = dict(event.metadata or {})
        added = {}
        if event.event_type == "RULED":
            added = {name: kept.pop(name) for name in table.get("sum", []) if name in kept}
            for name in table.get("drop", []):
                kept.pop(name, None)
        row = sums[event.user_id, event.event_type, shape(kept)]
        row[0] += 1
        row[1] += Fraction(event.quantity)
        for name, value in added.items():
            row[2][name] += Fraction(exact(value))
    return sums


def row_of(key: Key, entry: Entry) -> tuple[Any, list[Any]]:
    """A folded sum in the model's words."""
    kept = json.loads(key.metadata) if key.metadata else {}
    sums = {name: Fraction(value) for name, value in entry.sums.items()}
    return (key.user_id, key.event_type, shape(kept)), [entry.count, Fraction(entry.quantity), sums]


@given(st.lists(EVENTS, max_size=12), RULE_TABLES, st.randoms(use_true_random=False), st.integers(1, 4))
def test_sums_equal_a_naive_model(
    payloads: list[bytes], table: dict[str, list[str]], order: Any, parts: int
) -> None:
    """For any events and rules, in any order, one by one or many at a time, in one fold or in parts."""
    rules = {"RULED": read_rule("RULED", table)}
    shuffled = [*payloads, *payloads]
    order.shuffle(shuffled)
    entries: dict[Key, Entry] = defaultdict(Entry)
    for part in range(parts):
        counts: dict[bytes, int] = defaultdict(int)
        for payload in shuffled[part::parts]:
            counts[payload] += 1
        for payload, count in counts.items():
            folded = fold_payload(payload, rules)
            entries[folded.key].add(folded, count)
    assert dict(row_of(key, entry) for key, entry in entries.items()) == model([*payloads, *payloads], table)


@given(st.lists(PAYLOADS, max_size=8))
def test_ints_stay_ints(payloads: list[bytes]) -> None:
    """A sum is a decimal only when a fraction is in it."""
    entries: dict[Key, Entry] = defaultdict(Entry)
    has_fraction: dict[Key, bool] = defaultdict(bool)
    for payload in payloads:
        folded = fold_payload(payload, {})
        entries[folded.key].add(folded, 3)
        has_fraction[folded.key] |= type(folded.quantity) is Decimal
    for key, entry in entries.items():
        assert type(entry.quantity) is (Decimal if has_fraction[key] else int)


# --- Rows ---


def parsed(text: str) -> dict[str, Any]:
    """A row read exactly; a name that stands twice in an object is an error."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({name for name, _ in pairs}) == len(pairs)
        return dict(pairs)

    row: dict[str, Any] = json.loads(text, parse_float=Decimal, object_pairs_hook=unique)
    return row


def plain(value: Any) -> Any:
    """A value as `parsed` gives it: fractions as decimals."""
    return json.loads(json.dumps(value), parse_float=Decimal)


@given(PAYLOADS, st.integers(1, 2**40), st.sampled_from([None, '{"count":3}']))
def test_a_row_says_what_was_tracked(payload: bytes, count: int, annotation: str | None) -> None:
    """As JSON: names, the exact sum, the user's metadata unchanged, and ours behind them."""
    event = unpack_event(payload)
    folded = fold_payload(payload, {})
    entry = Entry()
    entry.add(folded, count)
    row = parsed(row_text(folded.key, entry, annotation))
    metadata = row.pop("metadata", None)
    assert row == {
        "userId": event.user_id,
        "eventType": event.event_type,
        "quantity": times(event.quantity, count),
    }
    wanted = plain(event.metadata or {}) | ({"settle_mp": {"count": 3}} if annotation else {})
    assert shape(metadata or {}) == shape(wanted)
    assert metadata != {}


def test_a_row_reads_well() -> None:
    """The user's metadata first and unchanged, then the sums, then ours; numbers as plain digits."""
    key = Key("user_1", "AI_QUERY", '{"model":"gpt-4"}')
    entry = Entry(count=3, quantity=Decimal("3.50"), sums={"tokens": 1240, "cost": Decimal("1E-7")})
    assert row_text(key, entry, '{"count":3}') == (
        '{"userId":"user_1","eventType":"AI_QUERY","quantity":3.5,'
        '"metadata":{"model":"gpt-4","cost":0.0000001,"tokens":1240,"settle_mp":{"count":3}}}'
    )
    bare = Key("user_1", "AI_QUERY", "")
    assert row_text(bare, Entry(1, 1), None) == '{"userId":"user_1","eventType":"AI_QUERY","quantity":1}'
    assert row_text(bare, Entry(1, 1), "{}").endswith('"quantity":1,"metadata":{"settle_mp":{}}}')
    assert row_text(bare, Entry(1, 1, {'é"': 2}), None).endswith('"metadata":{"\\u00e9\\"":2}}')
