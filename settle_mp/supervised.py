"""A host's hold on its supervisor: start it, look whether it lives, end it.

Made for hosts that fork, reap every child they find, and have signal handlers of their own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How long the supervisor may take to end, beside the collector's drain timeout, in seconds: it kills a
#: collector that takes more than 10.
END_S: Final = 12.0


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
        process = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, "-m", "settle_mp.supervisor", *options],
            stdin=subprocess.PIPE,
            # A terminal's Ctrl-C, or a kill of the host's process group, must not end it before the workers.
            start_new_session=True,
            user=user,
            group=group,
            extra_groups=None if user is None or group is None else _groups(user, group),
        )
        #: The supervisor's process id.
        self.pid = process.pid
        # Forked workers inherit this end of the pipe, on purpose; it is closed on exec.
        self._lifeline = os.dup(process.stdin.fileno()) if process.stdin else -1
        with process:
            # The host reaps whoever ends, so waiting is done by number; left unset, workers would warn of it.
            process.returncode = 0

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


def _groups(user: int, group: int) -> list[int]:
    """The groups that a user is in, as after a login."""
    import pwd

    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:  # a user without a name, as in some containers
        return [group]
