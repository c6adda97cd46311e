"""The roster: where producers begin, and how late they are forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from settle_mp.collector.ledger import NewProducer
from settle_mp.core.books import Amount
from settle_mp.core.ticket import Trouble
from tests.collector.ledgers import NOW_S, Till, faults, open_ledger, producer_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    """A new ledger that knows producers 1 and 2."""
    till = Till(open_ledger(tmp_path))
    till.introduce(1, 2)
    yield till
    till.ledger.close()


def test_a_producer_begins_where_its_header_says(till: Till) -> None:
    """A producer that another ledger took from starts there (L3), and a second word changes nothing."""
    new = NewProducer(id=producer_id(9), position=4096, events_before=17, name="w", host="h", key_mode="live")
    till.ledger.introduce([new], NOW_S)
    till.ledger.introduce([NewProducer(id=producer_id(9), position=0)], NOW_S)
    row = till.ledger.producers()[producer_id(9)]
    assert (row.position, row.sealed_position, row.start_position, row.events_before) == (
        4096,
        4096,
        4096,
        17,
    )
    assert (row.name, row.host, row.key_mode) == ("w", "h", "live")


def test_producers_are_forgotten_late_and_stay_in_the_sum(till: Till) -> None:
    """Only who went long ago and is sealed to its end loses its row; what it committed stays counted."""
    till.introduce(3, 4)
    till.take(1, 4)
    till.take(2, 5)
    till.take(3, 6)
    till.seal()
    till.take(2, 1)
    till.ledger.record_dropped({producer_id(1): Amount(2, 2)})
    till.ledger.mark_gone([producer_id(1), producer_id(2)], NOW_S)
    till.ledger.mark_gone([producer_id(1), producer_id(4)], NOW_S + 50)
    assert till.ledger.forget(gone_before_s=NOW_S) == []
    assert till.ledger.forget(gone_before_s=NOW_S + 1) == [producer_id(1)]
    assert set(till.ledger.producers()) == {producer_id(number) for number in (2, 3, 4)}
    assert till.ledger.departed() == (1, Amount(4, 4), Amount(2, 2))
    till.seal()
    assert till.ledger.forget(gone_before_s=NOW_S + 60) == [producer_id(2), producer_id(4)]
    assert till.ledger.departed() == (3, Amount(10, 10), Amount(2, 2))
    assert faults(till.ledger) == []


def test_a_producer_that_comes_back_is_not_forgotten(till: Till) -> None:
    """A commit, or another introduction, takes back that it went."""
    till.ledger.mark_gone([producer_id(1), producer_id(2)], NOW_S)
    till.take(1)
    till.introduce(2)
    till.seal()
    assert till.ledger.forget(gone_before_s=NOW_S + 9) == []


def test_what_a_forgotten_producer_should_have_been_told_is_forgotten_with_it(till: Till) -> None:
    """Nobody is left to be told, and the table of troubles does not grow for ever."""
    till.ledger.put_troubles(
        {producer_id(1): Trouble(0, 1, "refused"), producer_id(2): Trouble(0, 1, "held")}
    )
    till.ledger.mark_gone([producer_id(1)], NOW_S)
    till.ledger.forget(gone_before_s=NOW_S + 1)
    assert set(till.ledger.troubles()) == {producer_id(2)}
    assert faults(till.ledger) == []
