"""Delivery: the threads that send batches, and the queue that brings their answers back.

Rule 1: a sender knows bytes and answers. What an answer means, and the ledger, belong to the poll loop.
Rule 2: each batch that was submitted comes back once, whatever happens to its sender.
Rule 3: one thread, the poll loop's, calls everything here; the senders only take jobs and leave answers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from settle_mp.core.answer import Failure, NoReply
from settle_mp.notices import notice

if TYPE_CHECKING:
    from settle_mp.core.answer import Answer
    from settle_mp.upstream import Upstream

#: Batches under way at once. More don't make a slow upstream faster, and each is a doubt if we are killed.
IN_FLIGHT_MAX: Final = 4

_log = logging.getLogger("settle_mp")


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A try that has ended.

    Attributes:
        batch_id: As submitted.
        answer: What came back.
        took_s: Seconds from the first look at the network to the end of the answer.
    """

    batch_id: int
    answer: Answer
    took_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    batch_id: int
    idempotency_key: str
    body: bytes
    upstream: Upstream


class Delivery:
    """Sends batches to the upstream, IN_FLIGHT_MAX at a time at most.

    Args:
        upstream: Where to; None while there is no API key. Delivery owns it from here on and closes it.
    """

    def __init__(self, upstream: Upstream | None) -> None:
        self._upstream = upstream
        self._in_flight_count = 0
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._done: deque[Completed] = deque()
        self._seen_errors: set[str] = set()
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._is_closed = False
        # Daemons, so that no request can keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, name=f"settle-mp-sender-{number}", daemon=True)
            for number in range(IN_FLIGHT_MAX)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def wake_fd(self) -> int:
        """A descriptor that is readable when something has completed; for a poller, not for reading."""
        return self._wake_read

    @property
    def in_flight_count(self) -> int:
        """Batches submitted and not yet taken back."""
        return self._in_flight_count

    @property
    def room_count(self) -> int:
        """Batches that may be submitted now; 0 without an upstream and after close()."""
        if self._upstream is None or self._is_closed:
            return 0
        return IN_FLIGHT_MAX - self._in_flight_count

    def submit(self, batch_id: int, *, idempotency_key: str, body: bytes) -> None:
        """Begin to send a batch that the ledger shows as `attempting`.

        Raises:
            RuntimeError: If room_count is 0.
        """
        if self._upstream is None or self.room_count <= 0:
            raise RuntimeError("submit() without room: ask room_count first")
        self._in_flight_count += 1
        job = _Job(batch_id=batch_id, idempotency_key=idempotency_key, body=body, upstream=self._upstream)
        self._jobs.put(job)

    def take_completed(self) -> list[Completed]:
        """Take what has come back since the last call, in the order in which it came; never waits."""
        with self._lock:
            # A byte a completed batch at most, so one read empties the pipe. Bytes first: what completes
            # after this leaves its own.
            if not self._is_closed:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_read, 4096)
            taken = list(self._done)
            self._done.clear()
        self._in_flight_count -= len(taken)
        return taken

    def replace_upstream(self, upstream: Upstream | None) -> None:
        """Send to another upstream from now on; what is in flight ends on the old one."""
        old, self._upstream = self._upstream, upstream
        if old is not None:
            old.close()

    def close(self, timeout_s: float) -> bool:
        """Stop sending, and wait for what is in flight as long as the timeout lets it.

        What has completed by then can still be taken; the rest stays `attempting` in the ledger. wake_fd is
        closed: take it out of the poller first.

        Args:
            timeout_s: Seconds for all together; 0 does not wait.

        Returns:
            Whether everything in flight has ended.
        """
        deadline_s = time.monotonic() + timeout_s
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))
        self.replace_upstream(None)
        with self._lock:
            # Under the lock: a late sender must not write into a descriptor that is another file by then.
            if not self._is_closed:
                self._is_closed = True
                os.close(self._wake_read)
                os.close(self._wake_write)
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            started_s = time.monotonic()
            answer = self._send(job)
            took_s = time.monotonic() - started_s
            self._complete(Completed(batch_id=job.batch_id, answer=answer, took_s=took_s))

    def _send(self, job: _Job) -> Answer:
        try:
            return job.upstream.post_batch(idempotency_key=job.idempotency_key, body=job.body)
        except BaseException as error:  # noqa: BLE001 - a dead sender would keep its batch for ever
            # A defect, so nothing is known of how far the request came.
            name = type(error).__name__
            self._log_once(name, error)
            return NoReply(failure=Failure.SENT_THEN_OTHER, detail=f"a defect in the sender: {name}")

    def _log_once(self, name: str, error: BaseException) -> None:
        with self._lock:
            is_new = name not in self._seen_errors
            self._seen_errors.add(name)
        if is_new:
            # Where, but not the error's own words: they may repeat a header with the key.
            where = "".join(traceback.format_tb(error.__traceback__))
            _log.error("delivery_defect", extra=notice("delivery_defect", name, error=name, where=where))

    def _complete(self, completed: Completed) -> None:
        with self._lock:
            self._done.append(completed)
            if not self._is_closed:
                # Full only when nobody polls; then there is enough in it to wake whoever does.
                with contextlib.suppress(BlockingIOError):
                    os.write(self._wake_write, b"\0")
