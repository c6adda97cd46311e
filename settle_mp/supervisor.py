"""The supervisor: a process that starts the collector, and again when it dies, and ends it last.

    host (gunicorn's arbiter) ──exec──▶ python -m settle_mp.supervisor ──exec──▶ settle-mp collector

It stands between the two because a host may reap children that it does not know and tell nobody (gunicorn
does). The host's hold on it is in `settle_mp.supervised`.

Its standard input is the lifeline: the closing of the other end says that nobody is left to collect for. The
host's forked workers inherit that end, so a host that is killed takes its collector along only after its
workers have handed over.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from settle_mp import config, statedir
from settle_mp.errors import SettingsError
from settle_mp.notices import notice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

log: Final = logging.getLogger("settle_mp")

#: The collector's exit codes that mean more than a death; a test holds them to those of the command line.
USAGE: Final = 2
ALREADY_RUNNING: Final = 75
CONFIG: Final = 78

#: By these a service talks to systemd; a child that said READY or STOPPING would speak for its host.
SYSTEMDS: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: The last descriptor that a program is given on purpose.
STDERR: Final = 2
#: The pause before the collector is started again, in seconds: doubled with each death, up to the second.
RESTART_S: Final = 0.25
RESTART_S_MAX: Final = 30.0
#: One that lived so long was well; its death begins the pauses anew. In seconds.
WELL_S: Final = 60.0
#: How often it is looked whether the host lives, or a collector that runs elsewhere still does, in seconds.
LOOK_S: Final = 1.0
#: How long the host's children may keep the lifeline after the host is gone, in seconds. gunicorn's workers
#: notice that they are orphans within half of their timeout (30 s).
ORPHANED_S: Final = 60.0
#: How long the collector may take to end, beside its drain timeout, in seconds; then it is killed. Its own
#: bound is 5.
END_S: Final = 10.0


class Supervisor:
    """Keeps one collector running until it is told to end, or the host is gone.

    Args:
        command: How the collector is started.
        is_elsewhere: Says whether another collector has the state folder.
        host_pid: The host's process, our parent, which holds the lifeline; None when there is none.
        end_s: How long the collector may take to end, in seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        is_elsewhere: Callable[[], bool],
        host_pid: int | None = None,
        end_s: float = END_S,
    ) -> None:
        self._command = command
        self._is_elsewhere = is_elsewhere
        self._host_pid = host_pid
        self._end_s = end_s
        self._child: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._start_at_s = 0.0
        self._pause_s = RESTART_S
        self._is_watching = False
        self._host_gone_s: float | None = None
        self._why_end = ""
        self._wake_in, self._wake_out = os.pipe()

    def run(self) -> None:
        """Supervise until SIGTERM, SIGINT, or the end of the host."""
        self._install_signals()
        poller = select.poll()
        poller.register(self._wake_in, select.POLLIN)
        if self._host_pid is not None:
            poller.register(sys.stdin.fileno(), select.POLLIN)
        while not self._why_end:
            self._look_after_child()
            self._look_after_host()
            for descriptor, _ in poller.poll(self._wait_s() * 1000):
                self._hear(descriptor)
        self._end()

    def _wait_s(self) -> float:
        is_due_s = self._start_at_s - time.monotonic() if self._child is None else LOOK_S
        return min(LOOK_S, max(0.0, is_due_s))

    # --- The collector ---

    def _look_after_child(self) -> None:
        now_s = time.monotonic()
        if self._child is not None:
            code = self._child.poll()
            if code is not None:
                self._child = None
                self._note_death(code, now_s - self._started_s)
        elif now_s >= self._start_at_s:
            self._start(now_s)

    def _start(self, now_s: float) -> None:
        if self._is_watching and self._is_elsewhere():
            self._start_at_s = now_s + LOOK_S
            return
        self._is_watching = False
        self._started_s = now_s
        try:
            self._child = subprocess.Popen(  # noqa: S603  our own program
                self._command,
                stdin=subprocess.DEVNULL,
                env=_environ(),
                preexec_fn=_die_with_parent(),  # noqa: PLW1509  this process has one thread
            )
        except OSError as error:
            self._back_off("collector_not_spawned", str(error))
            return
        log.info("collector_spawned", extra={"pid": self._child.pid})

    def _note_death(self, code: int, lived_s: float) -> None:
        if code == ALREADY_RUNNING:
            self._is_watching = True
            self._start_at_s = time.monotonic() + LOOK_S
            log.info("collector_runs_elsewhere", extra={"next": "this one takes over when that one ends"})
            return
        if lived_s >= WELL_S:
            self._pause_s = RESTART_S
        if code in {CONFIG, USAGE}:
            # The collector has named the setting; a file may be mended at any time, and SIGHUP looks at once.
            self._pause_s = RESTART_S_MAX
        self._back_off("collector_died", _how(code), lived_s=round(lived_s, 1))

    def _back_off(self, name: str, reason: str, **fields: object) -> None:
        log.warning(name, extra=notice(name, reason, starts_again_in_s=self._pause_s, **fields))
        self._start_at_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, RESTART_S_MAX)

    def _end(self) -> None:
        log.info("supervisor_stopping", extra={"reason": self._why_end})
        if self._child is not None:
            self._child.terminate()
            try:
                self._child.wait(self._end_s)
            except subprocess.TimeoutExpired:
                log.warning(
                    "collector_killed", extra=notice("collector_killed", f"no end within {self._end_s} s")
                )
                self._child.kill()
                self._child.wait()

    # --- The host ---

    def _look_after_host(self) -> None:
        if self._host_pid is None or os.getppid() == self._host_pid:
            return
        now_s = time.monotonic()
        if self._host_gone_s is None:
            self._host_gone_s = now_s
            log.info("host_gone", extra={"pid": self._host_pid, "next": "ends after the host's workers"})
        elif now_s - self._host_gone_s >= ORPHANED_S:
            self._why_end = f"the host is gone for {ORPHANED_S:.0f} s"

    # --- Signals and the lifeline ---

    def _install_signals(self) -> None:
        os.set_blocking(self._wake_in, False)
        os.set_blocking(self._wake_out, False)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, _note)

    def _hear(self, descriptor: int) -> None:
        if descriptor != self._wake_in:
            if not os.read(descriptor, 4096):
                self._why_end = "the host and its workers are gone"
            return
        with contextlib.suppress(BlockingIOError):
            for number in os.read(descriptor, 4096):
                self._obey(number)

    def _obey(self, number: int) -> None:
        if number in {signal.SIGTERM, signal.SIGINT}:
            self._why_end = signal.Signals(number).name
        elif number == signal.SIGHUP and self._child is not None:
            self._child.send_signal(signal.SIGHUP)
        elif number == signal.SIGHUP:
            self._start_at_s = 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a process of a host's; people are better served by `settle-mp collector`."""
    parser = argparse.ArgumentParser(prog="settle_mp.supervisor", description="Runs the collector.")
    parser.add_argument("--host-pid", type=int, help="the parent process; standard input is its lifeline")
    parser.add_argument("--user", type=int, help="the user id to run as")
    parser.add_argument("--group", type=int, help="the group id to run as")
    parser.add_argument("--state-dir")
    parser.add_argument("--config")
    parser.add_argument("--drain-timeout", type=float, default=0.0)
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])
    given = parser.parse_args(arguments)
    _close_inherited()
    if given.user is not None:
        _become(given.user, given.group)
    _configure_log(given.log_level)
    command = [sys.executable, "-m", "settle_mp.cli", f"--log-level={given.log_level}", "collector"]
    command += [f"--drain-timeout={given.drain_timeout}"]
    command += [f"--state-dir={given.state_dir}"] if given.state_dir else []
    command += [f"--config={given.config}"] if given.config else []

    def is_elsewhere() -> bool:
        try:
            settings = config.load(state_dir=given.state_dir, config_path=given.config)
            return statedir.is_locked(statedir.StateDir(settings.state_dir).collector_lock)
        except (SettingsError, OSError):
            return False  # the collector says it better

    end_s = given.drain_timeout + END_S
    Supervisor(command, is_elsewhere=is_elsewhere, host_pid=given.host_pid, end_s=end_s).run()


