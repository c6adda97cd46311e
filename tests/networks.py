"""Two hosts on one machine: network namespaces with a cable between them. Linux, and as root.

    with two_networks() as far:                       # this thread, and what it starts, is on 10.77.0.1
        command = far.inside(["python", …])           # … and this on 10.77.0.2, which knows `collector.test`
        far.unplug(); far.plug()

All of it goes with its last process; nothing is changed in the network of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NEAR_ADDRESS: Final = "10.77.0.1"
FAR_ADDRESS: Final = "10.77.0.2"
#: By this name the far side knows the near one.
NEAR_NAME: Final = "collector.test"

_CLONE_NEWNET: Final = 0x40000000
_PROGRAMS: Final = ("ip", "unshare", "nsenter", "mount")


def skip_unless_permitted() -> None:
    """Skip the test where no namespaces can be made, and say why."""
    if not sys.platform.startswith("linux"):
        pytest.skip("network namespaces are Linux's")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)} (Debian: iproute2, util-linux, mount)")
    if os.geteuid() != 0:
        pytest.skip("making network namespaces takes root")
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"this system permits no namespaces: {tried.stderr.strip()}")


class Far:
    """The far side of the cable."""

    def __init__(self, holder: subprocess.Popen[bytes], hosts: Path) -> None:
        self._holder = holder
        self._hosts = hosts

    def inside(self, command: Sequence[str]) -> list[str]:
        """A command that runs there."""
        with_names = f'mount --bind {self._hosts} /etc/hosts && exec "$@"'
        enter = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "unshare", "--mount"]
        return [*enter, "sh", "-c", with_names, "sh", *command]

    def unplug(self) -> None:
        """Pull the cable: nobody is told."""
        _run("ip", "link", "set", "smp-near", "down")

    def plug(self) -> None:
        """Put it back."""
        _run("ip", "link", "set", "smp-near", "up")


@contextlib.contextmanager
def two_networks(folder: Path) -> Iterator[Far]:
    """Enter a network with this thread, and make another one that it reaches; `folder` is for files."""
    skip_unless_permitted()
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{NEAR_ADDRESS} {NEAR_NAME}\n")
    _check(libc.unshare(_CLONE_NEWNET))
    try:
        with subprocess.Popen(
            ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            # Once it says something, it is in its own network.
            holder.stdin.write(b"x")
            holder.stdin.flush()
            holder.stdout.read(1)
            _lay_cable(holder.pid)
            yield Far(holder, hosts)
            holder.stdin.close()
    finally:
        _check(libc.setns(home, _CLONE_NEWNET))
        os.close(home)


def _lay_cable(far_pid: int) -> None:
    inside = ("nsenter", f"--net=/proc/{far_pid}/ns/net")
    _run("ip", "link", "add", "smp-near", "type", "veth", "peer", "name", "smp-far", "netns", str(far_pid))
    for enter, device, address in (((), "smp-near", NEAR_ADDRESS), (inside, "smp-far", FAR_ADDRESS)):
        _run(*enter, "ip", "link", "set", "lo", "up")
        _run(*enter, "ip", "address", "add", f"{address}/24", "dev", device)
        _run(*enter, "ip", "link", "set", device, "up")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
