"""Points are what their names say: after a kill at one, files and upstream are in the state that it names.

Read with `sqlite3` and `os` alone.
"""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.house import House, open_house
from tests.chaos.kills import cannot_trace

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(cannot_trace()), reason=cannot_trace())]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    """One for all of them; each test leaves it whole."""
    with open_house(seed="points") as opened:
        yield opened


class Dead:
    """What a dead collector left."""

    def __init__(self, house: House, point: str, *, has_estate: bool = False, tries: int = 4) -> None:
        """Have a collector die at a point.

        Args:
            house: Where it runs.
            point: Its name.
            has_estate: Whether a worker is dead when this collector begins, so that it finds his journal.
            tries: How often it is tried at most.
        """
        self._house = house
        assert any(self._is_hit(point, has_estate=has_estate) for _ in range(tries)), point

    def _is_hit(self, point: str, *, has_estate: bool) -> bool:
        self._house.start()
        self._house.wait_up()
        if has_estate:
            # The collector goes first: it would have the journal before it is watched.
            self._house.strike(self._house.collector)
            self._house.bury(self._house.collector)
            self._house.kill_worker()
        return self._house.kill_at(point, is_known=not has_estate)

    def ledger(self, sql: str) -> list[Any]:
        """The first column of a query."""
        path = self._house.state_dir / "ledger/ledger.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return [row[0] for row in connection.execute(sql)]
        finally:
            connection.close()

    @property
    def seal_number(self) -> int:
        """The ledger's last seal."""
        return int(self.ledger("SELECT value FROM meta WHERE name = 'seal_number'")[0])

    @property
    def mark(self) -> int:
        """The last seal by the side file."""
        text = (self._house.state_dir / "ledger/seal").read_text().partition("\n")[2]
        return int(json.loads(text)["seal_number"])

    @property
    def states(self) -> set[str]:
        """In which states batches are."""
        return set(self.ledger("SELECT state FROM batches"))

    @property
    def attempting(self) -> set[str]:
        """The keys of batches that are being sent, as far as the ledger knows."""
        return set(self.ledger("SELECT key FROM batches WHERE state = 'attempting'"))

    @property
    def applied(self) -> set[str]:
        """The keys of all batches that the upstream has applied."""
        connection = sqlite3.connect(f"file:{self._house.upstream.db_path}?mode=ro", uri=True)
        try:
            return {row[0] for row in connection.execute("SELECT key FROM requests")}
        finally:
            connection.close()


@pytest.mark.parametrize("point", ["after the seal", "before the seal's mark"])
def test_sealed_and_not_marked(house: House, point: str) -> None:
    """The ledger has the seal, the side file has not, and nothing of it was sent."""
    dead = Dead(house, point)
    assert dead.seal_number == dead.mark + 1
    newest = set(dead.ledger(f"SELECT key FROM batches WHERE seal = {dead.seal_number}"))  # noqa: S608
    assert newest
    assert not newest & (dead.attempting | dead.applied)


def test_before_the_seal(house: House) -> None:
    """What is open is still open."""
    dead = Dead(house, "before the seal")
    assert dead.seal_number == dead.mark
    assert dead.ledger("SELECT COUNT(*) FROM frames")[0] > 0


@pytest.mark.parametrize("point", ["after the seal's mark", "before it is attempting"])
def test_marked_and_not_attempting(house: House, point: str) -> None:
    """A batch is ready that nobody has begun to send."""
    dead = Dead(house, point)
    assert dead.seal_number == dead.mark
    assert "ready" in dead.states


@pytest.mark.parametrize("point", ["attempting", "before the POST"])
def test_attempting_and_not_sent(house: House, point: str) -> None:
    """By the ledger it is being sent, and the upstream does not have it."""
    dead = Dead(house, point)
    assert dead.attempting - dead.applied


@pytest.mark.parametrize("point", ["answered", "before it is settled"])
def test_applied_and_not_settled(house: House, point: str) -> None:
    """The upstream has it, and by the ledger it is being sent."""
    dead = Dead(house, point)
    assert dead.attempting & dead.applied


def test_settled(house: House) -> None:
    """What was being sent is gone from the outbox, and the upstream has it."""
    dead = Dead(house, "after it is settled")
    settled_count = int(dead.ledger("SELECT value FROM meta WHERE name = 'settled_count'")[0])
    assert settled_count == len(dead.applied - set(dead.ledger("SELECT key FROM batches"))) > 0


def lagging_headers(house: House) -> set[bytes]:
    """Which visible producers' headers are behind the ledger."""
    from settle_mp import journals

    lagging: set[bytes] = set()
    connection = sqlite3.connect(f"file:{house.state_dir / 'ledger/ledger.db'}?mode=ro", uri=True)
    for producer, position in connection.execute("SELECT id, position FROM producers"):
        folder = house.state_dir / "journals" / producer.hex()
        if folder.exists():
            header = journals.read_header(folder)
            if header.collector.position < position:
                lagging.add(producer)
    connection.close()
    return lagging


@pytest.mark.parametrize(
    "point", ["committed, not synced", "after the commit", "before the header's position"]
)
def test_committed_and_not_published(house: House, point: str) -> None:
    """A header is behind the ledger."""
    Dead(house, point)
    assert lagging_headers(house)


@pytest.mark.parametrize("point", ["journal made, without a name", "journal named, empty"])
def test_a_journal_is_born(house: House, point: str) -> None:
    """Under the builder's name or its own, with lock, header and the first segment."""
    before = {path.name for path in (house.state_dir / "journals").iterdir()}
    Dead(house, point)
    born = {path for path in (house.state_dir / "journals").iterdir() if path.name not in before}
    is_named = point.endswith("empty")
    mine = [path for path in born if path.name.startswith(".new-") != is_named]
    # Others may be half made: all four threads begin at once, and one wins.
    assert any(len({file.name for file in path.iterdir()} - {"lock", "header"}) == 1 for path in mine)


@pytest.mark.parametrize("point", ["adoption: folder on its way out", "adoption: folder half gone"])
def test_an_adopted_journal_is_leaving(house: House, point: str) -> None:
    """It has the remover's name."""
    Dead(house, point, has_estate=True)
    assert list((house.state_dir / "journals").glob(".old-*"))


def test_it_all_adds_up(house: House) -> None:
    """None of these kills has cost anything."""
    house.settle()
    verdict = house.verdict()
    assert (verdict.lost, verdict.twice, verdict.complaints) == (0, 0, [])