def _close_inherited() -> None:
    """Close the host's listeners and the like, which would keep its ports in use after its end."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208  names are wanted
        descriptor = int(name)
        if descriptor > STDERR:
            with contextlib.suppress(OSError):  # the listing's own is closed already
                os.close(descriptor)


def _become(user: int, group: int) -> None:
    """Go on as another user, with the groups that it has after a login."""
    import pwd

    try:
        os.initgroups(pwd.getpwuid(user).pw_name, group)
    except KeyError:  # a user without a name, as in some containers
        os.setgroups([group])
    os.setgid(group)
    os.setuid(user)


def _die_with_parent() -> Callable[[], None] | None:
    """What a child runs before exec so that SIGTERM comes when its parent dies, where the system has that."""
    if not sys.platform.startswith("linux"):
        return None
    set_option, parent = ctypes.CDLL(None).prctl, os.getpid()
    death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)

    def arrange() -> None:
        set_option(death_signal, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def _environ() -> dict[str, str]:
    """The collector's environment: what systemd says to the host is not for the host's child."""
    return {name: value for name, value in os.environ.items() if name not in SYSTEMDS}


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    known = {CONFIG: "a setting can't be used", USAGE: "its command line is wrong"}
    return known.get(code, f"exit code {code}")


def _note(number: int, frame: FrameType | None) -> None:
    """Do nothing: the wakeup descriptor has carried the signal's number to the loop already."""


class _Lines(logging.Formatter):
    """One line a record, like the collector's own."""

    def format(self, record: logging.LogRecord) -> str:
        known = logging.makeLogRecord({}).__dict__.keys() | {"message", "asctime"}
        fields = {name: value for name, value in record.__dict__.items() if name not in known}
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        words = [f"{at}.{int(record.msecs):03d}Z", record.levelname, record.getMessage()]
        return " ".join([*words, *(f"{name}={json.dumps(value)}" for name, value in fields.items())])


def _configure_log(level: str) -> None:
    # A program of its own, so this is the place; cli/ does the same for all the others.
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler])


if __name__ == "__main__":
    main()
