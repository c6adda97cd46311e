"""Points: the moments at which a process is killed, each told from outside by its system calls.

A point looks at every call of the traced process, before and after it is made, and says when it is there.
What a transaction of the ledger is about is read from the write-ahead log's frames as they are written: which
tables' root pages are in it (https://www.sqlite.org/walformat.html). Nothing is asked of the product.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.chaos.ptrace import Call, Threads

#: What every event type of the load begins with, so that a frame is known when it is seen on its way.
MARK: Final = b"CHAOS_"
#: Calls that change what is found after a death.
DURABLE: Final = {"fdatasync", "flock", "fsync", "pwrite64", "rename", "renameat", "unlink", "unlinkat"}
_FRAME_HEADER: Final = struct.Struct(">II")
_FRAME_HEADER_BYTES: Final = 24


class Watch:
    """What has been seen of one traced process so far; points look at it.

    Attributes:
        transaction: What the transaction that is being written is about: intake, seal, attempt, settle, or
            nothing while its commit is not being written.
        committed: What the last transaction was about, until another call of the ledger's thread is seen.
        estates: Locks of journals that are held.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = str(state_dir)
        self._tables: dict[int, str] = {}
        self._pages: set[int] = set()
        self.transaction = self.committed = ""
        self.estates = 0
        self._ledger = b""

    def look(self, call: Call) -> None:
        """Take note of a call."""
        if call.name == "pwrite64" and call.file.endswith("ledger.db-wal"):
            self._look_at_log(call)
        elif call.name == "fdatasync" and not call.is_before and call.file.endswith("ledger.db-wal"):
            self.committed, self.transaction = self.transaction, ""
        elif call.name == "flock" and call.is_made and is_journal_lock(call):
            self.estates += 1

    @property
    def ledger(self) -> bytes:
        """The ledger's id, which each ack carries."""
        self._ledger = self._ledger or bytes.fromhex(self._query("SELECT value, name FROM meta")["id"])
        return self._ledger

    def _look_at_log(self, call: Call) -> None:
        if not call.is_before or call.arguments[2] != _FRAME_HEADER_BYTES:
            return
        if self.transaction:
            self._pages, self.transaction = set(), ""
        page, pages_after_commit = _FRAME_HEADER.unpack_from(call.data)
        self._pages.add(page)
        if pages_after_commit:
            self.transaction = self._kind()
            self._pages = set()

    def _kind(self) -> str:
        tables = {self._table(page) for page in self._pages}
        if "receipts" in tables:
            return "settle"
        if "totals" in tables:
            return "intake"
        if "counters" in tables:
            return "attempt"
        return "seal" if "meta" in tables else "other"

    def _table(self, page: int) -> str:
        self._tables = self._tables or {
            page: name for name, page in self._query("SELECT rootpage, name FROM sqlite_master").items()
        }
        return self._tables.get(page, "")

    def _query(self, sql: str) -> dict[str, Any]:
        """The first column by the second."""
        connection = sqlite3.connect(f"file:{self._state_dir}/ledger/ledger.db?mode=ro", uri=True)
        try:
            return {name: value for value, name in connection.execute(sql)}
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One moment.

    Attributes:
        name: How the table names it.
        stage: Which part of an event's way it belongs to.
        role: Whose it is: collector or worker.
        is_there: Whether a call is it.
        threads: Which of its threads come there.
        is_at_start: Whether the process must be watched from its first call on.
        is_in_storm: Whether it takes a young worker that tracks a lot.
        skip_max: How often it is passed at most before it is hit, for what happens many times a second.
        is_on_disk: Whether what has come there outlives a loss of power as well.
        comes_of: The signal that makes the process come there, where the load alone seldom does.
    """

    name: str
    stage: str
    role: str
    is_there: Callable[[Call, Watch], bool]
    threads: Threads = "first"
    is_at_start: bool = False
    is_in_storm: bool = False
    skip_max: int = 0
    is_on_disk: bool = True
    comes_of: int | None = None


def is_header(call: Call) -> bool:
    """Whether a journal's header is written."""
    return os.path.basename(call.file) == "header"  # noqa: PTH119  a name, looked at often


def is_journal_lock(call: Call) -> bool:
    """Whether it is the lock of a journal."""
    return call.file.endswith("/lock") and "/journals/" in call.file


def _is_commit(kind: str) -> Callable[[Call, Watch], bool]:
    """The commit frame of a transaction is about to be written."""
    return lambda call, watch: (
        call.name == "pwrite64"
        and call.is_before
        and call.arguments[2] == _FRAME_HEADER_BYTES
        and watch.transaction == kind
        and call.file.endswith("-wal")
    )


