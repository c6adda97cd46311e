"""Bounds: journals and ledger at their limits, and an upstream that is away for a week."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.chaos import clock, damage
from tests.chaos.fault import fault
from tests.chaos.hostile import judge_hours
from tests.chaos.judges import THREADS_KILLED, judge_dropped
from tests.chaos.traffic import THREADS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.chaos.house import House

#: The smallest that may be set, so that the load comes to them in a second.
JOURNAL_BYTES_MAX: Final = 64 * 1024
LEDGER_BYTES_MAX: Final = 1024 * 1024
#: What a journal may have beyond its bound: a segment that is committed and not freed, and its header.
JOURNAL_SLACK_BYTES: Final = JOURNAL_BYTES_MAX + 4096
#: What the ledger may have beyond its bound: SQLite's log (16 MiB, and a transaction above), and the
#: transaction that reached the bound in the database itself, of at most 12 MiB.
LEDGER_SLACK_BYTES: Final = 40 * 1024 * 1024
#: Hours that an upstream is away: a week.
WEEK_HOURS: Final = 7 * 24


def _bytes(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.exists())


def _look_at_journals(house: House) -> None:
    """Complain of a journal that takes more than it may."""
    if house.is_control:
        return
    for folder in (house.state_dir / "journals").glob("[!.]*"):
        size = _bytes(folder.glob("*"))
        if size > JOURNAL_BYTES_MAX + JOURNAL_SLACK_BYTES:
            house.complaints.append(f"a journal takes {size} bytes")


def _look_at_ledger(house: House, bytes_max: int) -> None:
    size = _bytes(damage.ledger_files(house.state_dir)) if not house.is_control else 0
    if size > bytes_max + LEDGER_SLACK_BYTES:
        house.complaints.append(f"the ledger takes {size} bytes")


@fault(
    "journals-full",
    group="bounds",
    what="journals at journal_bytes_max while the collector is away; SIGKILL of a worker at the bound",
    counted="journals filled",
    share=0.02,
    judge=judge_dropped,
    settings={"SETTLE_MP_JOURNAL_BYTES_MAX": str(JOURNAL_BYTES_MAX)},
)
def journals_full(house: House) -> None:
    """The newest events are dropped, and the count of them outlives whoever counted."""
    house.wait_tracking()
    house.strike(house.collector)
    house.bury(house.collector)
    house.wait_dropped()
    _look_at_journals(house)
    slot = house.any_slot()
    house.strike(house.worker(slot))
    house.bury(house.worker(slot))
    house.count(THREADS_KILLED, THREADS)
    house.start()
    house.count("journals filled")


@fault(
    "ledger-full",
    group="bounds",
    what="the ledger at ledger_bytes_max while the upstream is away",
    counted="ledgers filled",
    share=0.02,
    judge=judge_dropped,
    settings={"SETTLE_MP_LEDGER_BYTES_MAX": str(LEDGER_BYTES_MAX)},
)
def ledger_full(house: House) -> None:
    """Nothing more is acknowledged, and the journals hold."""
    if not house.is_control:
        house.wait_up()
    house.upstream.stop()
    house.wait_trouble(is_stormy=True)
    house.wait_s(0.2, 0.5)
    _look_at_ledger(house, LEDGER_BYTES_MAX)
    house.upstream.start()
    house.count("ledgers filled")


@fault(
    "upstream-away-for-a-week",
    group="bounds",
    what="an upstream that is away for a week, by the clock of the host",
    counted="weeks",
    share=0.01,
    judge=judge_hours,
    settings=clock.SETTINGS,
)
def upstream_away_for_a_week(house: House) -> None:
    """168 leaps of an hour, with some load in each: a window an hour, and nothing is dropped."""
    if not house.is_control:
        house.wait_up()
    house.upstream.stop()
    for _ in range(WEEK_HOURS):
        house.clock.step(3600.0)
        house.wait_s(0.01, 0.03)
    _look_at_ledger(house, 16 * 1024 * 1024)
    house.upstream.start()
    house.count("weeks")
