"""Faults: what can be played at a house, and the register of them all."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.chaos.house import House
    from tests.chaos.oracle import Verdict

    Play = Callable[[House], None]


#: What a loss of power takes of most: the journals are in the page cache until the ledger is on the disk.
UNCOMMITTED: Final = "what is not committed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A house after its rounds, everything sent that could be: what a fault's judge decides by."""

    house: House
    verdict: Verdict
    #: The last `status --json`; empty with the control client.
    status: Mapping[str, Any]


def nothing_lost_nothing_twice(settled: Settled) -> list[str]:
    """The judge of most faults: everything that was tracked was applied once, and the books balanced."""
    verdict = settled.verdict
    wrong = list(verdict.complaints)
    if verdict.lost or verdict.twice:
        wrong.insert(0, f"{verdict.lost} lost, {verdict.twice} twice")
    return wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row of the table.

    Attributes:
        name: A slug, unique: `--only` and the state file know it by this.
        group: Faults of a group share houses where they can: kills, upstream, disk, bounds, hostile.
        what: What is done, for the table.
        play: Plays one round at a house that is under load, and leaves it under load.
        family: Faults of one family share a row of the table, which names them all.
        member: Its name there.
        counted: What must happen in each round, as `House.count` names it, for the table.
        share: Rounds for each round that was asked for, rounded up: 0.1 is 100 of 1,000.
        judge: Says what is wrong afterwards; nothing when all is well.
        settings: Environment variables that collector and workers need for it.
        upstream: Options of the sandbox, as `tests.upstreams.sandbox` takes them.
        power_loss: What a loss of power would take where this takes nothing, for the table.
        disk_mebibytes: The size of a disk that the state folder has for itself; 0 for none of its own.
        obstacle: Says why it can't be played on this machine; empty when it can.
    """

    name: str
    group: str
    what: str
    play: Play
    family: str = ""
    member: str = ""
    counted: str = "SIGKILL"
    share: float = 1.0
    judge: Callable[[Settled], list[str]] = nothing_lost_nothing_twice
    settings: Mapping[str, str] = field(default_factory=dict)
    upstream: Mapping[str, Any] = field(default_factory=dict)
    power_loss: str = UNCOMMITTED
    disk_mebibytes: int = 0
    obstacle: Callable[[], str] = str

    @property
    def house_kind(self) -> str:
        """Faults that agree in this can be played in one house."""
        kind = (self.group, self.judge.__qualname__, self.disk_mebibytes)
        return repr((*kind, dict(self.settings), dict(self.upstream)))


#: All faults, in the order of the table.
FAULTS: Final[dict[str, Fault]] = {}


def fault(name: str, *, group: str, what: str, **fields: Any) -> Callable[[Play], Play]:
    """Register a function that plays a round; the fields are those of `Fault`."""

    def register(play: Play) -> Play:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name=name, group=group, what=what, play=play, **fields)
        return play

    return register