def _is_unsynced(kind: str) -> Callable[[Call, Watch], bool]:
    return lambda call, watch: (
        call.name == "fdatasync"
        and call.is_before
        and watch.transaction == kind
        and call.file.endswith("-wal")
    )


def _is_committed(kind: str) -> Callable[[Call, Watch], bool]:
    return lambda call, watch: (
        call.name == "fdatasync"
        and not call.is_before
        and watch.committed == kind
        and call.file.endswith("-wal")
    )


def _is_from_socket(call: Call) -> bool:
    return call.name == "recvfrom" and call.is_made and bool(call.result)


def _is_frame_received(call: Call, _: Watch) -> bool:
    return _is_from_socket(call) and MARK in call.data


def _is_ack(call: Call, watch: Watch) -> bool:
    return call.name == "sendto" and watch.ledger in call.data


def _is_ack_received(call: Call, watch: Watch) -> bool:
    return _is_from_socket(call) and watch.ledger in call.data


def _is_answer(call: Call, _: Watch) -> bool:
    return _is_from_socket(call)


def _is_mark(call: Call) -> bool:
    return call.name in {"rename", "renameat"} and "/ledger/" in call.path


def _is_leaving(call: Call) -> bool:
    """A dead journal's folder gets the name under which it is removed."""
    return call.name in {"rename", "renameat"} and "/journals/" in call.path and "/." not in call.path


def _is_checkpoint(call: Call, _: Watch) -> bool:
    return call.name == "pwrite64" and not call.is_before and call.file.endswith("/ledger.db")


def _is_durable_step(call: Call, _: Watch) -> bool:
    return call.name in DURABLE and call.is_before


def _is_moving_in(call: Call) -> bool:
    return call.name in {"rename", "renameat"} and "/journals/.new-" in call.path and ".seg" not in call.path


def _is_segment_named(call: Call) -> bool:
    return call.name in {"rename", "renameat"} and call.path.endswith(".seg.new")


def _is_freeing(call: Call) -> bool:
    return call.name in {"unlink", "unlinkat"} and call.path.endswith(".seg")


def _is_sending(call: Call, _: Watch) -> bool:
    return call.name == "sendto" and MARK in call.data


BIRTH: Final = "while a journal is born"
SEGMENTS: Final = "while its segments come and go"
INTAKE: Final = "while events go into the ledger"
SEAL: Final = "while a window is sealed"
DELIVERY: Final = "while a batch is sent"
ADOPTION: Final = "while a dead worker's journal is taken over"
ELSEWHERE: Final = "at other moments"

