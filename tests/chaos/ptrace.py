"""A tracer: stops a process at its system calls, so that it can be killed exactly there, or the call fails.

Why ptrace through ctypes: it stops before a call is made and after it was made (a watcher of files only sees
that something happened, some time ago), it needs nothing but Linux 5.3 and the right to trace one's own
children, and nothing is put into the product. `strace -e inject` can kill at the Nth call of a kind, but not
at "the commit of a seal", and comes from a distribution's package; a preloaded shim needs a compiler.

A thread that is killed where it stops before a call does not make that call (Linux,
ptrace_report_syscall_entry), so "before" and "after" are what they say. A call fails without having been made
when its number becomes one that there is none of, and then its result the error (ptrace(2), "Syscall-stops").

The calls of `Tracer` belong to the process that is the traced one's parent, and to one thread of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import signal
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Threads = Literal["all", "first", "zmq", "others", "python"]

_SEIZE: Final = 0x4206
_INTERRUPT: Final = 0x4207
_LISTEN: Final = 0x4208
_GET_SYSCALL_INFO: Final = 0x420E
_SYSCALL: Final = 24
_POKE_USER: Final = 6
_DETACH: Final = 17
_OPTIONS: Final = 0x1 | 0x100000  # TRACESYSGOOD, EXITKILL
_CLONE: Final = 0x8
_SYSCALL_STOP: Final = signal.SIGTRAP | 0x80
_EVENT_STOP: Final = 128
_WALL: Final = 0x40000000
_INFO: Final = struct.Struct("<B3xIQQ7Q")
_EXIT_INFO: Final = struct.Struct("<B3xIQQqB")
#: Where a stopped thread's registers are, on the one kind of machine where calls can be made to fail: the
#: number of the call, and its result (sys/user.h, `user_regs_struct`).
_FAILS_ON: Final = "x86_64"
_NUMBER_AT: Final = 15 * 8
_RESULT_AT: Final = 10 * 8

#: The calls that mark a point, by their numbers on the machine.
NUMBERS: Final = {
    "x86_64": {
        0: "read", 17: "pread64", 18: "pwrite64", 44: "sendto", 45: "recvfrom",
        73: "flock", 74: "fsync", 75: "fdatasync", 82: "rename", 87: "unlink", 263: "unlinkat",
        264: "renameat", 316: "renameat",
    },
    "aarch64": {
        32: "flock", 35: "unlinkat", 38: "renameat", 63: "read", 67: "pread64",
        68: "pwrite64", 82: "fsync", 83: "fdatasync", 206: "sendto", 207: "recvfrom",
        276: "renameat",
    },
}  # fmt: skip


def is_possible() -> bool:
    """Whether processes can be traced here."""
    return platform.system() == "Linux" and platform.machine() in NUMBERS and _can_trace_a_child()


def can_fail_calls() -> bool:
    """Whether calls of traced processes can be made to fail here."""
    return is_possible() and platform.machine() == _FAILS_ON


@dataclass(slots=True)
class Call:
    """A system call of a traced thread, before it is made (`result` is None) or after.

    Attributes:
        thread: The thread's id; the process's own for its first thread.
        name: As in `NUMBERS`.
        arguments: The six registers.
        result: What it returned; negative for an error.
    """

    process: int
    thread: int
    name: str
    arguments: tuple[int, ...]
    result: int | None

    @property
    def is_before(self) -> bool:
        """Whether it has not been made yet."""
        return self.result is None

    @property
    def is_made(self) -> bool:
        """Whether it was made and did not fail."""
        return self.result is not None and self.result >= 0

    @property
    def file(self) -> str:
        """What the descriptor in the first argument leads to."""
        try:
            return str(Path(f"/proc/{self.process}/fd/{self.arguments[0]}").readlink())
        except OSError:
            return ""

    @property
    def path(self) -> str:
        """The path that the call names first; relative ones as they are."""
        at = self.arguments[1] if self.name in {"renameat", "unlinkat"} else self.arguments[0]
        return self.memory(at, 4096).partition(b"\0")[0].decode(errors="replace")

    @property
    def data(self) -> bytes:
        """What a call sends or writes, or has read or received."""
        size = self.arguments[2] if self.result is None else max(0, min(self.result, self.arguments[2]))
        return self.memory(self.arguments[1], min(size, 1 << 20))

    def memory(self, address: int, size: int) -> bytes:
        """Bytes of the process's memory; fewer where it has no more."""
        try:
            with Path(f"/proc/{self.process}/mem").open("rb", buffering=0) as memory:
                memory.seek(address)
                return memory.read(size)
        except (OSError, ValueError):
            return b""


