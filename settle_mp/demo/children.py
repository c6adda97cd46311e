"""Processes that the demo starts: each in a group of its own, so that it ends with all of its children.

Rule 1: Ctrl-C reaches the demo alone, which only notes it (`Watch`); the groups are ended by `Child.end`.
Rule 2: whatever waits goes through `Watch.wait_until`: it has a deadline, sees a noted signal, and sees a
process that ended by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import FrameType, TracebackType

#: What ends the demo early: Ctrl-C, a supervisor, a closed terminal.
ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: How often something that is waited for is looked at, in seconds.
LOOK_S: Final = 0.02
#: How long a killed group is waited for, in seconds. It is dead much sooner; but those whose parent has died
#: first are still listed until process 1 takes note, which in some containers it never does.
GONE_S: Final = 0.5
#: Lines of a log that an error shows.
LOG_LINES: Final = 12


class DemoError(Exception):
    """The demo could not be played to its end; the message says what happened and what the logs say."""


class StoppedError(Exception):
    """A signal asked the demo to end."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Child:
    """A process and its group.

    Args:
        name: What the demo calls it; its output goes to NAME.log in the folder.
        command: The program and its arguments.
        folder: Where it runs.
        environ: Its whole environment.
        pass_fds: Descriptors that it inherits.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        environ: Mapping[str, str],
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._log_path = folder / f"{name}.log"
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - Our own programs.
                command,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=pass_fds,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process, which is its group too."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def log(self) -> str:
        """What it and those before it of the same name have said."""
        return self._log_path.read_text(encoding="utf-8", errors="replace")

    def has_member(self, pid: int) -> bool:
        """Whether a process is in its group. One that is not may be anybody's by now: never signal it."""
        try:
            return os.getpgid(pid) == self.pid
        except ProcessLookupError:
            return False

    def kill(self) -> None:
        """SIGKILL to the process alone."""
        self._process.kill()
        self._process.wait()

    def end(self, grace_s: float) -> None:
        """Ask it to end, and end its whole group when it has not in time; 0 does not ask."""
        if grace_s:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace_s)
        deadline_s = time.monotonic() + GONE_S
        # A group is there for as long as any of its members is.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            while time.monotonic() < deadline_s:
                os.killpg(self.pid, signal.SIGKILL)
                self._process.poll()
                time.sleep(LOOK_S)
        self._process.wait()


class Watch:
    """Notes ending signals while it is entered, and waits for things.

    Use it as a context manager in the main thread. What it notes is raised by the next `check`, never in
    the middle of something.
    """

    def __init__(self) -> None:
        self._noted: int | None = None
        self._children: list[Child] = []
        self._handlers: dict[int, object] = {}
        #: Called at each look while something is waited for.
        self.on_look: Callable[[], None] | None = None

    def __enter__(self) -> Watch:
        for each in ENDING_SIGNALS:
            # What is ignored stays so: that is how nohup works.
            if signal.getsignal(each) is not signal.SIG_IGN:
                self._handlers[each] = signal.signal(each, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)  # type: ignore[arg-type] # As signal.signal returned it.

    def _note(self, signum: int, frame: FrameType | None) -> None:
        del frame
        self._noted = self._noted or signum

    def over(self, child: Child) -> Child:
        """Expect a process to run from now on."""
        self._children.append(child)
        return child

    def release(self, child: Child) -> None:
        """Let a process end."""
        if child in self._children:
            self._children.remove(child)

    def check(self) -> None:
        """Go on only if nothing has gone wrong.

        Raises:
            StoppedError: When a signal was noted.
            DemoError: When a process has ended that should run.
        """
        if self._noted is not None:
            raise StoppedError(self._noted)
        for child in self._children:
            if child.code is not None:
                raise DemoError(f"{child.name} ended with code {child.code}.{quote(child)}")

    def wait_until(self, is_so: Callable[[], object], what: str, timeout_s: float) -> None:
        """Wait until a claim holds.

        Raises:
            StoppedError, DemoError: As `check`; or when the time is over.
        """
        deadline_s = time.monotonic() + timeout_s
        while not is_so():
            self.check()
            if self.on_look is not None:
                self.on_look()
            if time.monotonic() > deadline_s:
                logs = "".join(quote(child) for child in self._children)
                raise DemoError(f"After {timeout_s:g} s still waiting for this: {what}.{logs}")
            time.sleep(LOOK_S)
        self.check()


def quote(child: Child) -> str:
    """Give the last lines of a process's log, to be put behind a sentence."""
    lines = child.log().splitlines()[-LOG_LINES:]
    return f"\n--- {child.name}.log ends so:\n" + "\n".join(lines) if lines else ""
