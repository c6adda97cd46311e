"""A row of the matrix: one host in one form, ended in one way; and a take: that row, played once.

    ROWS = [
        Row(
            host="plain script",
            form="os.fork twice",
            ending="an exception",
            play=play_two_forks,
            variants=("no hooks",),
        ),
    ]

    def play_two_forks(stage: Stage) -> None:
        program = stage.run([sys.executable, "-m", "tests.apps.two_forks"])
        program.wait_said("both have tracked")
        with stage.ending():                  # what is measured: until no process of the host is left
            program.end(signal.SIGTERM, code=1)

The app makes its events with `tests.apps.tracking`; all else is the harness's: client, collector, checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tests.hosts.oracle import PHASES

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.hosts.stage import Stage

#: Ours, the vendor's SDK (the control, which is known to lose), or the same app without either.
Client = Literal["ours", "control", "none"]
#: Whether a collector runs all the time, or only from when the host has ended.
Collecting = Literal["up", "down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One host in one form, ended in one way.

    Attributes:
        play: Starts the host, has it track in all phases, and ends it; see `Stage`.
        variants: What the row is played with: an integration of ours, and without one.
        without: Why a phase can't be had here, for each one that is missing.
        gentle: Why the control loses nothing here, if so; else it must be seen losing.
        host_says: A regular expression for what the host itself may complain of in this ending.
        is_fast: Whether `make test` plays it as well.
    """

    host: str
    form: str
    ending: str
    play: Callable[[Stage], None]
    variants: tuple[str, ...] = ("hooks", "no hooks")
    without: tuple[tuple[str, str], ...] = ()
    gentle: str = ""
    host_says: str = ""
    is_fast: bool = False

    @property
    def name(self) -> str:
        """What it is called among its host's rows."""
        return f"{self.form}, {self.ending}"

    @property
    def phases(self) -> frozenset[str]:
        """Where events must have been tracked in each take of ours."""
        return frozenset(PHASES) - {phase for phase, _ in self.without}

    @property
    def takes(self) -> list[Take]:
        """All that is to be played for it, the app without us first."""
        ours = [
            Take(client="ours", variant=variant, collecting=collecting)
            for variant in self.variants
            for collecting in _COLLECTING
        ]
        return [Take(client="none"), Take(client="control"), *ours]


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """A row played once. Variant and collector are of weight for our own client only."""

    client: Client
    variant: str = ""
    collecting: Collecting = "down"

    @property
    def name(self) -> str:
        """What it is called among its row's takes."""
        return f"{self.variant}, collector {self.collecting}" if self.client == "ours" else self.client


_COLLECTING: Final[tuple[Collecting, ...]] = ("up", "down")
