"""What playing the rows has come to, one JSON file a host, kept in the repository: the table is made of them.

A row's result is believed as long as its file says that it was played as it is declared now: with the same
takes, and nothing wrong in any.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.hosts.matrix import PACKAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.hosts.play import Outcome
    from tests.hosts.row import Row

FOLDER: Final = Path(__file__).parent / "results"


class Results:
    """The results of one host."""

    def __init__(self, host: str, folder: Path = FOLDER) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._path = folder / f"{host.replace(' ', '-')}.json"
        kept = json.loads(self._path.read_text()) if self._path.exists() else {}
        self.rows: dict[str, dict[str, Any]] = kept.get("rows", {})
        self.versions: dict[str, str] = kept.get("versions", {})

    def keep(self, row: Row, outcomes: Mapping[str, Outcome]) -> None:
        """Write down what a row came to."""
        with self._lock:
            self.rows[row.name] = {name: outcome.to_json() for name, outcome in outcomes.items()}
            self.versions = versions(self._host)
            self._write()

    def forget(self, row: Row) -> None:
        """Have a row played again."""
        self.rows.pop(row.name, None)

    def prune(self, names: set[str]) -> None:
        """Forget rows that are not declared any more."""
        if self.rows.keys() - names:
            self.rows = {name: takes for name, takes in self.rows.items() if name in names}
            self._write()

    def has(self, row: Row) -> bool:
        """Whether a row was played whole, and nothing was wrong."""
        return not self.wrongs(row)

    def wrongs(self, row: Row) -> list[str]:
        """Say what keeps a row from being right: a take that is missing, or what went wrong in one."""
        takes = self.rows.get(row.name, {})
        missing = [f"{take.name}: not played" for take in row.takes if take.name not in takes]
        found = [f"{name}: {wrong}" for name, outcome in takes.items() for wrong in outcome["wrongs"]]
        return missing + found

    def _write(self) -> None:
        self._path.parent.mkdir(exist_ok=True)
        kept = {"versions": self.versions, "rows": dict(sorted(self.rows.items()))}
        # By name and whole: whoever stops us in the middle keeps what was there.
        unborn = self._path.with_suffix(".new")
        unborn.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
        unborn.rename(self._path)


def versions(host: str) -> dict[str, str]:
    """What a host is run with here."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES.get(host, ())}
    return {**found, platform.python_implementation(): platform.python_version()}
