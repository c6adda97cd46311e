"""The clients: real HTTP requests over kept-alive connections, and how each of them ended.

Rule 1: a request is answered when its status is 200 and its whole body has come; it is cut off when
the connection broke before that. None is sent twice.
Rule 2: what nobody expects (another status, a refused connection, too many cut off) stops the load and is
told by `failure`.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from typing import TYPE_CHECKING, Final

from settle_mp.demo.traffic import SABOTAGE_HEADER, WORKER_HEADER, answer_to, request
from settle_mp.demo.verdict import Ending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.demo.traffic import Request

#: Clients at a time, each with a connection of its own: as many as gunicorn has threads.
CLIENTS_COUNT: Final = 16
#: Requests over one connection. New ones are spread over all workers, those just started included.
REQUESTS_A_CONNECTION: Final = 100
#: A kill cuts off what one worker has in hand; beyond this many something else is wrong.
CUT_OFF_MAX: Final = 500
#: Longer than any answer takes, in seconds.
ANSWER_S: Final = 20.0


class Load:
    """Sends requests number 0 to `requests_count` - 1 from daemon threads.

    Args:
        port: Where gunicorn listens on this machine.
        requests_count: How many to send.
    """

    def __init__(self, port: int, requests_count: int) -> None:
        self._port = port
        self._numbers = itertools.count()
        self._requests_count = requests_count
        self._lock = threading.Lock()
        self._endings: list[Ending | None] = [None] * requests_count
        self._is_stopped = False
        self._pids = [0] * CLIENTS_COUNT
        self._threads = [
            threading.Thread(target=self._run, args=(index,), name=f"client-{index}", daemon=True)
            for index in range(CLIENTS_COUNT)
        ]
        self._answered = [0] * CLIENTS_COUNT
        self._cut_off = [0] * CLIENTS_COUNT
        #: Every worker that answered.
        self.workers: set[int] = set()
        #: Why the load stopped early, or None.
        self.failure: str | None = None

    def start(self) -> None:
        """Begin to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more; what is under way ends as it will."""
        self._is_stopped = True

    @property
    def is_done(self) -> bool:
        """Whether every request has ended."""
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def answered_count(self) -> int:
        """Requests answered so far."""
        return sum(self._answered)

    @property
    def cut_off_count(self) -> int:
        """Requests cut off so far."""
        return sum(self._cut_off)

    @property
    def ended_count(self) -> int:
        """Requests that have ended so far, one way or the other."""
        return self.answered_count + self.cut_off_count

    @property
    def busy_workers(self) -> list[int]:
        """The workers that the clients are connected to, each once."""
        return [*dict.fromkeys(pid for pid in self._pids if pid)]

    def sent(self) -> Iterator[tuple[Request, Ending]]:
        """Give every request that was sent with its ending, once all have ended."""
        for number, ending in enumerate(self._endings):
            if ending is not None:
                yield request(number), ending

    def send_untracked(self, number: int) -> tuple[Request, Ending]:
        """Send one more request, which the app answers without tracking it."""
        client = _Client(self._port)
        asked = request(number)
        client.send(asked, {SABOTAGE_HEADER: "1"})
        client.close()
        return asked, Ending.ANSWERED

    def ask_worker(self) -> int:
        """Ask who would answer now; gives 0 when nobody does. It is no request of the traffic."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=ANSWER_S)
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().headers.get(WORKER_HEADER, "0"))
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def _run(self, index: int) -> None:
        client = _Client(self._port)
        while not self._is_stopped:
            with self._lock:
                number = next(self._numbers)
            if number >= self._requests_count:
                break
            self._endings[number] = self._send(index, client, request(number))
        client.close()

    def _send(self, index: int, client: _Client, asked: Request) -> Ending | None:
        try:
            self._pids[index] = client.send(asked)
        except ConnectionRefusedError:
            self._fail("gunicorn no longer listens")
            return None
        except UnexpectedAnswerError as error:
            self._fail(str(error))
            return None
        except (OSError, http.client.HTTPException):
            client.close()
            self._cut_off[index] += 1
            if self.cut_off_count > CUT_OFF_MAX:
                self._fail(f"more than {CUT_OFF_MAX} requests were cut off")
            return Ending.CUT_OFF
        self._answered[index] += 1
        self.workers.add(self._pids[index])
        return Ending.ANSWERED

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self.stop()


class UnexpectedAnswerError(Exception):
    """An answer that no kill explains."""


class _Client:
    """One client and its connection, opened anew now and then, and after it broke."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
        self._sent_count = 0

    def send(self, asked: Request, headers: dict[str, str] | None = None) -> int:
        """Send a request and read its answer; gives the worker that answered.

        Raises:
            OSError, HTTPException: When it was cut off.
            UnexpectedAnswerError: When the answer is not what the app says.
        """
        if self._sent_count % REQUESTS_A_CONNECTION == 0:
            self.close()
        self._sent_count += 1
        self._connection.request("POST", asked.kind.path, asked.body, headers or {})
        answer = self._connection.getresponse()
        body = answer.read()
        worker = answer.headers.get(WORKER_HEADER, "")
        if answer.status != http.client.OK or body != answer_to(asked.id) or not worker.isdecimal():
            raise UnexpectedAnswerError(f"{asked.kind.path} gave status {answer.status} and a wrong answer")
        return int(worker)

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self._connection.close()
