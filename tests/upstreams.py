"""The upstream in tests: the real sandbox on a free port; `tests.rawserver` has sockets for the rest.

    from settle_mp.sandbox.faults import Fault
    from tests.upstreams import sandbox

    with sandbox() as upstream:                       # in a thread of this process; ~20 ms
        post_somewhere(upstream.base_url, upstream.api_key)
        assert upstream.quantity("AI_QUERY") == 40    # exact: a Decimal
        assert upstream.rows("AI_QUERY")[0].metadata == {"model": "gpt-4"}

        upstream.fault(Fault.answering(503, when="before", times=2))
        upstream.fault(Fault.reset(when="after"))     # queued: a request meets the first that matches it
        upstream.hold()                               # applies, and keeps every answer back from now on
        upstream.wait_held(1)                         # a request is waiting now
        upstream.release()                            # held answers go out; holds no more
        upstream.clear_faults()

        upstream.seed({"user_123": 500})              # credits in wallets
        assert upstream.balance("user_123") == 500

        upstream.stop()                               # the port refuses connections
        upstream.start()                              # same port, same database

    with sandbox(in_process=False) as upstream: ...   # `settle-mp sandbox` as a process (takes a second)
                                                      # for tests that fork; upstream.kill() is SIGKILL

`sandbox(**options)`: api_key, ignores_idempotency_keys, rows_max, body_bytes_max, seeds. The environment for
a child process is `upstream.environ`. In pytest, the fixture `upstream` is `sandbox()`.

Whatever waits has a deadline and fails saying what did not come; nothing here sleeps and hopes.
"""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import pytest

from settle_mp.sandbox.faults import Fault
from settle_mp.sandbox.pipeline import Options
from settle_mp.sandbox.server import SandboxServer, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: Seconds that anything here may take before a test is taken for failed.
DEADLINE_S = 20.0
# Made once, since httpx reads all certificates of the machine for each client that brings none.
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def wait_until(
    is_so: Callable[[], object], what: str, timeout_s: float = DEADLINE_S, every_s: float = 0.005
) -> None:
    """Wait until a claim holds, looking at it every so often; fail with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            pytest.fail(f"after {timeout_s} s still not: {what}")
        time.sleep(every_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What was applied of one event type."""

    quantity: Decimal
    rows_count: int
    requests_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRow:
    """One row that was applied, in the order of `id`."""

    id: int
    user_id: str
    event_type: str
    quantity: Decimal
    #: Fractions in it are Decimal.
    metadata: dict[str, Any] | None
    idempotency_key: str | None
    #: ISO 8601, UTC.
    received_at: str
    #: Rows of one request share it.
    request: int


class Run(Protocol):
    """How a sandbox is run."""

    options: Options
    port: int
    db_path: Path

    def start(self) -> None:
        """Serve, and return once it answers."""

    def stop(self) -> None:
        """End in good order."""

    def kill(self) -> None:
        """End at once."""


