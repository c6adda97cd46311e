"""ZeroMQ in one place: socket options, CURVE, the safe bind, and the descriptor probe.

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
from pathlib import Path
from typing import TYPE_CHECKING, Final

import zmq

if TYPE_CHECKING:
    from settle_mp.keys import Curve

#: Bytes of a message at most. A frame is 128 KiB; libzmq's default has no bound.
MESSAGE_BYTES_MAX: Final = 1024 * 1024
#: How long a connected peer may stay silent before it is dropped, in ms; libzmq's default is 30 s.
HANDSHAKE_MS: Final = 2_000
#: Connections that wait to be accepted, of each socket. Whoever finds no room tries again by itself.
BACKLOG: Final = 24
#: Control messages that wait for a collector that is away. All are said again when it is back: those of a
#: whole night, of all workers at once, would only keep it busy.
CONTROL_QUEUE_MAX: Final = 8
#: Pauses between two tries to reach a collector that is away, in ms. libzmq's default tries ten times a
#: second for ever, in every idle worker.
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 4_000
#: When a tcp connection is taken for dead: nothing came for so long, then so many probes this far apart.
KEEPALIVE_IDLE_S: Final = 60
KEEPALIVE_INTERVAL_S: Final = 15
KEEPALIVE_COUNT: Final = 4
#: And when what was sent is not acknowledged by the other side's kernel for so long, in ms.
UNANSWERED_MS_MAX: Final = 30_000
#: Any name: with one set, libzmq refuses peers of protocol versions whose bytes pass as messages.
ZAP_DOMAIN: Final = b"settle-mp"
#: Descriptors that must be free before ZeroMQ is started: it aborts the process when it can't open one.
PROBE_DESCRIPTORS: Final = 16


class AddressError(ValueError):
    """An address that can't be used. The message says why, and what to do."""


class InUseError(AddressError):
    """Somebody listens on the address."""


def push_socket(
    context: zmq.Context[zmq.Socket[bytes]], address: str, curve: Curve | None = None
) -> zmq.Socket[bytes]:
    """A courier's socket for frames. Its queue has no bound of its own: the credit window bounds it."""
    socket = context.socket(zmq.PUSH)
    socket.setsockopt(zmq.SNDHWM, 0)
    return _connected(socket, address, curve)


def dealer_socket(
    context: zmq.Context[zmq.Socket[bytes]], address: str, identity: bytes, curve: Curve | None = None
) -> zmq.Socket[bytes]:
    """A worker's or command's socket for control messages, known to the collector by `identity`."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.SNDHWM, CONTROL_QUEUE_MAX)
    return _connected(socket, address, curve)


def pull_socket(context: zmq.Context[zmq.Socket[bytes]], curve: Curve | None = None) -> zmq.Socket[bytes]:
    """The collector's socket for frames.

    No bound on the queue: with one, heartbeats disconnect a busy collector's peers and reorder what is
    left. Each courier's credit window bounds what it may have in flight.
    """
    socket = context.socket(zmq.PULL)
    socket.setsockopt(zmq.RCVHWM, 0)
    return _guarded(socket, curve)


def router_socket(context: zmq.Context[zmq.Socket[bytes]], curve: Curve | None = None) -> zmq.Socket[bytes]:
    """The collector's socket for control messages."""
    socket = context.socket(zmq.ROUTER)
    # A courier that reconnects before its old connection is known dead takes its name over.
    socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return _guarded(socket, curve)


def _connected(socket: zmq.Socket[bytes], address: str, curve: Curve | None) -> zmq.Socket[bytes]:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    # With a maximum the pause doubles and has no jitter of its own, so the bounds differ by process.
    jitter = random.uniform(0.75, 1.25)  # noqa: S311  no secret
    socket.setsockopt(zmq.RECONNECT_IVL, int(RECONNECT_MS * jitter))
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, int(RECONNECT_MS_MAX * jitter))
    if curve is not None:
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.collector.encode())
    _secure(socket, curve)
    _notice_death(socket)
    _allow_ipv6(socket, address)
    socket.connect(address)
    return socket


def _allow_ipv6(socket: zmq.Socket[bytes], address: str) -> None:
    if "[" in address:
        socket.setsockopt(zmq.IPV6, 1)


def _secure(socket: zmq.Socket[bytes], curve: Curve | None) -> None:
    if curve is not None:
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret.reveal().encode())


def _notice_death(socket: zmq.Socket[bytes]) -> None:
    """Have the kernel end a tcp connection whose other side is gone without a word (a host, a NAT's memory).

    Its own times are hours when nothing is sent, and a quarter of an hour when something is.
    """
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    socket.setsockopt(zmq.TCP_MAXRT, UNANSWERED_MS_MAX)


def _guarded(socket: zmq.Socket[bytes], curve: Curve | None) -> zmq.Socket[bytes]:
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    if curve is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
    _secure(socket, curve)
    _notice_death(socket)
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
        socket.bind(_own_address(address))
        if path is not None:
            _share(path)
    except (zmq.ZMQError, OSError) as error:
        msg = f"can't listen on {address}: {error}"
        raise AddressError(msg) from None


def _own_address(address: str) -> str:
    """A host's name resolved: where it listens, libzmq takes one for a network interface.

    Raises:
        OSError: When it can't be resolved.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not address.startswith("tcp://") or host == "*" or _is_ip(host):
        return address
    found = plain_socket.getaddrinfo(host, None, plain_socket.AF_INET, plain_socket.SOCK_STREAM)
    return f"tcp://{found[0][4][0]}:{port}"


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


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
