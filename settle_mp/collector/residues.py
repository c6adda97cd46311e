"""Residues: what was destroyed, each under a name, before and after a person has acknowledged it.

Rule: a name that comes again with another text is another residue, with a number of its own: nobody
acknowledges what they have not read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from settle_mp.collector import schema

if TYPE_CHECKING:
    from settle_mp.collector.database import Database


class Residue(NamedTuple):
    """What was destroyed, as its row says; `acknowledged_s` is None until a person has read it."""

    id: int
    name: str
    text: str
    at_s: float
    acknowledged_s: float | None

    @property
    def is_open(self) -> bool:
        """Whether it still stands in the way of balance."""
        return self.acknowledged_s is None


class Residues:
    """The table of residues."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, text: str, now_s: float) -> None:
        """Name what was destroyed. The same again is no news."""
        name, text = schema.plain_text(name), schema.plain_text(text)
        known = self._find("WHERE name = ?", name)
        if known and known[0].text == text:
            return
        with self._database.transaction():
            # Before the one that it takes the place of goes: no number is given twice.
            number = self._database.value("SELECT COALESCE(MAX(id), 0) + 1 FROM residues")
            self._database.delete(schema.RESIDUES, "name = ?", (name,))
            self._database.insert(schema.RESIDUES, [Residue(number, name, text, now_s, None)])

    def read(self) -> list[Residue]:
        """All of them, in the order in which they came."""
        return self._find("ORDER BY id")

    def acknowledge(self, residue_id: int, now_s: float) -> None:
        """A person has read it.

        Raises:
            LookupError: There is none of that number.
            ValueError: One has before.
        """
        found = self._find("WHERE id = ?", residue_id)
        if not found:
            msg = f"there is no residue {residue_id}"
            raise LookupError(msg)
        if not found[0].is_open:
            msg = f"residue {residue_id} is acknowledged already"
            raise ValueError(msg)
        with self._database.transaction():
            self._database.replace(schema.RESIDUES, [found[0]._replace(acknowledged_s=now_s)])

    def _find(self, rest: str, *values: object) -> list[Residue]:
        return [Residue(*row) for row in self._database.select(schema.RESIDUES, rest, values)]