class Upstream:
    """A sandbox as a test sees it, over HTTP, so that it is the same in a thread or a process."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._client = httpx.Client(timeout=DEADLINE_S, trust_env=False, verify=_TLS)
        #: A key that it takes.
        self.api_key = run.options.api_key or "ss_test_upstream"
        self.start()

    @property
    def port(self) -> int:
        """The port, the same for life."""
        return self._run.port

    @property
    def base_url(self) -> str:
        """The address, without /v1."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def db_path(self) -> Path:
        """Its database, for who would rather read that than ask."""
        return self._run.db_path

    @property
    def environ(self) -> dict[str, str]:
        """The two environment variables that lead a child process here."""
        return {"SETTLESETTLE_BASE_URL": self.base_url, "SETTLESETTLE_API_KEY": self.api_key}

    # What was applied.

    def usage(self) -> dict[str, Usage]:
        """Totals by event type."""
        return {
            name: Usage(
                quantity=Decimal(each["quantity"]), rows_count=each["rows"], requests_count=each["requests"]
            )
            for name, each in self._ask("GET", "/sandbox/usage")["usage"].items()
        }

    def quantity(self, event_type: str | None = None) -> Decimal:
        """Units applied, of one event type or of all."""
        return sum(
            (each.quantity for name, each in self.usage().items() if event_type in {None, name}), Decimal(0)
        )

    def rows(self, event_type: str | None = None, user_id: str | None = None) -> list[AppliedRow]:
        """All applied rows, in order."""
        asked = {"eventType": event_type, "userId": user_id, "limit": 5_000}
        query = {name: value for name, value in asked.items() if value is not None}
        found: list[AppliedRow] = []
        after: int | None = 0
        while after is not None:
            page = self._ask("GET", "/sandbox/rows", params={**query, "after": after})
            found += [_applied_row(each) for each in page["rows"]]
            after = page["next"]
        return found

    def seed(self, balances: dict[str, int]) -> None:
        """Give wallets that were never used their first credits."""
        self._ask("POST", "/sandbox/wallets", content=json.dumps(balances))

    def balance(self, user_id: str) -> int:
        """Credits in a wallet; 0 in one that was never used."""
        return int(self._ask("GET", "/sandbox/wallets")["wallets"].get(user_id, 0))

    # What was received.

    def requests(self) -> dict[str, Any]:
        """Counts: received, ended, held, replayed, byStatus ("200", …, "reset"), byPath; since `start()`."""
        counts: dict[str, Any] = self._ask("GET", "/sandbox/requests")
        return counts

    @property
    def requests_count(self) -> int:
        """Requests under /v1 received since `start()`, answered or not."""
        return int(self.requests()["received"])

    @property
    def held_count(self) -> int:
        """Requests that are being held."""
        return int(self.requests()["held"])

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        """Requests one by one since `start()`, those after a number.

        Each has number, receivedAt, method, path, idempotencyKey, bodySha256, rows, status, fault,
        isApplied, isReplayed and isReset.
        """
        logged: list[dict[str, Any]] = self._ask("GET", "/sandbox/log", params={"after": after})["log"]
        return logged

    # What to do wrong.

    def fault(self, *faults: Fault) -> None:
        """Put faults at the end of the queue."""
        self._ask("POST", "/sandbox/faults", content=json.dumps([fault.to_json() for fault in faults]))

    def hold(self, **fields: Any) -> None:
        """Keep back every matching answer until `release()`; with when="before", apply nothing until then."""
        self.fault(Fault.hold(**fields))

    def release(self) -> int:
        """Let held requests go on, and hold no more; returns how many were held."""
        return int(self._ask("POST", "/sandbox/release")["released"])

    def faults(self) -> list[dict[str, Any]]:
        """Faults that still stand: number, left, fault."""
        standing: list[dict[str, Any]] = self._ask("GET", "/sandbox/faults")["faults"]
        return standing

    def clear_faults(self) -> None:
        """Forget all faults, and let held requests go on."""
        self._ask("DELETE", "/sandbox/faults")

    def forget_keys(self) -> int:
        """Forget all idempotency keys, as a server does after its day; returns how many."""
        return int(self._ask("DELETE", "/sandbox/idempotency-keys")["forgotten"])

    # Waiting.

    def wait_requests(self, count: int, timeout_s: float = DEADLINE_S) -> None:
        """Wait until so many requests have been received since `start()`."""
        wait_until(lambda: self.requests_count >= count, f"{count} requests received", timeout_s)

    def wait_held(self, count: int = 1, timeout_s: float = DEADLINE_S) -> None:
        """Wait until so many requests are being held."""
        wait_until(lambda: self.held_count >= count, f"{count} requests held", timeout_s)

    def wait_quantity(
        self, quantity: Decimal | int, event_type: str | None = None, timeout_s: float = DEADLINE_S
    ) -> None:
        """Wait until at least so many units have been applied."""
        what = f"{quantity} units of {event_type or 'all types'} applied"
        wait_until(lambda: self.quantity(event_type) >= quantity, what, timeout_s)

    # Life.

    def start(self) -> None:
        """Start again after `stop()` or `kill()`, on the same port and database."""
        self._run.start()

    def stop(self) -> None:
        """End in good order: held requests are reset, the port refuses connections. Nothing if it is down."""
        self._run.stop()

    def kill(self) -> None:
        """SIGKILL; only with in_process=False."""
        self._run.kill()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._client.close()

    def _ask(self, method: str, path: str, **fields: Any) -> Any:
        answer = self._client.request(method, self.base_url + path, **fields)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.content, parse_float=Decimal)["data"]


