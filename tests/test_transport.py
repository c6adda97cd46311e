"""The sockets: addresses, a bind that takes nothing from anybody, and strangers' bytes that never arrive."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from settle_mp import endpoints, transport
from settle_mp.core.kinds import SOCKET_PATH_BYTES_MAX
from settle_mp.statedir import StateDir
from settle_mp.transport import AddressError, InUseError
from tests.sockets import KeepingContext
from tests.worker import children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Context = zmq.Context[zmq.Socket[bytes]]
    Socket = zmq.Socket[bytes]

#: Seconds that a test waits for what must come.
DEADLINE_S = 20.0


@pytest.fixture
def context() -> Iterator[Context]:
    """Make a context, and destroy it with all its sockets."""
    context = KeepingContext()
    yield context
    context.destroy(linger=0)
    KeepingContext.kept.clear()


@pytest.fixture
def address(state_dir: Path) -> str:
    """Name a socket in the state folder."""
    return f"ipc://{state_dir}/frames"


def path_of(address: str) -> Path:
    """Find the file of an address."""
    return Path(address.removeprefix("ipc://"))


def receive(socket: Socket) -> bytes:
    """Wait for a message."""
    assert socket.poll(int(DEADLINE_S * 1000)), "nothing came"
    return socket.recv()


# Addresses.


def test_sockets_are_in_the_state_folder_unless_said_otherwise(state_dir: Path) -> None:
    """One setting names both: control is beside the frames, or one port above."""
    state = StateDir(state_dir)
    own = endpoints.parse(state, None)
    assert (own.frames, own.control) == (f"ipc://{state_dir}/frames", f"ipc://{state_dir}/control")
    named = endpoints.parse(state, "ipc:///run/smp")
    assert (named.frames, named.control) == ("ipc:///run/smp", "ipc:///run/smp.control")
    tcp = endpoints.parse(state, "tcp://127.0.0.1:4000")
    assert (tcp.frames, tcp.control) == ("tcp://127.0.0.1:4000", "tcp://127.0.0.1:4001")
    assert [each.is_tcp for each in (own, named, tcp)] == [False, False, True]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.8.8", "[::1]"])
def test_loopback_is_listened_on(host: str, context: Context) -> None:
    """Each way to write loopback is one that both ends can use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        addresses = endpoints.parse(StateDir(Path("/")), f"tcp://{host}:{port}")
        pull = transport.pull_socket(context)
        transport.bind(pull, addresses.frames)
    except AddressError as error:
        if host == "[::1]":
            pytest.skip(f"no IPv6 here: {error}")
        raise
    transport.push_socket(context, addresses.frames).send(b"hello")
    assert receive(pull) == b"hello"


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",  # noqa: S104  refused, which is the point
        "*",
        "192.168.1.5",
        "10.0.0.1",
        "example.com",
        "localhost.example.com",
        "127.0.0.1.example.com",
        "[::]",
        "[fe80::1]",
        "eth0",
        "",
    ],
)
def test_tcp_beyond_loopback_is_refused(host: str) -> None:
    """Without keys anybody on the network could bill or read; the error says what is missing."""
    with pytest.raises(AddressError, match="not on loopback; that needs CURVE keys"):
        endpoints.parse(StateDir(Path("/")), f"tcp://{host}:4000")


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:",
        "tcp://127.0.0.1:0",
        "tcp://127.0.0.1:-1",
        "tcp://127.0.0.1:65535",  # control would be at 65536
        "tcp://127.0.0.1:40x0",
        "tcp://127.0.0.1:²",
        "tcp://127.0.0.1:*",
        "udp://127.0.0.1:4000",
        "inproc://frames",
        "127.0.0.1:4000",
        "",
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    """The error quotes it and says what is allowed."""
    with pytest.raises(AddressError, match=r"ipc://PATH or tcp://HOST:PORT") as caught:
        endpoints.parse(StateDir(Path("/")), endpoint)
    assert repr(endpoint) in str(caught.value)


