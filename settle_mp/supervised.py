"""A host's hold on its supervisor: start it when it is wanted, look whether it lives, end it.

Made for hosts that fork, reap every child they find, and have signal handlers of their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How long the supervisor may take to end, beside the collector's drain timeout, in seconds: it kills a
#: collector that takes more than 10.
END_S: Final = 12.0

#: Names of log levels that hosts and settle-mp share; hosts have "critical" as well.
_LEVELS: Final = ("debug", "info", "warning", "error")


class OwnCollector:
    """The collector that a host runs itself, if it was asked to. In a fork this does nothing."""

    def __init__(self) -> None:
        self._options: list[str] | None = None
        self._drain_timeout_s = 0.0
        self._supervised: Supervised | None = None

    def want(
        self,
        *,
        state_dir: str | os.PathLike[str] | None,
        config: str | os.PathLike[str] | None,
        drain_timeout: float,
    ) -> None:
        """Note the wish; `ensure` acts.

        Args:
            state_dir: As for `Settle()`; None finds the same folder that the workers find.
            config: The settings file; None finds the same as the workers.
            drain_timeout: How long the collector may ship before it ends, in seconds.

        Raises:
            TypeError, ValueError: If drain_timeout is not a number of seconds, or negative.
        """
        if isinstance(drain_timeout, bool) or not isinstance(drain_timeout, int | float):
            msg = f"drain_timeout must be a number of seconds, not {type(drain_timeout).__name__}"
            raise TypeError(msg)
        if not 0 <= drain_timeout < float("inf"):
            msg = f"drain_timeout must be 0 or more seconds, and finite, not {drain_timeout!r}"
            raise ValueError(msg)
        options = [f"--state-dir={os.fspath(state_dir)}"] if state_dir is not None else []
        options += [f"--config={os.fspath(config)}"] if config is not None else []
        self._options, self._drain_timeout_s = options, drain_timeout

    def ensure(self, *, log_level: str, user: int | None = None, group: int | None = None) -> str:
        """Start it if it is wanted and does not run.

        Args:
            log_level: The host's own; what settle-mp has no name for is "error".
            user: Run as this user id and group id, instead of as the host.
            group: The same.

        Returns:
            Why it could not be started, for the host's log; "" when all is well. A host serves all the same.
        """
        if self._options is None or (self._supervised is not None and self._supervised.is_alive):
            return ""
        level = log_level.lower() if log_level.lower() in _LEVELS else "error"
        options = [*self._options, f"--log-level={level}"]
        try:
            self._supervised = Supervised(
                options, drain_timeout_s=self._drain_timeout_s, user=user, group=group
            )
        except (OSError, ValueError) as error:
            return f"the collector was not started, journals keep all events: {error}"
        return ""

    def reload(self) -> None:
        """Have it read its settings and key again, if it runs."""
        if self._supervised is not None:
            self._supervised.reload()

    def end(self) -> str:
        """End it, if it runs.

        Returns:
            What the host's log should say of it; "" when it ended in time.
        """
        if self._supervised is None or self._supervised.end():
            return ""
        return "the collector did not end in time; it goes on to its own end"


class Supervised:
    """A running `settle_mp.supervisor`. Only the process that made it holds it; in a fork it does nothing.

    Args:
        arguments: Options for the supervisor, such as `--state-dir`.
        drain_timeout_s: How long the collector may ship before it ends, in seconds.
        user: Run as this user id and group id, instead of as the host.
        group: The same.

    Raises:
        OSError: When no process can be started.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        drain_timeout_s: float = 0.0,
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        self._end_s = drain_timeout_s + END_S
        options = [f"--host-pid={os.getpid()}", f"--drain-timeout={drain_timeout_s}", *arguments]
        options += [f"--user={user}"] if user is not None else []
        options += [f"--group={group}"] if group is not None else []
        # Forked workers inherit the pipe's far end, on purpose; an exec closes it.
        lifeline, self._lifeline = os.pipe()
        try:
            #: The supervisor's process id.
            self.pid: int = _spawn([sys.executable, "-m", "settle_mp.supervisor", *options], stdin=lifeline)
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(lifeline)

    @property
    def is_alive(self) -> bool:
        """Whether it runs and is this process's child."""
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] == 0
        except ChildProcessError:
            return False

    def reload(self) -> None:
        """Have the collector read its settings and key again."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGHUP)

    def end(self) -> bool:
        """End the collector, then the supervisor. Returns whether both ended in time."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGTERM)
        deadline_s = time.monotonic() + self._end_s
        while self.is_alive:
            if time.monotonic() >= deadline_s:
                return False
            time.sleep(0.01)
        with contextlib.suppress(OSError):
            os.close(self._lifeline)
        return True


def _spawn(command: list[str], *, stdin: int) -> int:
    """Start a program in a process group of its own; a number is all that is left of it here.

    A Popen would be copied into workers, which then warn of it, and gevent's takes SIGCHLD from the host.
    """
    spawn = os.posix_spawn
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None:
        spawn = monkey.get_original("os", "posix_spawn")
    return spawn(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, stdin, 0)],
        # A terminal's Ctrl-C, or a kill of the host's group, must not end it before the workers.
        setpgroup=0,
        setsigmask=[],
        # Those that Python ignores, and an exec would leave ignored.
        setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
    )
