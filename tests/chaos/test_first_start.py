"""The first start of all: a ledger is being born, and its maker dies at one step of it or another."""

from __future__ import annotations

import shutil

import pytest

from tests.chaos.house import open_house
from tests.chaos.kills import cannot_trace

#: A first start has about 65 calls that change what is found after a death; `first-start` plays all of them.
STEPS = range(0, 60, 4)


@pytest.mark.slow
@pytest.mark.skipif(bool(cannot_trace()), reason=cannot_trace())
def test_the_books_can_be_read_after_a_death_at_any_step() -> None:
    """What is half made is no ledger yet, and what has the name of one is whole."""
    with open_house(seed="first", is_started=False) as house:
        for step in STEPS:
            assert house.kill_at("before any step of a start", skip=step), step
            house.look()
            assert house.complaints == [], step
            house.collector = None
            shutil.rmtree(house.state_dir)