#: In the order in which an event meets them.
POINTS: Final = (
    Point(name="journal made, without a name", stage=BIRTH, role="worker", is_on_disk=False, threads="all",
          is_at_start=True,
          is_there=lambda call, _: call.is_before and _is_moving_in(call)),
    Point(name="journal named, empty", stage=BIRTH, role="worker", is_on_disk=False, threads="all",
          is_at_start=True,
          is_there=lambda call, _: call.is_made and _is_moving_in(call)),
    Point(name="segment made, without a name", stage=SEGMENTS, role="worker", is_on_disk=False,
          threads="python",
          is_in_storm=True,
          is_there=lambda call, _: call.is_before and _is_segment_named(call)),
    Point(name="segment named, unused", stage=SEGMENTS, role="worker", is_on_disk=False, threads="python",
          is_in_storm=True,
          is_there=lambda call, _: call.is_made and _is_segment_named(call)),
    Point(name="before a frame is sent", stage=INTAKE, role="worker", is_on_disk=False, threads="zmq",
          skip_max=3,
          is_there=lambda call, watch: call.is_before and _is_sending(call, watch)),
    Point(name="frame sent", stage=INTAKE, role="worker", is_on_disk=False, threads="zmq", skip_max=3,
          is_there=lambda call, watch: call.is_made and _is_sending(call, watch)),
    Point(name="frame received", stage=INTAKE, role="collector", is_on_disk=False, threads="zmq", skip_max=3,
          is_there=_is_frame_received),
    Point(name="before the commit", stage=INTAKE, role="collector", is_on_disk=False, skip_max=3,
          is_there=_is_commit("intake")),
    Point(name="committed, not synced", stage=INTAKE, role="collector", is_on_disk=False, skip_max=3,
          is_there=_is_unsynced("intake")),
    Point(name="after the commit", stage=INTAKE, role="collector", skip_max=3,
          is_there=_is_committed("intake")),
    Point(name="before the header's position", stage=INTAKE, role="collector", skip_max=3,
          is_there=lambda call, _: call.name == "pwrite64" and call.is_before and is_header(call)),
    Point(name="after the header's position", stage=INTAKE, role="collector", skip_max=3,
          is_there=lambda call, _: call.name == "pwrite64" and call.is_made and is_header(call)),
    Point(name="before the ack", stage=INTAKE, role="collector", threads="zmq", skip_max=3,
          is_there=lambda call, watch: call.is_before and _is_ack(call, watch)),
    Point(name="ack sent", stage=INTAKE, role="collector", threads="zmq", skip_max=3,
          is_there=lambda call, watch: call.is_made and _is_ack(call, watch)),
    Point(name="ack received", stage=INTAKE, role="worker", threads="zmq", skip_max=3,
          is_there=_is_ack_received),
    Point(name="before an acked segment goes", stage=SEGMENTS, role="worker", threads="python",
          is_in_storm=True,
          is_there=lambda call, _: call.is_before and _is_freeing(call)),
    Point(name="acked segment gone", stage=SEGMENTS, role="worker", threads="python", is_in_storm=True,
          is_there=lambda call, _: call.is_made and _is_freeing(call)),
    Point(name="before the seal", stage=SEAL, role="collector", skip_max=3, is_there=_is_commit("seal")),
    Point(name="after the seal", stage=SEAL, role="collector", skip_max=3, is_there=_is_committed("seal")),
    Point(name="before the seal's mark", stage=SEAL, role="collector",
          is_there=lambda call, _: call.is_before and _is_mark(call)),
    Point(name="after the seal's mark", stage=SEAL, role="collector",
          is_there=lambda call, _: call.is_made and _is_mark(call)),
    Point(name="before it is attempting", stage=DELIVERY, role="collector", is_there=_is_commit("attempt")),
    Point(name="attempting", stage=DELIVERY, role="collector", is_there=_is_committed("attempt")),
    Point(name="before the POST", stage=DELIVERY, role="collector", threads="others", skip_max=3,
          is_there=lambda call, _: call.name == "sendto" and call.is_before and call.data[:5] == b"POST "),
    Point(name="after the POST", stage=DELIVERY, role="collector", threads="others", skip_max=3,
          is_there=lambda call, _: call.name == "sendto" and call.is_made and b'"userId"' in call.data),
    Point(name="answered", stage=DELIVERY, role="collector", threads="others", skip_max=3,
          is_there=_is_answer),
    Point(name="before it is settled", stage=DELIVERY, role="collector", skip_max=3,
          is_there=_is_commit("settle")),
    Point(name="after it is settled", stage=DELIVERY, role="collector", is_there=_is_committed("settle")),
    Point(name="adoption: lock taken", stage=ADOPTION, role="collector", is_on_disk=False,
          is_there=lambda call, _: call.name == "flock" and call.is_made and is_journal_lock(call)),
    Point(name="adoption: journal read", stage=ADOPTION, role="collector", is_on_disk=False,
          is_there=lambda call, watch: (call.name == "pread64" and call.is_made and watch.estates > 0
                                        and call.file.endswith(".seg"))),
    Point(name="adoption: before the folder goes", stage=ADOPTION, role="collector",
          is_there=lambda call, _: call.is_before and _is_leaving(call)),
    Point(name="adoption: folder on its way out", stage=ADOPTION, role="collector",
          is_there=lambda call, _: call.is_made and _is_leaving(call)),
    Point(name="adoption: folder half gone", stage=ADOPTION, role="collector",
          is_there=lambda call, _: call.name == "unlinkat" and call.is_made),
    Point(name="within a checkpoint", stage=ELSEWHERE, role="collector", comes_of=signal.SIGTERM,
          is_there=_is_checkpoint),
    Point(name="start: before headers are written", stage=ELSEWHERE, role="collector", is_at_start=True,
          is_there=lambda call, _: call.name == "pwrite64" and call.is_before and is_header(call)),
    Point(name="before any step of a start", stage=ELSEWHERE, role="collector", is_on_disk=False,
          is_at_start=True,
          skip_max=60, is_there=_is_durable_step),
    Point(name="before any step at all", stage=ELSEWHERE, role="collector", is_on_disk=False, skip_max=200,
          is_there=_is_durable_step),
)  # fmt: skip

BY_NAME: Final = {point.name: point for point in POINTS}
