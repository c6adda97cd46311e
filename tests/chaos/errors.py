"""Errors: what the collector's disk can answer, call by call, each told from outside by its system calls.

A limit on file sizes fails writes and nothing else (`disk.failing`). Here single calls fail without being
made: reads, syncs, and after a sync whatever comes next, so that what a failed commit left in the log is
still there when the file is opened again.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from errno import EIO, ENOSPC
from typing import TYPE_CHECKING, Final

from tests.chaos.points import is_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.points import Watch
    from tests.chaos.ptrace import Call

_READS: Final = {"pread64", "read"}
_SYNCS: Final = {"fdatasync", "fsync"}
_WRITES: Final = {"pwrite64", "rename", "renameat", "unlink", "unlinkat"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Calls of the collector that fail, one after the other.

    Attributes:
        name: How the table names it.
        begins: Whether a call is the first of them.
        goes_on: Whether a later one fails as well, as long as any is to.
        more_max: How many later ones at most.
        errors: With what they may fail, all of a round with the same.
        is_at_start: Whether the collector must be watched from its first call on.
        skip_max: How often the first is passed at most before it is hit.
        comes_of: The signal that makes it come there, where the load alone seldom does.
        may_end: Whether the collector may end then.
        is_of_a_dead_journal: Whether it takes a dead worker's journal.
    """

    name: str
    begins: Callable[[Call, Watch], bool]
    goes_on: Callable[[Call], bool]
    more_max: int = 0
    errors: tuple[int, ...] = (EIO,)
    is_at_start: bool = False
    skip_max: int = 3
    comes_of: int | None = None
    may_end: bool = False
    is_of_a_dead_journal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One failure as a round plays it.

    Attributes:
        failure: Its name.
        skip: How often the first call is passed before it is hit.
        count: How many calls fail.
        error: With which error.
        is_killed: Whether the collector is killed right after the last, before it can see the error.
    """

    failure: str
    skip: int
    count: int
    error: int
    is_killed: bool


class Failing:
    """Says which calls of a traced process fail by a plan."""

    def __init__(self, plan: Plan) -> None:
        self.failure = BY_NAME[plan.failure]
        self._error = plan.error
        self._left = plan.skip

    @property
    def is_begun(self) -> bool:
        """Whether any has failed."""
        return self._left < 0

    def error_of(self, call: Call, watch: Watch) -> int:
        """With which error a call is to fail that is about to be made; 0 for none."""
        if self._left < 0:
            is_next = self.failure.goes_on(call)
        else:
            self._left -= self.failure.begins(call, watch)
            is_next = self._left < 0
        return self._error if is_next else 0


def _is_in_ledger(call: Call, names: set[str]) -> bool:
    return call.name in names and os.path.basename(os.path.dirname(call.file)) == "ledger"  # noqa: PTH119, PTH120


def _is_use_of_ledger(call: Call) -> bool:
    at = call.path if call.name in {"rename", "renameat", "unlink", "unlinkat"} else call.file
    return call.name in _READS | _SYNCS | _WRITES and "/ledger/" in at


def _is_reading_of_ledger(call: Call) -> bool:
    return _is_in_ledger(call, _READS)


def _is_sync_of(kind: str) -> Callable[[Call, Watch], bool]:
    """The log is about to be synced for a transaction of a kind."""
    return lambda call, watch: (
        call.name in _SYNCS and watch.transaction == kind and call.file.endswith("/ledger.db-wal")
    )


def _is_sync_of_mark(call: Call, _: Watch) -> bool:
    return call.name in _SYNCS and call.file.endswith("/ledger/seal.new")


def _is_sync_of_file(call: Call, _: Watch) -> bool:
    return call.name in _SYNCS and call.file.endswith("/ledger.db")


def _is_reading_of_journal(call: Call) -> bool:
    return call.name in _READS and (call.file.endswith(".seg") or is_header(call))


COMMITS: Final = tuple(
    Failure(name=f"sync of {what}", begins=_is_sync_of(kind), goes_on=_is_use_of_ledger, more_max=4,
            errors=(EIO, ENOSPC))
    for kind, what in
    (("intake", "events"), ("seal", "a seal"), ("attempt", "an attempt"), ("settle", "an answer"))
)  # fmt: skip
FAILURES: Final = (
    *COMMITS,
    Failure(name="sync of a seal's mark", begins=_is_sync_of_mark, goes_on=_is_use_of_ledger, more_max=4,
            errors=(EIO, ENOSPC)),
    Failure(name="sync of a checkpoint", begins=_is_sync_of_file, goes_on=_is_use_of_ledger, more_max=3,
            errors=(EIO, ENOSPC), skip_max=0, comes_of=signal.SIGTERM, may_end=True),
    Failure(name="reading of the ledger", begins=lambda call, _: _is_reading_of_ledger(call),
            goes_on=_is_reading_of_ledger, more_max=2, is_at_start=True, skip_max=40, may_end=True),
    Failure(name="reading of a dead worker's journal",
            begins=lambda call, watch: watch.estates > 0 and _is_reading_of_journal(call),
            goes_on=_is_reading_of_journal, more_max=2, skip_max=1, is_of_a_dead_journal=True),
)  # fmt: skip

BY_NAME: Final = {failure.name: failure for failure in FAILURES}