@contextlib.contextmanager
def sandbox(
    *,
    in_process: bool = True,
    api_key: str | None = None,
    ignores_idempotency_keys: bool = False,
    rows_max: int = 1_000,
    body_bytes_max: int = 2**20,
    seeds: Mapping[str, int] | None = None,
) -> Iterator[Upstream]:
    """Run a sandbox with a database of its own, and end it afterwards; see the module's docstring."""
    options = Options(
        api_key=api_key,
        ignores_idempotency_keys=ignores_idempotency_keys,
        rows_max=rows_max,
        body_bytes_max=body_bytes_max,
        seeds=seeds or {},
    )
    with tempfile.TemporaryDirectory(prefix="smp-upstream-") as folder:
        run = _Thread(Path(folder), options) if in_process else _Process(Path(folder), options)
        upstream = Upstream(run)
        try:
            yield upstream
        finally:
            upstream.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A sandbox of the test's own."""
    with sandbox() as running:
        yield running


class _Thread:
    """The sandbox's server in a thread."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.options = options
        self.port = 0
        self.db_path = folder / "sandbox.db"
        self._server: SandboxServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve, and return once it answers."""
        assert self._server is None, "it is running"
        listener = listen("127.0.0.1", self.port, has_pinned_key=False)
        self.port = listener.getsockname()[1]
        is_started = threading.Event()
        self._server = SandboxServer(str(self.db_path), self.options, is_started.set)
        self._thread = threading.Thread(
            target=self._server.run_on, args=(listener,), name="sandbox", daemon=True
        )
        self._thread.start()
        assert is_started.wait(DEADLINE_S), "the sandbox did not start"

    def stop(self) -> None:
        """End in good order."""
        if self._server is None or self._thread is None:
            return
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the sandbox did not end"
        self._server = None

    def kill(self) -> None:
        """A thread can't be killed."""
        raise AssertionError("kill() needs sandbox(in_process=False)")


def sandbox_command(options: Options, port: int, folder: Path) -> list[str]:
    """Give the arguments of `settle-mp` for a sandbox whose database and port's file are in a folder."""
    command = ["sandbox", f"--port={port}", f"--port-file={folder / 'port'}", f"--db={folder / 'sandbox.db'}"]
    command += [f"--rows-max={options.rows_max}", f"--body-bytes-max={options.body_bytes_max}"]
    command += [f"--seed={user_id}={held}" for user_id, held in options.seeds.items()]
    command += [f"--api-key={options.api_key}"] if options.api_key else []
    return command + (["--ignore-idempotency-keys"] if options.ignores_idempotency_keys else [])


class _Process:
    """`settle-mp sandbox` as a process."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.options = options
        self.port = 0
        self._folder = folder
        self.db_path = folder / "sandbox.db"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Run the command, and return once it answers."""
        assert self._process is None, "it is running"
        port_file = self._folder / "port"
        port_file.unlink(missing_ok=True)
        with (self._folder / "output").open("ab") as output:
            command = [
                sys.executable,
                "-m",
                "settle_mp.cli",
                *sandbox_command(self.options, self.port, self._folder),
            ]
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_until(lambda: port_file.exists() or not self._is_alive(), "the sandbox answers")
        assert self._is_alive(), (self._folder / "output").read_text()
        self.port = int(port_file.read_text())

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """End in good order (SIGTERM)."""
        self._end(signal.SIGTERM, 0)

    def kill(self) -> None:
        """End at once (SIGKILL)."""
        self._end(signal.SIGKILL, -signal.SIGKILL)

    def _end(self, signum: int, code: int) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signum)
        assert process.wait(DEADLINE_S) == code, (self._folder / "output").read_text()


def _applied_row(listed: dict[str, Any]) -> AppliedRow:
    return AppliedRow(
        id=listed["id"],
        user_id=listed["userId"],
        event_type=listed["eventType"],
        quantity=Decimal(listed["quantity"]),
        metadata=listed["metadata"],
        idempotency_key=listed["idempotencyKey"],
        received_at=listed["receivedAt"],
        request=listed["request"],
    )
