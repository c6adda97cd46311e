"""ZeroMQ in one place: addresses, socket options, the safe bind, and the descriptor probe.

Each option that differs from libzmq's default is there because the default lost data or let strangers in.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import resource
import socket as plain_socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from settle_mp.statedir import StateDir

#: Bytes of a message at most. A frame is 128 KiB; libzmq's default has no bound.
MESSAGE_BYTES_MAX: Final = 1024 * 1024
#: How long a connected peer may stay silent before it is dropped, in ms; libzmq's default is 30 s.
HANDSHAKE_MS: Final = 2_000
#: Control messages that wait for a collector that is away. All are said again when it is back: those of a
#: whole night, of all workers at once, would only keep it busy.
CONTROL_QUEUE_MAX: Final = 8
#: Pauses between two tries to reach a collector that is away, in ms. libzmq's default tries ten times a
#: second for ever, in every idle worker.
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 4_000
#: Any name: with one set, libzmq refuses peers of protocol versions whose bytes pass as messages.
ZAP_DOMAIN: Final = b"settle-mp"
#: The bound of `sun_path`, less its closing zero (unix(7) on Linux; macOS has 103).
SOCKET_PATH_BYTES_MAX: Final = 107 if os.uname().sysname == "Linux" else 103
#: The highest port; control messages take the one above that of the frames.
PORT_MAX: Final = 65535
#: Descriptors that must be free before ZeroMQ is started: it aborts the process when it can't open one.
PROBE_DESCRIPTORS: Final = 16


class AddressError(ValueError):
    """An address that can't be used. The message says why, and what to do."""


class InUseError(AddressError):
    """Somebody listens on the address."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The two addresses of a collector."""

    frames: str
    control: str

    @property
    def is_local(self) -> bool:
        """Whether worker and collector see the same files."""
        return self.frames.startswith("ipc://")


def endpoints(state: StateDir, endpoint: str | None) -> Endpoints:
    """The addresses for an `endpoint` setting; None means sockets in the state folder.

    Raises:
        AddressError: When the address can't be used.
    """
    if endpoint is None:
        return Endpoints(_ipc(state.frames_socket), _ipc(state.control_socket))
    if endpoint.startswith("ipc://"):
        path = endpoint.removeprefix("ipc://")
        return Endpoints(_ipc(Path(path)), _ipc(Path(path + ".control")))
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) < PORT_MAX
    if not endpoint.startswith("tcp://") or not is_port:
        msg = f"endpoint must be ipc://PATH or tcp://HOST:PORT with a port below {PORT_MAX}, not {endpoint!r}"
        raise AddressError(msg)
    if host == "localhost":
        host = "127.0.0.1"  # libzmq takes a name for a network interface where it listens
    if not _is_loopback(host):
        msg = f"endpoint {endpoint!r} is not on loopback; that needs CURVE keys, which this version has not"
        raise AddressError(msg)
    return Endpoints(f"tcp://{host}:{port}", f"tcp://{host}:{int(port) + 1}")


def _ipc(path: Path) -> str:
    bytes_count = len(os.fsencode(path))
    if bytes_count > SOCKET_PATH_BYTES_MAX:
        msg = (
            f"the socket path {path} has {bytes_count} bytes; the system allows {SOCKET_PATH_BYTES_MAX}. "
            "Choose a shorter state_dir, or set endpoint to ipc:// with a short path"
        )
        raise AddressError(msg)
    return f"ipc://{path}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def push_socket(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    """A courier's socket for frames. Its queue has no bound of its own: the credit window bounds it."""
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 0)
    return _connected(socket, address)


def dealer_socket(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes
) -> zmq.Socket[bytes]:
    """A worker's or command's socket for control messages, known to the collector by `identity`."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE_MAX)
    return _connected(socket, address)


def pull_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The collector's socket for frames.

    No bound on the queue: with one, heartbeats disconnect a busy collector's peers and reorder what is
    left. Each courier's credit window bounds what it may have in flight.
    """
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 0)
    return _guarded(socket)


def router_socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """The collector's socket for control messages."""
    socket = context.socket(zmq.ROUTER)
    # A courier that reconnects before its old connection is known dead takes its name over.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return _guarded(socket)


def _connected(socket: zmq.Socket[bytes], address: str) -> zmq.Socket[bytes]:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    # With a maximum the pause doubles and has no jitter of its own, so the bounds differ by process.
    jitter = random.uniform(0.75, 1.25)  # noqa: S311  no secret
    socket.setsockopt(zmq.RECONNECT_IVL, int(RECONNECT_MS * jitter))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(RECONNECT_MS_MAX * jitter))
    if address.startswith("tcp://"):
        socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    _allow_ipv6(socket, address)
    socket.connect(address)
    return socket


def _allow_ipv6(socket: zmq.Socket[bytes], address: str) -> None:
    if "[" in address:
        socket.setsockopt(zmq.IPV6, 1)


def _guarded(socket: zmq.Socket[bytes]) -> zmq.Socket[bytes]:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    return socket


def bind(socket: zmq.Socket[bytes], address: str) -> None:
    """Bind, and never take a path from a live listener or a file that is none of ours.

    libzmq deletes whatever stands at an ipc path, a live collector's socket and regular files alike.

    Raises:
        AddressError: When it is in use, or what stands there is not a socket.
    """
    refuse_taken(address)
    path = Path(address.removeprefix("ipc://")) if address.startswith("ipc://") else None
    if path is not None:
        path.unlink(missing_ok=True)
    _allow_ipv6(socket, address)
    try:
        socket.bind(address)
        if path is not None:
            _share(path)
    except (zmq.ZMQError, OSError) as error:
        msg = f"can't listen on {address}: {error}"
        raise AddressError(msg) from None


def _share(path: Path) -> None:
    """Give the group the right to connect where it has the folder; the umask commonly takes it."""
    folder_mode = stat.S_IMODE(path.parent.stat().st_mode)
    is_groups = folder_mode & stat.S_IRWXG == stat.S_IRWXG and not folder_mode & stat.S_IRWXO
    path.chmod(0o660 if is_groups else 0o600)


def refuse_taken(address: str) -> None:
    """Make sure that nobody listens on an ipc address, and that nothing else stands at its path.

    Raises:
        InUseError: Somebody listens there.
        AddressError: There is a file that is no socket.
    """
    if not address.startswith("ipc://"):
        return
    path = Path(address.removeprefix("ipc://"))
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        msg = f"{path} is not a socket and is left alone; move it away to listen there"
        raise AddressError(msg)
    if is_listening(path):
        msg = f"another process listens on {path}"
        raise InUseError(msg)


def remove_unused(address: str) -> None:
    """Remove the socket of an ipc address once nobody listens there: libzmq leaves it behind."""
    with contextlib.suppress(AddressError, OSError):
        refuse_taken(address)
        if address.startswith("ipc://"):
            Path(address.removeprefix("ipc://")).unlink()


def is_listening(path: Path) -> bool:
    """Whether a process accepts connections on a unix socket."""
    with plain_socket.socket(plain_socket.AF_UNIX, plain_socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            # Too busy to answer (EAGAIN, a timeout), or not ours to ask (EACCES): somebody is there.
            return True
    return True


def has_free_descriptors() -> bool:
    """Whether ZeroMQ can be started: it aborts the process when descriptors run out."""
    opened: list[int] = []
    try:
        opened.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(PROBE_DESCRIPTORS))
    except OSError:
        return False
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files as far as the hard limit allows, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # macOS refuses what is above its own maximum
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    return soft
