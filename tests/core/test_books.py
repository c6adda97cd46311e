"""The books balance whatever flows through them, and no figure can change alone without being named."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from settle_mp.core.books import BUCKETS, Amount, Books, Tally, amount_of
from tests.core.strategies import QUANTITIES, exact

AMOUNTS = st.builds(Amount, st.integers(1, 10**9), QUANTITIES.map(exact))
ONE = Amount(1, 1)
FIGURES = {
    "committed": Amount(15, Decimal("15.5")),
    "confirmed": Amount(1, 1),
    "pending": Amount(2, 2),
    "in_doubt": Amount(3, 3),
    "dead_lettered": Amount(4, 4),
    "discarded": Amount(5, Decimal("5.50")),
}
BALANCED = Books(
    rows=FIGURES,
    totals=FIGURES | {"discarded": Amount(5, Decimal("5.5"))},
    tallies=(
        Tally(name="a1", tracked_events=10, committed_events=7, journaled_events=3),
        Tally(name="b2", tracked_events=8, committed_events=8, journaled_events=0),
    ),
    journaled=Amount(3, 3),
    dropped=Amount(2, Decimal("0.5")),
)
EACH_BUCKET = pytest.mark.parametrize("bucket", ["committed", *BUCKETS])


# --- Amounts ---


@given(AMOUNTS, AMOUNTS)
def test_amounts_add_and_subtract_exactly(left: Amount, right: Amount) -> None:
    """Events and quantity, each on its own."""
    both = left + right
    assert both.events == left.events + right.events
    assert Fraction(both.quantity) == Fraction(left.quantity) + Fraction(right.quantity)
    assert both - right == left
    assert both - left == right
    assert amount_of([left, right]) == both
    assert amount_of([]) == Amount() == left - left


def test_amounts_are_equal_by_value() -> None:
    """5, 5.0 and 5.00 are one quantity; an amount reads as a person would write it."""
    assert Amount(1, 5) == Amount(1, Decimal("5.00"))
    assert str(Amount(3, Decimal("5.50"))) == "3 events (quantity 5.5)"


# --- One change ---


def test_balanced_books_have_no_faults() -> None:
    """And say what was tracked in all, dropped events included."""
    assert BALANCED.faults() == []
    assert BALANCED.tracked == Amount(20, 19)


def test_empty_books_balance() -> None:
    """A ledger that has seen nothing."""
    nothing = dict.fromkeys(("committed", *BUCKETS), Amount())
    assert Books(rows=nothing, totals=nothing).faults() == []


@EACH_BUCKET
@pytest.mark.parametrize("side", ["rows", "totals"])
@pytest.mark.parametrize("change", [Amount(1, 0), Amount(-1, 0), Amount(0, Decimal("1E-27")), Amount(0, -1)])
def test_one_changed_figure_is_named(bucket: str, side: str, change: Amount) -> None:
    """In rows or totals, in events or in the last place of a quantity."""
    figures = dict(getattr(BALANCED, side))
    figures[bucket] += change
    changes: dict[str, Any] = {side: figures}
    faults = replace(BALANCED, **changes).faults()
    assert faults[0].startswith(f"{bucket}: rows hold ")
    # The equation is about what there is: a total that is wrong leaves it whole.
    assert len(faults) == (2 if side == "rows" else 1)


@EACH_BUCKET
def test_a_missing_figure_is_named(bucket: str) -> None:
    """Also when it is the whole bucket, which then is missed in the sum as well."""
    for side, wanted in (
        ("rows", f"{bucket}: its rows are missing"),
        ("totals", f"{bucket}: its total is missing"),
    ):
        figures = {name: amount for name, amount in getattr(BALANCED, side).items() if name != bucket}
        changes: dict[str, Any] = {side: figures}
        faults = replace(BALANCED, **changes).faults()
        assert [faults[0], *(fault.split(":")[0] for fault in faults[1:])] == (
            [wanted, "committed"] if side == "rows" else [wanted]
        )


@pytest.mark.parametrize("bucket", BUCKETS)
def test_a_lost_event_is_noticed_though_row_and_total_agree(bucket: str) -> None:
    """What came in must be somewhere."""
    rows, totals = dict(BALANCED.rows), dict(BALANCED.totals)
    rows[bucket] -= ONE
    totals[bucket] -= ONE
    (fault,) = replace(BALANCED, rows=rows, totals=totals).faults()
    assert fault == (
        "committed: 15 events (quantity 15.5) came in, 14 events (quantity 14.5) are accounted for"
    )


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("name", ["tracked_events", "committed_events", "journaled_events"])
@pytest.mark.parametrize("change", [1, -1])
def test_one_changed_count_of_a_producer_is_named(index: int, name: str, change: int) -> None:
    """By the producer."""
    tallies = list(BALANCED.tallies)
    changes: dict[str, Any] = {name: getattr(tallies[index], name) + change}
    tallies[index] = replace(tallies[index], **changes)
    (fault,) = replace(BALANCED, tallies=tuple(tallies)).faults()
    assert fault.startswith(f"producer {tallies[index].name}: tracked ")


def test_a_residue_stands_in_the_way_of_balance() -> None:
    """What was destroyed stays named."""
    assert replace(BALANCED, residues=("segment 0 of a1: 40 bytes lost",)).faults() == [
        "segment 0 of a1: 40 bytes lost"
    ]


def test_every_fault_is_told() -> None:
    """Not only the first."""
    rows = dict(BALANCED.rows) | {"pending": Amount(), "confirmed": Amount()}
    tallies = (replace(BALANCED.tallies[0], tracked_events=99),)
    faults = replace(BALANCED, rows=rows, tallies=tallies, residues=("gone",)).faults()
    assert [fault.split(":")[0] for fault in faults] == [
        "confirmed",
        "pending",
        "committed",
        "producer a1",
        "gone",
    ]


# --- Any flow ---


class Flows(RuleBasedStateMachine):
    """Events come in and move between buckets; rows and running totals are kept apart, as in a ledger."""

    @initialize()
    def begin(self) -> None:
        """Nothing has come in yet."""
        self.things: dict[str, list[Amount]] = {bucket: [] for bucket in ("committed", *BUCKETS)}
        self.totals: dict[str, Amount] = dict.fromkeys(self.things, Amount())
        self.producers: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])

    @rule(producer=st.sampled_from("abc"), count=st.integers(1, 100))
    def track(self, producer: str, count: int) -> None:
        """Events are journaled."""
        self.producers[producer][0] += count
        self.producers[producer][2] += count

    @precondition(lambda self: any(journaled for *_, journaled in self.producers.values()))
    @rule(data=st.data(), quantity=QUANTITIES.map(exact))
    def commit(self, data: st.DataObject, quantity: int | Decimal) -> None:
        """Some of what is journaled is committed: most to pending, what is invalid to the dead letters."""
        producer = data.draw(
            st.sampled_from(sorted(name for name, counts in self.producers.items() if counts[2]))
        )
        amount = Amount(data.draw(st.integers(1, self.producers[producer][2])), quantity)
        self.producers[producer][1] += amount.events
        self.producers[producer][2] -= amount.events
        for bucket in ("committed", data.draw(st.sampled_from(["pending", "pending", "dead_lettered"]))):
            self.things[bucket].append(amount)
            self.totals[bucket] += amount

    @precondition(lambda self: any(self.things[bucket] for bucket in BUCKETS))
    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        """One thing goes from any bucket to any other."""
        source = data.draw(st.sampled_from([bucket for bucket in BUCKETS if self.things[bucket]]))
        target = data.draw(st.sampled_from(BUCKETS))
        amount = self.things[source].pop(data.draw(st.integers(0, len(self.things[source]) - 1)))
        self.things[target].append(amount)
        self.totals[source] -= amount
        self.totals[target] += amount

    @precondition(lambda self: any(len(self.things[bucket]) > 1 for bucket in BUCKETS))
    @rule(data=st.data())
    def merge(self, data: st.DataObject) -> None:
        """Two rows of a bucket become one, as confirmed batches of an hour do."""
        bucket = data.draw(st.sampled_from([name for name in BUCKETS if len(self.things[name]) > 1]))
        self.things[bucket].append(self.things[bucket].pop() + self.things[bucket].pop())

    def books(self) -> Books:
        """The figures as `status` would read them."""
        return Books(
            rows={bucket: amount_of(things) for bucket, things in self.things.items()},
            totals=self.totals,
            tallies=tuple(
                Tally(
                    name=name, tracked_events=tracked, committed_events=committed, journaled_events=journaled
                )
                for name, (tracked, committed, journaled) in self.producers.items()
            ),
        )

    @invariant()
    def the_books_balance(self) -> None:
        """Whatever went where."""
        assert self.books().faults() == []

    @precondition(lambda self: any(self.things.values()))
    @rule(data=st.data())
    def lose_a_row(self, data: st.DataObject) -> None:
        """One row taken away, of any bucket, is noticed and the bucket named; then it is put back."""
        bucket = data.draw(st.sampled_from([name for name, things in self.things.items() if things]))
        at = data.draw(st.integers(0, len(self.things[bucket]) - 1))
        amount = self.things[bucket].pop(at)
        assert self.books().faults()[0].startswith(f"{bucket}: rows hold ")
        self.things[bucket].insert(at, amount)

    @precondition(lambda self: any(self.totals.values()))
    @rule(data=st.data(), events=st.integers(-3, 3), quantity=st.sampled_from([0, 1, -1, Decimal("1E-9")]))
    def miscount(self, data: st.DataObject, events: int, quantity: int | Decimal) -> None:
        """One total that is off is noticed and the bucket named; then it is put right."""
        bucket = data.draw(st.sampled_from(sorted(self.totals)))
        before = self.totals[bucket]
        self.totals[bucket] += Amount(events, quantity)
        faults = self.books().faults()
        assert bool(faults) == bool(events or quantity)
        assert all(fault.startswith(f"{bucket}: rows hold ") for fault in faults)
        self.totals[bucket] = before

    @precondition(lambda self: self.producers)
    @rule(data=st.data(), change=st.integers(-3, 3).filter(bool))
    def lose_a_record(self, data: st.DataObject, change: int) -> None:
        """One count of one producer that is off is noticed and the producer named; then it is put right."""
        name = data.draw(st.sampled_from(sorted(self.producers)))
        at = data.draw(st.integers(0, 2))
        self.producers[name][at] += change
        (fault,) = self.books().faults()
        assert fault.startswith(f"producer {name}: ")
        self.producers[name][at] -= change


TestFlows = Flows.TestCase
