"""The collector's sockets: what arrives, what is bounded, and what happens when descriptors run short."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time
from typing import TYPE_CHECKING

import pytest
import zmq

from settle_mp import statedir, transport
from settle_mp.collector import sockets as module
from settle_mp.collector.sockets import PARTS_MAX, Sockets
from settle_mp.core import wire
from settle_mp.endpoints import Endpoints, parse
from tests.sockets import KeepingContext
from tests.upstreams import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Context = zmq.Context[zmq.Socket[bytes]]
    Socket = zmq.Socket[bytes]

NAME = bytes(range(16))
#: Seconds that a test waits for what must come.
DEADLINE_S = 20.0
DEADLINE_MS = 20_000


@pytest.fixture
def endpoints(state_dir: Path) -> Iterator[Endpoints]:
    """Addresses in a state folder; the limit of descriptors is put back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield parse(statedir.StateDir(state_dir), None)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def wake() -> Iterator[tuple[int, int]]:
    """Make the pipe by which senders end the wait."""
    ends = os.pipe()
    yield ends
    for each in ends:
        os.close(each)


@pytest.fixture
def sockets(endpoints: Endpoints, wake: tuple[int, int]) -> Iterator[Sockets]:
    """The sockets, listening."""
    made = Sockets(endpoints, wake[0])
    made.open()
    yield made
    with contextlib.suppress(OSError):
        made.close()


@pytest.fixture
def push(endpoints: Endpoints, context: Context) -> Socket:
    """A courier's socket for frames."""
    return transport.push_socket(context, endpoints.frames)


@pytest.fixture
def dealer(endpoints: Endpoints, context: Context) -> Socket:
    """A courier's socket for control messages."""
    return transport.dealer_socket(context, endpoints.control, NAME)


@pytest.fixture
def context() -> Iterator[Context]:
    """Make the other side's context."""
    context = KeepingContext()
    yield context
    context.destroy(linger=0)
    KeepingContext.kept.clear()


def take(sockets: Sockets, count: int) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """Poll until so many messages have come."""
    frames: list[bytes] = []
    messages: list[tuple[bytes, bytes]] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while len(frames) + len(messages) < count:
        assert time.monotonic() < deadline_s, (frames, messages)
        ready = sockets.poll(1.0)
        if ready.frames:
            frames += sockets.frames()
        if ready.control:
            messages += sockets.messages()
    return frames, messages


def turns(sockets: Sockets, take_some: Callable[[], list[object]], count: int) -> list[int]:
    """How many messages each turn took until so many had come."""
    taken: list[int] = []
    deadline_s = time.monotonic() + DEADLINE_S
    while sum(taken) < count:
        assert time.monotonic() < deadline_s, taken
        sockets.poll(1.0)
        taken.append(len(take_some()))
    return taken


def is_listening(path: str) -> bool:
    """Whether anybody could connect."""
    from pathlib import Path

    return transport.is_listening(Path(path.removeprefix("ipc://")))


# --- What arrives ---


def test_frames_and_messages_arrive_and_are_answered(sockets: Sockets, push: Socket, dealer: Socket) -> None:
    """Each control message comes with its sender's name, by which it is answered."""
    push.send(b"frame")
    dealer.send(b"message")
    assert take(sockets, 2) == ([b"frame"], [(NAME, b"message")])
    sockets.send(NAME, wire.GoBack(7))
    assert dealer.poll(DEADLINE_MS)
    assert wire.decode_message(dealer.recv()) == wire.GoBack(7)


def test_an_answer_to_nobody_is_no_error(sockets: Sockets) -> None:
    """Who is gone asks again when it is back; the loop goes on."""
    sockets.send(bytes(16), wire.GoBack(7))
    sockets.send(b"", wire.GoBack(7))


def test_nothing_waits_where_nothing_came(sockets: Sockets) -> None:
    """Reading is never a wait."""
    assert not sockets.poll(0.0).frames
    assert (list(sockets.frames()), list(sockets.messages()), sockets.signals()) == ([], [], [])


# --- Bounds ---


