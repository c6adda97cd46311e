"""Plays the matrix.

    python -m tests.hosts [--again] [--jobs=N] [WORD ...]

Each row is written down when it has been played, so a run that was stopped goes on where it was; a row that
went wrong is played again. --again plays all. --jobs=N plays so many rows side by side: quicker, since most
of the time is waiting, and the times of shutdowns less exact. Words choose the rows whose host, form or
ending has all of them. At the end the table in docs/hosts/README.md is made anew; the exit code is 0 when
each declared row is there and right.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.hosts.matrix import HOSTS, ROWS
from tests.hosts.play import play_row
from tests.hosts.results import Results
from tests.hosts.table import PAGE, page_with_table

if TYPE_CHECKING:
    from tests.hosts.row import Row


def main(arguments: list[str]) -> int:
    """Play what is missing; returns the exit code."""
    for name in [name for name in os.environ if name.startswith(("SETTLE_MP_", "SETTLESETTLE_"))]:
        del os.environ[name]
    jobs = max([1, *(int(each.removeprefix("--jobs=")) for each in arguments if each.startswith("--jobs="))])
    words = [each for each in arguments if not each.startswith("--")]
    chosen = [row for row in ROWS if all(word in f"{row.host}: {row.name}" for word in words)]
    results = {host: Results(host) for host in HOSTS}
    todo = [row for row in chosen if "--again" in arguments or not results[row.host].has(row)]
    _say(f"{len(chosen)} rows, of which {len(chosen) - len(todo)} have been played\n")
    numbers = itertools.count(1)

    def play(row: Row) -> None:
        start_s = time.monotonic()
        wrongs = _play(row, results[row.host])
        verdict = "WRONG" if wrongs else "right"
        _say(
            f"[{next(numbers)}/{len(todo)}] {row.host}: {row.name}: {verdict}, "
            f"{time.monotonic() - start_s:.0f} s\n" + "".join(f"    {each}\n" for each in wrongs)
        )

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(play, todo))
    for host, kept in results.items():
        kept.prune({row.name for row in ROWS if row.host == host})
    PAGE.write_text(page_with_table(PAGE.read_text()))
    left = [row for row in ROWS if not results[row.host].has(row)]
    _say("".join(f"missing or wrong: {row.host}: {row.name}\n" for row in left))
    return 1 if left else 0


def _play(row: Row, results: Results) -> list[str]:
    """Play a row and keep what came out. Returns what is wrong."""
    try:
        results.keep(row, play_row(row))
    except (Exception, pytest.fail.Exception):  # noqa: BLE001  one row must not stop the others
        results.forget(row)
        return [traceback.format_exc()]
    return results.wrongs(row)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