def test_a_socket_path_that_is_too_long_is_refused(context: Context, state_dir: Path) -> None:
    """The system's bound is 107 bytes, in bytes and not characters; one less works in earnest."""
    room = SOCKET_PATH_BYTES_MAX - len(os.fsencode(state_dir)) - len("/") - len("/control")
    longest = state_dir / ("ü" * (room // 2) + "x" * (room % 2))
    longest.mkdir()
    addresses = endpoints.parse(StateDir(longest), None)
    assert len(os.fsencode(path_of(addresses.control))) == SOCKET_PATH_BYTES_MAX
    transport.bind(transport.router_socket(context), addresses.control)
    with pytest.raises(AddressError, match=r"the system allows 10[37]"):
        endpoints.parse(StateDir(longest.with_name(longest.name + "x")), None)


# Bind.


def test_a_live_listener_keeps_its_path(context: Context, address: str) -> None:
    """Rule L5: libzmq would steal it without a word; here the second is refused and the first hears on."""
    first, second = transport.pull_socket(context), transport.pull_socket(context)
    transport.bind(first, address)
    for _ in range(2):
        with pytest.raises(InUseError, match="another process listens on"):
            transport.bind(second, address)
    transport.push_socket(context, address).send(b"still yours")
    assert receive(first) == b"still yours"


def test_a_busy_listener_keeps_its_path(context: Context, address: str) -> None:
    """Rule L5: one whose backlog is full can't answer the probe, and lives all the same."""
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as clients:
        busy.bind(os.fspath(path_of(address)))
        busy.listen(0)
        for _ in range(2):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                client.connect(os.fspath(path_of(address)))
        with pytest.raises(InUseError):
            transport.bind(transport.pull_socket(context), address)


def test_a_file_that_is_no_socket_is_left_alone(context: Context, address: str) -> None:
    """ZeroMQ would delete it; here the error says to move it away."""
    path = path_of(address)
    path.write_text("somebody's")
    with pytest.raises(AddressError, match="not a socket and is left alone"):
        transport.bind(transport.pull_socket(context), address)
    assert path.read_text() == "somebody's"


@pytest.mark.parametrize("kind", ["folder", "link", "dangling link", "pipe"])
def test_other_things_are_left_alone_too(context: Context, address: str, kind: str) -> None:
    """A link is not followed: what stands behind it is somebody's."""
    path = path_of(address)
    target = path.with_name("target")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
        if kind == "link":
            target.touch()
    before = path.lstat()
    with pytest.raises(AddressError, match="not a socket"):
        transport.bind(transport.pull_socket(context), address)
    assert path.lstat().st_ino == before.st_ino


def test_a_dead_collectors_socket_is_replaced(context: Context, address: str) -> None:
    """SIGKILL leaves the file; the next collector listens in its place."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path_of(address)))
        dead.listen()
    assert not transport.is_listening(path_of(address))
    pull = transport.pull_socket(context)
    transport.bind(pull, address)
    transport.push_socket(context, address).send(b"hello")
    assert receive(pull) == b"hello"


def test_an_address_that_cannot_be_had_says_why(context: Context, address: str) -> None:
    """One error class for all of them, with the address in it: no folder, or a port in use."""
    missing = address + "/frames"
    with pytest.raises(AddressError, match="can't listen on ipc://"):
        transport.bind(transport.pull_socket(context), missing)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"can't listen on tcp://127.0.0.1:{port}"):
            transport.bind(transport.pull_socket(context), f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize(("folder", "wanted"), [(0o700, 0o600), (0o2770, 0o660), (0o777, 0o600)])
@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_a_socket_is_open_to_whom_the_folder_is(
    context: Context, address: str, folder: int, wanted: int, umask: int
) -> None:
    """The user alone, or the group that has the folder as well; never all others."""
    path_of(address).parent.chmod(folder)
    before = os.umask(umask)
    try:
        transport.bind(transport.pull_socket(context), address)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path_of(address).stat().st_mode) == wanted


# Strangers' bytes.


@pytest.mark.parametrize("make", [transport.pull_socket, transport.router_socket])
def test_sockets_that_listen_are_guarded(context: Context, make: Callable[[Context], Socket]) -> None:
    """ZeroMQ's defaults let raw bytes pass as messages, of any size, and silent peers stay for long."""
    guarded = make(context)
    assert guarded.getsockopt(zmq.ZAP_DOMAIN) == transport.ZAP_DOMAIN
    assert guarded.getsockopt(zmq.MAXMSGSIZE) == 1024 * 1024
    assert guarded.getsockopt(zmq.HANDSHAKE_IVL) == 2000
    assert guarded.getsockopt(zmq.LINGER) == 0


GARBAGE = {
    "an old protocol's message": b"\x01\x00" + b"\x06\x00hello" * 20,
    "a web browser": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "a greeting cut short": b"\xff\0\0\0\0\0\0\0\1\x7f\3\0NULL",
    "a message without a greeting": b"\0" + b"\x05hello" * 200,
}


@pytest.mark.parametrize("make", [transport.pull_socket, transport.router_socket])
def test_garbage_is_never_a_message(
    context: Context, address: str, make: Callable[[Context], Socket]
) -> None:
    """Whatever a stranger writes on the socket, it is hung up on, and nothing of it arrives."""
    guarded = make(context)
    transport.bind(guarded, address)
    with contextlib.ExitStack() as stack:
        strangers = {}
        for kind, garbage in GARBAGE.items():
            stranger = stack.enter_context(socket.socket(socket.AF_UNIX))
            stranger.connect(os.fspath(path_of(address)))
            stranger.settimeout(DEADLINE_S)
            strangers[kind] = stranger
            with contextlib.suppress(BrokenPipeError):
                stranger.sendall(garbage)
        for stranger in strangers.values():
            read_to_end(stranger)
    assert not guarded.poll(0)
    good = (
        transport.push_socket(context, address)
        if make is transport.pull_socket
        else transport.dealer_socket(context, address, b"me")
    )
    good.send(b"good")
    assert guarded.poll(int(DEADLINE_S * 1000))
    assert guarded.recv_multipart()[-1] == b"good"


def read_to_end(stranger: socket.socket) -> None:
    """Wait until the other side hangs up."""
    with contextlib.suppress(ConnectionResetError):
        while stranger.recv(4096):
            pass


@pytest.mark.parametrize("make", [transport.pull_socket, transport.router_socket])
def test_a_message_that_is_too_large_is_never_received(
    context: Context, address: str, make: Callable[[Context], Socket]
) -> None:
    """1 MiB is; 2 MiB hang up on the sender, and others go on."""
    guarded = make(context)
    transport.bind(guarded, address)
    giant = context.socket(zmq.PUSH if make is transport.pull_socket else zmq.DEALER)
    giant.setsockopt(zmq.LINGER, 0)
    monitor = giant.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    giant.connect(address)
    giant.send(bytes(1024 * 1024))
    assert guarded.poll(int(DEADLINE_S * 1000))
    assert len(guarded.recv_multipart()[-1]) == 1024 * 1024
    giant.send(bytes(2 * 1024 * 1024))
    assert monitor.poll(int(DEADLINE_S * 1000)), "nobody hung up"
    assert recv_monitor_message(monitor)["event"] == zmq.EVENT_DISCONNECTED
    giant.disable_monitor()
    giant.send(b"small")
    assert guarded.poll(int(DEADLINE_S * 1000))
    assert guarded.recv_multipart()[-1] == b"small"


# Workers' ends.


def test_what_a_worker_waits_with_is_bounded(context: Context, address: str) -> None:
    """Without a collector, hellos of a whole night must not wait for it; frames are bounded by the credit."""
    dealer = transport.dealer_socket(context, address, b"me")
    for _ in range(transport.CONTROL_QUEUE_MAX):
        dealer.send(b"hello", zmq.NOBLOCK)
    with pytest.raises(zmq.Again):
        dealer.send(b"hello", zmq.NOBLOCK)
    push = transport.push_socket(context, address)
    for _ in range(5000):
        push.send(b"frame", zmq.NOBLOCK)


def test_ends_that_connect_give_up_nothing_and_wait_for_nobody(context: Context, address: str) -> None:
    """A queue survives a reconnect, closing never hangs, and the tries for an absent collector grow apart."""
    for each in (
        transport.push_socket(context, address),
        transport.dealer_socket(context, address, b"me"),
    ):
        assert each.getsockopt(zmq.LINGER) == 0
        assert each.getsockopt(zmq.IMMEDIATE) == 0
        assert each.getsockopt(zmq.MAXMSGSIZE) == 1024 * 1024
        pause_ms, pause_ms_max = each.getsockopt(zmq.RECONNECT_IVL), each.getsockopt(zmq.RECONNECT_IVL_MAX)
        assert isinstance(pause_ms, int)
        assert isinstance(pause_ms_max, int)
        assert 75 <= pause_ms <= 125
        assert 3000 <= pause_ms_max <= 5000


def test_a_courier_takes_its_name_over(context: Context, address: str) -> None:
    """One that comes back before its old connection is known dead is the one that is answered."""
    router = transport.router_socket(context)
    transport.bind(router, address)
    old = transport.dealer_socket(context, address, b"me")
    old.send(b"1")
    assert router.poll(int(DEADLINE_S * 1000))
    assert router.recv_multipart() == [b"me", b"1"]
    new = transport.dealer_socket(context, address, b"me")
    new.send(b"2")
    assert router.poll(int(DEADLINE_S * 1000))
    assert router.recv_multipart() == [b"me", b"2"]
    router.send_multipart([b"me", b"answer"])
    assert receive(new) == b"answer"


# Descriptors.


def leave_free(count: int) -> bool:
    """Use up all descriptors but some, and ask; a forked child's limit is its own."""
    highest = max(int(path.name) for path in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for descriptor in taken[:count]:
        os.close(descriptor)
    answers = {transport.has_free_descriptors() for _ in range(3)}
    assert len(answers) == 1, "asking used some up"
    return answers.pop()


@pytest.mark.parametrize("count", [0, 1, 15])
def test_too_few_free_descriptors_are_noticed(count: int) -> None:
    """Rule C1: libzmq aborts the process where it can't open one, so it is not started with less than 16."""
    assert children.run(leave_free, count) is False


def test_enough_free_descriptors_are_enough() -> None:
    """Rule C1: with 16 it is started, and asking gives all of them back."""
    assert children.run(leave_free, 16) is True


def raise_limit() -> tuple[int, int, int]:
    """Lower the soft limit, raise it, and tell all three."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    return transport.raise_descriptor_limit(), resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard


def test_the_limit_is_raised_as_far_as_allowed() -> None:
    """Rule C1: a collector has two connections a worker; the usual soft limit is soon used up."""
    told, soft, hard = children.run(raise_limit)
    assert told == soft == hard


def test_a_probe_waits_for_nobody(context: Context, address: str) -> None:
    """Whether somebody listens is known at once, and a listener does not notice."""
    started_s = time.monotonic()
    assert not transport.is_listening(path_of(address))
    pull = transport.pull_socket(context)
    transport.bind(pull, address)
    assert transport.is_listening(path_of(address))
    assert time.monotonic() - started_s < DEADLINE_S
    assert not pull.poll(0)
