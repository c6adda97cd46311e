"""What pytest loads in every test run where settle-mp is installed: the names of our fixtures, no more.

It stands beside the package and not in it, since to import a module of a package imports the package too:
a test run that does not ask for a fixture imports nothing of settle-mp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.testing import FakeWallet, RecordedEvents


@pytest.fixture
def settle_events() -> Iterator[RecordedEvents]:
    """What every settle-mp client tracks while the test runs, recorded: nothing is journaled or sent."""
    from settle_mp.testing import record_events

    with record_events() as events:
        yield events


@pytest.fixture
def settle_wallet() -> Iterator[FakeWallet]:
    """A wallet in memory, which answers for those of all settle-mp clients while the test runs."""
    from settle_mp.testing import fake_wallet

    with fake_wallet() as wallet:
        yield wallet