class Tracer:
    """Runs one process from system call to system call until something says stop.

    Args:
        pid: A child of this process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._calls: dict[int, tuple[str, tuple[int, ...]]] = {}
        self._errors: dict[int, int] = {}
        self._names = NUMBERS[platform.machine()]
        self._buffer = ctypes.create_string_buffer(_INFO.size)
        #: Threads and other children that ended meanwhile, with their statuses.
        self.ended: dict[int, int] = {}

    def attach(self, threads: Threads = "all") -> None:
        """Trace threads of a kind: each stop costs two changes of process, on a busy machine a lot of time.

        Args:
            threads: "first" is the process's first one, "zmq" those of ZeroMQ that move bytes, "others" the
                rest; there must be one, or it is waited for. "python" are the first and the rest, "all" those
                that it has and those that it will start.
        """
        options = _OPTIONS | (_CLONE if threads == "all" else 0)
        seized: set[int] = set()
        while True:
            tasks = {int(name) for name in os.listdir(f"/proc/{self._pid}/task")} - seized  # noqa: PTH208
            chosen = [thread for thread in tasks if self._is_of(thread, threads)]
            if not chosen and seized:
                return
            for thread in chosen:
                seized.add(thread)
                # One that has just been started by a traced one is traced already.
                if _ptrace(_SEIZE, thread, options) == 0:
                    hurry(thread)
                    _ptrace(_INTERRUPT, thread, 0)
            if not seized:
                time.sleep(0.002)

    def _is_of(self, thread: int, threads: Threads) -> bool:
        if threads == "all" or thread == self._pid:
            return threads in {"all", "first", "python"}
        try:
            name = Path(f"/proc/{self._pid}/task/{thread}/comm").read_text()
        except OSError:
            return False
        is_zmq = name.startswith("ZMQ")
        return "IO" in name if is_zmq and threads == "zmq" else not is_zmq and threads in {"others", "python"}

    def run(self, is_there: Callable[[Call], bool]) -> bool:
        """Run until a call is where it should be, which stays stopped; false when the process ends before."""
        while True:
            thread, status = os.waitpid(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self._calls.pop(thread, None)
                self.ended[thread] = status
                if thread == self._pid:
                    return False
                continue
            number = os.WSTOPSIG(status)
            if number == _SYSCALL_STOP:
                call = self._call(thread)
                if call is not None and is_there(call):
                    return True
                number = 0
            elif status >> 16 == _EVENT_STOP:
                if number not in {signal.SIGTRAP, 0}:
                    # Stopped by SIGSTOP and its like: it stays so until SIGCONT.
                    _ptrace(_LISTEN, thread, 0)
                    continue
                number = 0
            elif status >> 16:
                number = 0  # it has started a thread
            _ptrace(_SYSCALL, thread, number)

    def fail(self, error_of: Callable[[Call], int], count: int) -> bool:
        """Have calls fail, each without being made; the thread of the last stays stopped right after it.

        Args:
            error_of: Called with every call before and after it is made; says before with which error it is
                to fail, 0 for none.
            count: How many.

        Returns:
            Whether so many failed; else the process has ended before.
        """
        failed: list[Call] = []

        def is_enough(call: Call) -> bool:
            error = error_of(call)
            if call.is_before and error:
                self._errors[call.thread] = error
                _poke(call.thread, _NUMBER_AT, -1)
            elif error := self._errors.pop(call.thread, 0):
                _poke(call.thread, _RESULT_AT, -error)
                failed.append(call)
            return len(failed) == count

        return self.run(is_enough)

    def let_go(self) -> None:
        """Let the process run on, untraced; its first thread must be stopped, and the only one traced."""
        _ptrace(_DETACH, self._pid, 0)

    def kill(self) -> None:
        """SIGKILL, and wait for the end, unless it has ended."""
        if self._pid in self.ended:
            return
        os.kill(self._pid, signal.SIGKILL)
        while self._pid not in self.ended:
            pid, status = os.waitpid(-1, _WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self.ended[pid] = status

    def _call(self, thread: int) -> Call | None:
        size = _ptrace(_GET_SYSCALL_INFO, thread, ctypes.addressof(self._buffer), _INFO.size)
        if size <= 0:
            return None
        if self._buffer.raw[0] == 1:
            number, *arguments = _INFO.unpack(self._buffer.raw)[4:]
            name = self._names.get(number)
            if name is None:
                self._calls.pop(thread, None)
                return None
            self._calls[thread] = (name, tuple(arguments))
            return Call(self._pid, thread, name, tuple(arguments), None)
        known = self._calls.pop(thread, None)
        if known is None:
            return None
        result = _EXIT_INFO.unpack_from(self._buffer.raw)[4]
        return Call(self._pid, thread, known[0], known[1], result)


def hurry(thread: int) -> None:
    """Let a thread run before all others, where that is allowed.

    At each stop the traced one and its tracer wait for a turn of the processor, one after the other. On a
    busy machine that is some milliseconds each, and a hundred calls a second would be left.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, thread, -20)


def _poke(thread: int, register_at: int, value: int) -> None:
    _ptrace(_POKE_USER, thread, value & (2**64 - 1), register_at)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return libc


_LIBC: Final = _libc() if platform.system() == "Linux" else None


def _ptrace(request: int, thread: int, data: int, address: int = 0) -> int:
    assert _LIBC is not None
    return int(_LIBC.ptrace(request, thread, address or None, data or None))


@functools.cache
def _can_trace_a_child() -> bool:
    """Containers and kernels may forbid it."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        is_traced = _ptrace(_SEIZE, child.pid, _OPTIONS) == 0
        child.kill()
    return is_traced
