"""Clients that leave nothing behind: no thread, no map, no lock."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import Settle
from settle_mp.worker import producer as producers
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.worker.courier import Courier


def end(client: Settle) -> None:
    """End a client's courier and let go of its journal, as the end of the process would."""
    producer = client.events._producer
    for life in [*producer._lives.values()]:
        if life.is_ours and life.courier is not None:
            life.courier.stop(0.0)
            wait_until(partial(_has_ended, life.courier), "the courier has ended")
        life.let_go()
    producer._lives.clear()
    for key, each in [*producers._producers.items()]:
        if each is producer:
            del producers._producers[key]


def _has_ended(courier: Courier) -> bool:
    return not courier.is_running


@pytest.fixture
def make_client(state_dir: Path) -> Iterator[Callable[..., Settle]]:
    """Make clients of the test's state folder; settings by name."""
    made: list[Settle] = []

    def make(**settings: Any) -> Settle:
        client = Settle(**{"state_dir": state_dir, **settings})
        made.append(client)
        return client

    yield make
    for client in made:
        end(client)


@pytest.fixture
def client(make_client: Callable[..., Settle]) -> Settle:
    """Make a client with default settings."""
    return make_client()


@pytest.fixture
def quiet(make_client: Callable[..., Settle]) -> Settle:
    """Make a client that journals and has no courier: a closed one."""
    quiet = make_client()
    quiet.close(timeout=0)
    return quiet
