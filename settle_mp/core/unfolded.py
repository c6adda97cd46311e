"""Metadata that defeat folding: names with a new value in nearly every event, and the rule that mends it.

Rule 1: held against each other are events of one user and one type in one window. A value that only differs
    from user to user, or from window to window, keeps nothing apart.
Rule 2: a look costs what its rows cost, and those are bounded; so is what is remembered.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from settle_mp.core.rules import BILLING_NAMES, MetadataRule

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from settle_mp.core.fold import Entry, Key

#: Sums that are looked at in a second, and at once after a while without a look: some microseconds each.
ROWS_PER_S: Final = 500
ROWS_MAX: Final = 2_000
#: Events that must have come after another of the same user before anything is said of a name.
EVENTS_MIN: Final = 50
#: Share of those with a new value from which on a name defeats folding.
SHARE_MIN: Final = 0.8
#: Events after which older ones count half, so that what was mended is forgotten.
EVENTS_MAX: Final = 20_000
#: Names remembered, and characters of a name and a type: more than any table of metadata has.
NAMES_MAX: Final = 1_000
CHARS_MAX: Final = 128

_NO_RULE: Final = MetadataRule()


@dataclass(slots=True)
class _Tally:
    """Of the events that came after another one of the same user: how many there are, how many were new."""

    events: float = 0
    new: float = 0
    is_number: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfolded:
    """A name that defeats folding.

    Attributes:
        event_type: Of which events.
        name: Of their metadata.
        share: How many of a user's further events had a new value, from 0 to 1.
        is_number: Whether all values were numbers, so that they may be added up.
    """

    event_type: str
    name: str
    share: float
    is_number: bool

    @property
    def text(self) -> str:
        """What is to be said of it."""
        return f"{self.name} has a new value in {self.share:.0%} of a user's further events"


class Observer:
    """Looks at windows when they are sealed."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self._rows_left: float = ROWS_MAX
        self._looked_s = 0.0

    def look(self, entries: Mapping[Key, Entry], now_s: float) -> None:
        """Look at some of a window's sums, as many as the time since the last look allows."""
        self._rows_left = min(ROWS_MAX, self._rows_left + max(0.0, now_s - self._looked_s) * ROWS_PER_S)
        self._looked_s = now_s
        rows = list(itertools.islice(entries.items(), int(self._rows_left)))
        self._rows_left -= len(rows)
        groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
        for key, entry in rows:
            if key.metadata:
                groups.setdefault((key.event_type, key.user_id), []).append((key.metadata, entry.count))
        for (event_type, _), group in groups.items():
            if len(event_type) <= CHARS_MAX:
                self._count(event_type, group)

    def _count(self, event_type: str, group: list[tuple[str, int]]) -> None:
        """Count the sums of one user and type."""
        counts: dict[str, int] = {}
        values: dict[str, dict[str, Any]] = {}
        for text, count in group:
            for name, value in json.loads(text).items():
                counts[name] = counts.get(name, 0) + count
                values.setdefault(name, {})[repr(value)] = value
        for name, count in counts.items():
            tally = self._tally(event_type, name)
            if tally is None:
                continue
            if tally.events > EVENTS_MAX:
                tally.events, tally.new = tally.events / 2, tally.new / 2
            tally.events += count - 1
            tally.new += len(values[name]) - 1
            tally.is_number = tally.is_number and all(map(_is_number, values[name].values()))

    def _tally(self, event_type: str, name: str) -> _Tally | None:
        tally = self._tallies.get((event_type, name))
        if tally is None and len(self._tallies) < NAMES_MAX and len(name) <= CHARS_MAX:
            tally = self._tallies[event_type, name] = _Tally()
        return tally

    def found(self, rules: Mapping[str, MetadataRule]) -> list[Unfolded]:
        """The names that defeat folding and that no rule speaks of, those that cost most first."""
        found = [
            (tally.new, Unfolded(event_type=kind, name=name, share=share, is_number=tally.is_number))
            for (kind, name), tally in self._tallies.items()
            if tally.events >= EVENTS_MIN
            and (share := round(tally.new / tally.events, 2)) >= SHARE_MIN
            and name not in BILLING_NAMES
            and not _is_named(name, rules.get(kind, _NO_RULE))
        ]
        return [unfolded for _, unfolded in sorted(found, key=lambda each: -each[0])]


def proposed_rule(rule: MetadataRule, unfolded: Iterable[Unfolded]) -> MetadataRule:
    """The rule of a type as it would be with all that defeats folding added up or forgotten."""
    names = list(unfolded)
    return MetadataRule(
        keep=rule.keep,
        sum=rule.sum | {each.name for each in names if each.is_number},
        drop=rule.drop | {each.name for each in names if not each.is_number},
    )


def rule_text(event_type: str, rule: MetadataRule) -> str:
    """A rule as the settings file has it."""
    lists = [(which, sorted(getattr(rule, which))) for which in ("keep", "sum", "drop")]
    lines = [f"{which} = [{', '.join(map(_quoted, names))}]" for which, names in lists if names]
    return "\n".join([f"[events.{_key(event_type)}]", *lines])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_named(name: str, rule: MetadataRule) -> bool:
    return name in rule.keep or name in rule.sum or name in rule.drop


def _key(name: str) -> str:
    is_bare = name.isascii() and bool(name) and all(char.isalnum() or char in "_-" for char in name)
    return name if is_bare else _quoted(name)


def _quoted(text: str) -> str:
    # TOML's basic strings have JSON's escapes, but for pairs of surrogates, and no bare DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
