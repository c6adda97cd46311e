"""One page, run from its first block to its last: `python -m tests.docs.page README.md`.

It runs in a process of its own, with the environment that `test_pages` makes: a sandbox, a key for it, a
state folder, an empty home and working folder. Python blocks share one namespace, commands one folder; a
server that a block starts runs until the page ends.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import inspect
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from settle_mp import config
from settle_mp.testing import fake_wallet, record_events
from tests.docs.blocks import ROOT, RUN, Block, blocks

if TYPE_CHECKING:
    from collections.abc import Callable

#: Seconds that one command, or a server's start, may take.
DEADLINE_S: Final = 60.0

#: Programs that run until they are told to end, and what they say once they answer.
SERVERS: Final = {
    "settle-mp collector": "collector_started",
    "settle-mp sandbox": "The sandbox answers on",
    "gunicorn": "Booting worker",
}
#: Commands that change the machine: what they name is looked up instead.
_INSTALLS: Final = re.compile(r"(?:python3? -m )?pip install (?P<what>.+)")
_MAKES: Final = re.compile(r"make (?P<target>[a-z]+)\b")
#: A view that takes a terminal and does not end: its help is asked for.
_LIVE: Final = re.compile(r"^settle-mp top\b")
_EXPORT: Final = re.compile(r"export ((?:\w+=\S+\s*)+)(?:#.*)?$")
_PORT: Final = re.compile(r"(?:127\.0\.0\.1:|localhost:|--port[ =])(\d{4,5})\b")

_FIXTURES: Final[dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]] = {
    "settle_events": record_events,
    "settle_wallet": fake_wallet,
}


class PageError(AssertionError):
    """A block does not do what the page says."""


class Page:
    """A page that is being run."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._blocks = blocks(_with_free_ports(text))
        self._names: dict[str, Any] = {"__name__": "page"}
        self._servers: list[subprocess.Popen[bytes]] = []

    def run(self) -> None:
        """Run all blocks; end what they started."""
        texts = [each.text for each in self._blocks if each.language in RUN and not each.not_run]
        started = SERVERS["settle-mp collector"]
        try:
            if any("ettle(" in text for text in texts) and started not in map(_ready, texts):
                self._serve("settle-mp collector", started)
            for block in self._blocks:
                self._do(block)
        finally:
            self._end()

    def _do(self, block: Block) -> None:
        ways: dict[str, Callable[[Block], object]] = {
            "python": self._python,
            "sh": self._sh,
            "toml": _toml,
            "json": _json,
            "ini": _ini,
        }
        if block.language not in ways or block.not_run:
            return
        try:
            ways[block.language](block)
        except Exception as error:
            raise PageError(f"{self._path}:{block.line}: {type(error).__name__}: {error}") from error

    # --- Python ---

    def _python(self, block: Block) -> None:
        source = "\n" * (block.line - 1) + block.text
        names = set(self._names)
        code = compile(source, str(self._path), "exec", flags=0, dont_inherit=True)
        exec(code, self._names)  # noqa: S102 - It is our own page.
        for name in [each for each in self._names if each.startswith("test_") and each not in names]:
            _call_test(self._names[name])

    # --- Commands ---

    def _sh(self, block: Block) -> None:
        rest: list[str] = []
        for line in block.text.splitlines():
            if (installs := _INSTALLS.match(line)) is not None:
                _check_installed(installs["what"])
            elif (makes := _MAKES.match(line)) is not None:
                _check_target(makes["target"])
            elif (exports := _EXPORT.match(line)) is not None:
                for each in shlex.split(exports[1]):
                    name, _, value = each.partition("=")
                    os.environ[name] = value
            else:
                rest.append(_LIVE.sub("settle-mp top --help", line))
        text = "\n".join(rest).strip()
        ready = _ready(text)
        if ready is not None:
            self._serve(text, ready)
        elif text:
            _run_commands(text)

    def _serve(self, command: str, ready: str) -> None:
        with tempfile.NamedTemporaryFile(delete=False) as output:
            server = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", command],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._servers.append(server)
        said = Path(output.name)
        deadline_s = time.monotonic() + DEADLINE_S
        while ready not in said.read_text(errors="replace"):
            if server.poll() is not None or time.monotonic() > deadline_s:
                raise PageError(f"{command!r} is not ready: {said.read_text(errors='replace')}")
            time.sleep(0.02)

    def _end(self) -> None:
        for server in reversed(self._servers):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGINT)
            try:
                server.wait(DEADLINE_S)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)


def _ready(commands: str) -> str | None:
    """What the server says that commands end with, if they do."""
    last = next(reversed(commands.strip().splitlines()), "")
    return next(
        (said for name, said in SERVERS.items() if last.startswith(name) and "--help" not in last), None
    )


def _call_test(test: Callable[..., Any]) -> None:
    with contextlib.ExitStack() as stack:
        fixtures = {
            name: stack.enter_context(_FIXTURES[name]()) for name in inspect.signature(test).parameters
        }
        result = test(**fixtures)
        if inspect.isawaitable(result):
            asyncio.run(_awaited(result))


async def _awaited(result: Any) -> None:
    await result


def _run_commands(text: str) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    if done.returncode != 0:
        raise PageError(f"exit code {done.returncode}: {done.stdout}{done.stderr}")


def _check_installed(what: str) -> None:
    """Look at what would be installed: this package, with extras that it has."""
    known = metadata.metadata("settle-mp").get_all("Provides-Extra") or []
    for word in shlex.split(what, comments=True):
        found = re.fullmatch(r"(?:settle-mp|\./settle-mp|\.\./\.\.|\.)(?:\[([a-z,-]+)\])?", word)
        if found is None or not set(filter(None, (found[1] or "").split(","))) <= set(known):
            raise PageError(f"{word!r} is not this package with extras of {known}")


def _check_target(target: str) -> None:
    if f"\n{target}:" not in (ROOT / "Makefile").read_text(encoding="utf-8"):
        raise PageError(f"there is no `make {target}`")


def _toml(block: Block) -> None:
    """Load settings as a process that reads this file would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, config.FILE_NAME)
        path.write_text(block.text, encoding="utf-8")
        config.load(config_path=path, environ={"HOME": folder})


def _json(block: Block) -> None:
    json.loads(block.text)


def _ini(block: Block) -> None:
    # Units of systemd may have a name several times.
    configparser.ConfigParser(strict=False, interpolation=None).read_string(block.text)


def _with_free_ports(text: str) -> str:
    """Let servers of a page listen where nothing else does, under one number wherever the page has it."""
    with contextlib.ExitStack() as stack:
        ports = {port: _free_port(stack) for port in set(_PORT.findall(text))}
    return re.sub(r"\b\d{4,5}\b", lambda found: ports.get(found[0], found[0]), text)


def _free_port(stack: contextlib.ExitStack) -> str:
    return str(stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1])


def main() -> None:
    """Run the page that the command line names."""
    path = Path(sys.argv[1])
    Page(path, (ROOT / path).read_text(encoding="utf-8")).run()


if __name__ == "__main__":
    main()