@pytest.mark.parametrize("which", ["frames", "messages"])
def test_a_turn_takes_a_bounded_number_of_messages(
    sockets: Sockets, push: Socket, dealer: Socket, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    """Promise 3: a flood on one socket keeps nobody from the other, and the rest is not lost."""
    monkeypatch.setattr(module, "MESSAGES_MAX", 5)
    sender = push if which == "frames" else dealer
    for number in range(1000):
        assert sender.poll(DEADLINE_MS, zmq.POLLOUT)
        sender.send(b"%d" % number)
        if which == "messages" and number >= 100:
            break
    count = 1000 if which == "frames" else 101
    taken = turns(sockets, lambda: list(getattr(sockets, which)()), count)
    assert (max(taken), sum(taken)) == (5, count)


@pytest.mark.parametrize("count", [2, 3, 4, 50])
def test_a_frame_of_several_parts_is_none_and_the_next_one_is_whole(
    sockets: Sockets, push: Socket, count: int
) -> None:
    """Rule L1: no courier of ours sends one; it is told to be refused, and never mixed with what follows."""
    push.send_multipart([b"part"] * count)
    push.send(b"frame")
    assert take(sockets, 2)[0] == [b"", b"frame"]


@pytest.mark.parametrize("parts", [[b""], [b"a", b"b"], [b"a"] * 50])
def test_a_message_of_other_parts_is_none_and_the_next_one_is_whole(
    sockets: Sockets, dealer: Socket, parts: list[bytes]
) -> None:
    """The same for control messages; an empty one is no message either."""
    dealer.send_multipart(parts)
    dealer.send(b"message")
    assert take(sockets, 2)[1] == [(NAME, b""), (NAME, b"message")]


def test_parts_beyond_the_bound_are_not_kept(sockets: Sockets, push: Socket) -> None:
    """Promise 3: however many parts a stranger's message has, only the first few take memory."""
    push.send_multipart([b"x" * 1000] * 200)
    assert sockets.poll(DEADLINE_S).frames
    parts = module._receive(sockets._frames)
    assert parts is not None
    assert len(parts) == PARTS_MAX
    assert module._receive(sockets._frames) is None


def test_a_message_that_is_too_long_ends_its_sender_alone(
    sockets: Sockets, push: Socket, endpoints: Endpoints, context: Context
) -> None:
    """Promise 3: libzmq would take any length; a longer one than any frame never arrives, others do."""
    stranger = transport.push_socket(context, endpoints.frames)
    stranger.send(bytes(transport.MESSAGE_BYTES_MAX + 1))
    push.send(b"frame")
    assert take(sockets, 1)[0] == [b"frame"]
    push.send(bytes(wire.FRAME_BODY_BYTES_MAX + 1000))
    assert len(take(sockets, 1)[0][0]) == wire.FRAME_BODY_BYTES_MAX + 1000


# --- Descriptors ---


def test_listening_stops_while_descriptors_are_short(
    sockets: Sockets,
    push: Socket,
    dealer: Socket,
    endpoints: Endpoints,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rule C1: libzmq aborts when it can't accept, so nobody new may come; who is there goes on."""
    limit, used = sockets._descriptors_max, [0]
    monkeypatch.setattr(module, "_open_descriptors", lambda: used[0])
    push.send(b"one")
    dealer.send(b"one")
    assert take(sockets, 2) == ([b"one"], [(NAME, b"one")])
    used[0] = limit - module.DESCRIPTORS_FREE_MIN
    sockets.poll(0.0)
    assert is_listening(endpoints.frames)
    used[0] += 1
    for _ in range(3):
        sockets.poll(0.0)
    assert not is_listening(endpoints.frames)
    assert not is_listening(endpoints.control)
    assert [record.msg for record in caplog.records] == ["collector_not_listening"]
    push.send(b"two")
    dealer.send(b"two")
    assert take(sockets, 2) == ([b"two"], [(NAME, b"two")])
    sockets.send(NAME, wire.GoBack(7))
    assert dealer.poll(DEADLINE_MS)
    used[0] = limit - 2 * module.DESCRIPTORS_FREE_MIN  # some room is not enough: it would begin again
    sockets.poll(0.0)
    assert not is_listening(endpoints.frames)
    used[0] -= 1
    sockets.poll(0.0)
    assert is_listening(endpoints.frames)
    assert is_listening(endpoints.control)


def test_listening_goes_on_later_where_an_address_is_taken_meanwhile(
    sockets: Sockets, endpoints: Endpoints, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule C1: whoever took the path keeps it as long as it likes; the loop asks again and never ends."""
    used = [sockets._descriptors_max]
    monkeypatch.setattr(module, "_open_descriptors", lambda: used[0])
    sockets.poll(0.0)
    wait_until(lambda: not is_listening(endpoints.control), "nobody listens")
    thief = context.socket(zmq.ROUTER)
    thief.bind(endpoints.control)
    used[0] = 0
    for _ in range(2):
        sockets.poll(0.0)
        assert is_listening(endpoints.frames)
    thief.close()
    wait_until(lambda: not is_listening(endpoints.control), "it is free")
    sockets.poll(0.0)
    dealer = transport.dealer_socket(context, endpoints.control, NAME)
    dealer.send(b"message")
    assert take(sockets, 1)[1] == [(NAME, b"message")]
    assert is_listening(endpoints.frames)
    assert is_listening(endpoints.control)


def test_a_path_that_somebody_removed_meanwhile_is_made_anew(
    sockets: Sockets, endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, state_dir: Path
) -> None:
    """Rule C1: after a shortage new workers find the collector again, whatever became of its files."""
    used = [sockets._descriptors_max]
    monkeypatch.setattr(module, "_open_descriptors", lambda: used[0])
    sockets.poll(0.0)
    for each in state_dir.iterdir():
        each.unlink()
    used[0] = 0
    sockets.poll(0.0)
    assert is_listening(endpoints.frames)
    assert is_listening(endpoints.control)


def test_an_end_during_a_shortage_leaves_nothing(
    endpoints: Endpoints, wake: tuple[int, int], state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 3: neither a collector that ends then, nor the next one after a kill."""
    for is_killed in (True, False):
        sockets = Sockets(endpoints, wake[0])
        sockets.open()
        assert {each.name for each in state_dir.iterdir()} == {"frames", "control"}
        with monkeypatch.context() as patch:
            patch.setattr(module, "_open_descriptors", lambda sockets=sockets: sockets._descriptors_max)
            sockets.poll(0.0)
        assert {each.name for each in state_dir.iterdir()} == {"frames.shut", "control.shut"}
        if is_killed:
            sockets._doors = ()  # type: ignore[assignment]
        sockets.close()
    assert list(state_dir.iterdir()) == []


def test_open_descriptors_are_counted() -> None:
    """Rule C1: the count is the system's, so that files and connections are in it."""
    before = module._open_descriptors()
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(10)]
    assert module._open_descriptors() == before + 10
    for each in opened:
        os.close(each)


def test_the_soft_limit_is_raised(endpoints: Endpoints, wake: tuple[int, int]) -> None:
    """Rule C1: two connections a worker; the usual soft limit of 1,024 is 500 workers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 512), hard))
    sockets = Sockets(endpoints, wake[0])
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == sockets._descriptors_max == hard
    sockets.close()


# --- One collector, its beginning and its end ---


@pytest.mark.parametrize("taken", ["frames", "control"])
def test_an_address_in_use_leaves_both_as_they_were(
    endpoints: Endpoints, context: Context, wake: tuple[int, int], taken: str
) -> None:
    """Rule L5: whoever listens there goes on, and no half of us listens beside it."""
    other = context.socket(zmq.PULL)
    other.bind(getattr(endpoints, taken))
    free = endpoints.control if taken == "frames" else endpoints.frames
    sockets = Sockets(endpoints, wake[0])
    with pytest.raises(transport.InUseError):
        sockets.open()
    wait_until(lambda: not is_listening(free), "nobody listens on the other one")
    assert is_listening(getattr(endpoints, taken))
    sockets.close()
    assert is_listening(getattr(endpoints, taken))


def test_the_wait_ends_for_signals_and_senders(sockets: Sockets, wake: tuple[int, int]) -> None:
    """A poll that would last long ends at once; a signal's number is read once."""
    before = signal.set_wakeup_fd(sockets.signal_fd, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        begun_s = time.monotonic()
        os.kill(os.getpid(), signal.SIGHUP)
        sockets.poll(600.0)
        assert sockets.signals() == [signal.SIGHUP]
        assert sockets.signals() == []
        os.write(wake[1], b"1")
        sockets.poll(600.0)
        assert time.monotonic() - begun_s < 300.0
    finally:
        signal.set_wakeup_fd(before)
        signal.signal(signal.SIGHUP, handler)


def test_nothing_is_left_behind(endpoints: Endpoints, wake: tuple[int, int], state_dir: Path) -> None:
    """Promise 3: neither descriptors nor socket files."""
    before = module._open_descriptors()
    sockets = Sockets(endpoints, wake[0])
    sockets.open()
    assert len(list(state_dir.iterdir())) == 2
    sockets.close()
    assert list(state_dir.iterdir()) == []
    wait_until(lambda: module._open_descriptors() == before, "all descriptors are closed")
