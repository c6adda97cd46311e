"""The house: sandbox, collector and gunicorn, each a process, in a folder that goes with them."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from settle_mp.demo.children import Child, DemoError, quote
from settle_mp.demo.traffic import settings_file

if TYPE_CHECKING:
    from settle_mp.demo.children import Watch

#: The folder's name begins so.
PREFIX: Final = "settle-demo-"
#: A unix socket's path has 104 bytes at most on macOS; beneath the folder it needs some 30.
FOLDER_CHARS_MAX: Final = 70
#: Any test key does for the sandbox.
API_KEY: Final = "ss_test_demo"
#: How long a process may take to start, and to end in good order, in seconds.
START_S: Final = 60.0
END_S: Final = 15.0
#: How long `settle-mp flush` waits for the upstream, in seconds.
FLUSH_S: Final = 60
#: A worker is replaced after this part of all requests, so that there are some twenty of them.
LIVES: Final = 20
WORKER_REQUESTS_MIN: Final = 50

#: How often it is tried to remove the folder: a process that dies can still end a call that makes a file.
REMOVALS_MAX: Final = 5

_PROGRAM: Final = (sys.executable, "-m", "settle_mp.cli")


class House:
    """Everything that runs, and the folder that it runs in.

    Args:
        watch: Sees to it that what should run does.
        requests_count: The size of the run; workers are recycled accordingly.
    """

    def __init__(self, watch: Watch, requests_count: int) -> None:
        self._watch = watch
        self.worker_requests_max: int = max(WORKER_REQUESTS_MIN, requests_count // LIVES)
        self.folder: Path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=_temporary()))
        self._children: list[Child] = []
        self._collector: Child | None = None
        self._collectors_count = 0
        self._gunicorn: Child | None = None
        self._sandbox: Child | None = None
        self.port: int = 0
        self.sandbox_port: int = 0

    def open(self) -> None:
        """Start the upstream and gunicorn side by side, then the collector.

        Raises:
            StoppedError, DemoError: See `Watch`.
        """
        state_dir = self.folder / "state"
        state_dir.mkdir(mode=0o700)
        (state_dir / "settle-mp.toml").write_text(settings_file(), encoding="utf-8")
        port_file = self.folder / "sandbox.port"
        options = (f"--port-file={port_file}", f"--db={self.folder / 'sandbox.db'}")
        self._sandbox = self._start("sandbox", *_PROGRAM, "sandbox", "--port=0", *options)
        self._start_gunicorn()
        self._watch.wait_until(port_file.exists, "the sandbox listens", START_S)
        self.sandbox_port = int(port_file.read_text(encoding="ascii"))
        self.start_collector()
        self._watch.wait_until(lambda: self.is_collecting, "the collector collects", START_S)

    @property
    def gunicorn(self) -> Child:
        """The arbiter; its workers are in its group."""
        assert self._gunicorn is not None  # noqa: S101 - open() comes first.
        return self._gunicorn

    @property
    def collector(self) -> Child:
        """The collector that runs now, or did last."""
        assert self._collector is not None  # noqa: S101 - The same.
        return self._collector

    def start_collector(self) -> None:
        """Start the collector, the first or the next one; soon `is_collecting`."""
        self._collector = self._start("collector", *_PROGRAM, "collector")
        self._collectors_count += 1

    @property
    def is_collecting(self) -> bool:
        """Whether the collector that was started last has come up."""
        return self.collector.log().count("collector_started") >= self._collectors_count

    def kill_collector(self) -> int:
        """SIGKILL to the collector; gives the process that it was."""
        self._watch.release(self.collector)
        self.collector.kill()
        return self.collector.pid

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a settle-mp command to its end; gives its exit code and what it said."""
        child = self._start(arguments[0], *_PROGRAM, *arguments)
        self._watch.release(child)
        what = f"`settle-mp {' '.join(arguments)}` ends"
        self._watch.wait_until(lambda: child.code is not None, what, FLUSH_S + START_S)
        return child.code or 0, child.log().strip()

    def end_senders(self) -> None:
        """End gunicorn and the collector in good order: after that nothing can reach the sandbox any more."""
        for child in (self.gunicorn, self.collector):
            self._watch.release(child)
            child.end(END_S)
            if child.code != 0:
                raise DemoError(f"Asked to end, {child.name} ended with code {child.code}.{quote(child)}")

    def close(self, *, is_hurried: bool, is_kept: bool) -> None:
        """End all that runs and remove the folder, unless it is to be kept."""
        for child in reversed(self._children):
            self._watch.release(child)
            if child.code is None or is_hurried:
                child.end(0.0 if is_hurried else END_S)
        for _ in range(0 if is_kept else REMOVALS_MAX):
            shutil.rmtree(self.folder, ignore_errors=True)
            if not self.folder.exists():
                break

    def _start(self, name: str, *command: str, pass_fds: tuple[int, ...] = ()) -> Child:
        child = Child(name, command, self.folder, self._environ(), pass_fds)
        self._children.append(child)
        return self._watch.over(child)

    def _start_gunicorn(self) -> None:
        # Bound here and inherited: no other program can take the port in between.
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
            self.port = listener.getsockname()[1]
            jitter = max(1, self.worker_requests_max // 10)
            self._gunicorn = self._start(
                "gunicorn",
                *(sys.executable, "-m", "gunicorn", "--config=python:settle_mp.demo.gunicorn_conf"),
                *(f"--max-requests={self.worker_requests_max}", f"--max-requests-jitter={jitter}"),
                *(f"--bind=fd://{listener.fileno()}", "settle_mp.demo.app:app"),
                pass_fds=(listener.fileno(),),
            )

    def _environ(self) -> dict[str, str]:
        # The user's own settings, for his own account first of all, stay out of it; so do his proxies.
        ours = {name: value for name, value in os.environ.items() if not _is_foreign(name)}
        return {
            **ours,
            # A gunicorn worker that is killed as it begins leaves a temporary file, to go with the folder.
            "TMPDIR": str(self.folder),
            "SETTLE_MP_STATE_DIR": str(self.folder / "state"),
            "SETTLE_MP_CONFIG": str(self.folder / "state" / "settle-mp.toml"),
            "SETTLESETTLE_API_KEY": API_KEY,
            "SETTLESETTLE_BASE_URL": f"http://127.0.0.1:{self.sandbox_port}",
        }


def _is_foreign(variable: str) -> bool:
    name = variable.upper()
    prefixes = ("SETTLE_MP_", "SETTLESETTLE_", "GUNICORN_")
    return name.startswith(prefixes) or name.endswith("_PROXY") or name == "WEB_CONCURRENCY"


def _temporary() -> str:
    folder = tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) <= FOLDER_CHARS_MAX else "/tmp"  # noqa: S108 - Made with mkdtemp.
