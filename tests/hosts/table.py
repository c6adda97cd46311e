"""The table in docs/hosts/README.md, made from the results and from nothing else."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from tests.hosts.machine import ROOT
from tests.hosts.matrix import HOSTS, ROWS
from tests.hosts.results import Results

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts.row import Collecting, Row

PAGE: Final = ROOT / "docs" / "hosts" / "README.md"
BEGIN: Final = "<!-- The table: made by `make hosts`, not by hand. -->"
END: Final = "<!-- The table's end. -->"
_HEAD: Final = (
    "| form | ending | billed, collector up | billed, collector down | shutdown without us "
    "| … grew, collector up | … grew, down | the control lost |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


def page_with_table(page: str) -> str:
    """Put the table of all results into a page, in the place of the one that is there."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table()}\n{END}{after}"


def table() -> str:
    """All hosts, each with its rows."""
    return "\n".join(line for host in HOSTS for line in _host(host))


def _host(host: str) -> Iterator[str]:
    results = Results(host)
    yield f"### {host}\n"
    variants = {row.variants for row in ROWS if row.host == host}
    if any(len(each) > 1 for each in variants):
        (names,) = {each for each in variants if len(each) > 1}
        yield f"Figures before a stroke are with {names[0]}, behind it with {names[1]}.\n"
    yield _HEAD
    yield from (_line(row, results.rows.get(row.name, {})) for row in ROWS if row.host == host)
    up, down = _grew(host, results, "up"), _grew(host, results, "down")
    yield f"\nShutdown grew by {up} with the collector up, by {down} with it down."
    versions = ", ".join(f"{name} {version}" for name, version in sorted(results.versions.items()))
    yield f"Played with {versions}.\n"


def _grew(host: str, results: Results, collecting: Collecting) -> str:
    """By how much shutdown grew in the median of all takes: single ones have the machine's noise in them."""
    grown = [
        results.rows[row.name][take.name]["shutdown_s"] - results.rows[row.name]["none"]["shutdown_s"]
        for row in ROWS
        for take in row.takes
        if row.host == host and take.client == "ours" and take.collecting == collecting
        if take.name in results.rows.get(row.name, {})
    ]
    return f"{statistics.median(grown):.1f} s in the median" if grown else "missing"


def _line(row: Row, takes: dict[str, Any]) -> str:
    alone = takes.get("none", {}).get("shutdown_s")
    cells = [
        row.form,
        row.ending,
        _each(row, takes, "up", _billed),
        _each(row, takes, "down", _billed),
        "missing" if alone is None else f"{alone:.1f} s",
        _each(row, takes, "up", lambda outcome: f"{outcome['shutdown_s'] - alone:+.1f} s"),
        _each(row, takes, "down", lambda outcome: f"{outcome['shutdown_s'] - alone:+.1f} s"),
        _control(row, takes),
    ]
    return f"| {' | '.join(cells)} |"


def _each(row: Row, takes: dict[str, Any], collecting: str, show: Any) -> str:
    shown = []
    for take in row.takes:
        if take.client == "ours" and take.collecting == collecting:
            outcome = takes.get(take.name)
            shown.append(show(outcome) if outcome and "none" in takes else "missing")
    return " / ".join(shown)


def _billed(outcome: dict[str, Any]) -> str:
    count = outcome["applied"]
    return f"{count} of {count}" if not outcome["wrongs"] else "WRONG"


def _control(row: Row, takes: dict[str, Any]) -> str:
    control = takes.get("control")
    if control is None:
        return "missing"
    lost = f"{control['lost']} of {control['tracked']}" + (", and hung" if control.get("has_hung") else "")
    return lost if control["lost"] or not row.gentle else f"{lost}: {row.gentle}"
