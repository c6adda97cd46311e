"""The oracle: what every process of a host says it has tracked, written down beside whatever client it uses.

Each event has an id of its own and a line before `track()` ("+ id phase quantity") and one after it returned
("= id"), appended by one write each. What stands behind "=" must be applied exactly once; what stands only
behind "+" (its process died in between) at most once; and nothing else may be applied.
"""

from __future__ import annotations

import collections
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: Where an event may be tracked: before the fork in the parent, at import, in a request or task, in a
#: background thread of the app, and while its process shuts down.
PHASES: Final = ("parent", "import", "request", "thread", "shutdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What was tracked, held against what was applied."""

    tracked: dict[str, int]
    returned: frozenset[str]
    phases: dict[str, int]
    #: What settle_mp has logged in the host's processes: nothing, on a machine that is well.
    logged: tuple[str, ...]
    #: Words that an app has left for whoever plays it, such as that it has begun something slow.
    words: tuple[str, ...]

    def wrongs(self, applied: Iterable[tuple[str, int]]) -> list[str]:
        """Say what is lost, applied twice, altered or unknown: nothing when all arrived exactly once."""
        rows = list(applied)
        counts = collections.Counter(name for name, _ in rows)
        found = {
            "lost": sorted(self.returned - counts.keys()),
            "applied twice": sorted(name for name, count in counts.items() if count > 1),
            "applied but not tracked": sorted(counts.keys() - self.tracked.keys()),
            "applied with another quantity": sorted(
                name for name, quantity in rows if name in self.tracked and quantity != self.tracked[name]
            ),
        }
        return [f"{len(names)} {what}: {', '.join(names[:5])}" for what, names in found.items() if names]

    def lost_count(self, applied: Iterable[tuple[str, int]]) -> int:
        """How many events whose `track()` returned were not applied."""
        return len(self.returned - {name for name, _ in applied})


def read(path: Path) -> Account:
    """Read what has been written so far; a line that is just being written is not there yet."""
    tracked: dict[str, int] = {}
    phases: collections.Counter[str] = collections.Counter()
    returned: set[str] = set()
    others: dict[str, list[str]] = {"!": [], "~": []}
    *lines, _ = path.read_text().split("\n") if path.exists() else [""]
    for line in lines:
        kind, _, rest = line.partition(" ")
        if kind == "+":
            name, phase, quantity = rest.split()
            tracked[name] = int(quantity)
            phases[phase] += 1
        elif kind == "=":
            returned.add(rest)
        else:
            others[kind].append(rest)
    return Account(
        tracked=tracked,
        returned=frozenset(returned),
        phases=dict(phases),
        logged=tuple(others["!"]),
        words=tuple(others["~"]),
    )


def applied(rows: Iterable[Any]) -> list[tuple[str, int]]:
    """Ids and quantities of rows that the sandbox has applied."""
    return [(str((row.metadata or {})["id"]), int(row.quantity)) for row in rows]
