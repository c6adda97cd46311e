"""Strangers at a collector's sockets: each does one thing that no courier of ours does, and goes.

They speak ZMTP 3.0 (rfc.zeromq.org/spec/23) byte by byte, since libzmq would not let them be rude, or
libzmq where only the words are wrong. All of them run as the collector's own user: nobody else can reach
its sockets, which lie in a folder of that user's.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING, Final
from zlib import crc32

import zmq

from settle_mp import journals, statedir
from settle_mp.core import wire
from settle_mp.core.record import HEADER_BYTES, encode_record, segment_seed

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Stranger = Callable[[Path, random.Random], None]

#: Connections that do nothing.
IDLE_COUNT: Final = 1_000
#: Bytes of one message's parts, none of which is the last.
ENDLESS_BYTES: Final = 64 * 1024 * 1024
PRODUCER: Final = b"a stranger's id."

_GREETING: Final = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
_SOCKETS: Final = ("frames", "control")


def connect(path: Path) -> socket.socket:
    """A plain connection to one of the sockets; it waits while the collector is too busy to take it."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(
            os.fspath(path)
        )  # without a time limit, or it would not wait for room in the queue
    except OSError:
        connection.close()
        raise
    connection.settimeout(10.0)
    return connection


def greet(connection: socket.socket, kind: bytes = b"PUSH") -> None:
    """Say what a ZeroMQ socket of some kind says first."""
    metadata = b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    command = b"\x05READY" + metadata
    connection.sendall(_GREETING + b"\x04" + bytes([len(command)]) + command)


@contextlib.contextmanager
def speaking(
    state_dir: Path, kind: int, name: str = "frames", identity: bytes | None = None
) -> Iterator[zmq.Socket[bytes]]:
    """A ZeroMQ socket that is connected; what it has sent is on its way when it is closed."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        said = context.socket(kind)
        said.setsockopt(zmq.SNDHWM, 0)
        if identity is not None:
            said.setsockopt(zmq.IDENTITY, identity)
        said.connect(f"ipc://{state_dir / name}")
        yield said
    finally:
        context.destroy(linger=5_000)


def push(state_dir: Path, *messages: bytes) -> None:
    """Send messages where frames go."""
    with speaking(state_dir, zmq.PUSH) as said:
        for message in messages:
            said.send(message)


def _rude(sendings: Callable[[socket.socket, bytes], None], state_dir: Path) -> None:
    """Connect to both sockets and send something; whoever is thrown out has been heard."""
    for name, kind in zip(_SOCKETS, (b"PUSH", b"DEALER"), strict=True):
        with contextlib.closing(connect(state_dir / name)) as connection, contextlib.suppress(OSError):
            sendings(connection, kind)


# --- The strangers ---


def random_bytes(state_dir: Path, dice: random.Random) -> None:
    """Bytes at random: instead of a greeting, behind one, and as messages."""
    _rude(lambda connection, _: connection.sendall(dice.randbytes(5_000)), state_dir)

    def behind_greeting(connection: socket.socket, kind: bytes) -> None:
        greet(connection, kind)
        connection.sendall(dice.randbytes(5_000))

    _rude(behind_greeting, state_dir)
    push(state_dir, *(dice.randbytes(dice.randint(0, 300)) for _ in range(50)))
    with speaking(state_dir, zmq.DEALER, "control") as said:
        for _ in range(50):
            said.send(dice.randbytes(dice.randint(0, 300)))


def half_open(state_dir: Path, _dice: random.Random) -> None:
    """Connections that end or stop in the middle of a greeting, a length, a message."""
    whole = (
        _GREETING + b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH" + b"\x02" + (10_000).to_bytes(8, "big")
    )
    open_ones = []
    for size in (0, 1, 10, 63, 64, 70, len(whole) - 4, len(whole)):
        for name in _SOCKETS:
            connection = connect(state_dir / name)
            with contextlib.suppress(OSError):
                connection.sendall(whole[:size])
            open_ones.append(connection)
    for connection in open_ones:
        connection.close()


def wrong_versions(state_dir: Path, _dice: random.Random) -> None:
    """Greetings of ZMTP 1.0 and 2.0, which could pass for messages, and a version 2 of our own."""
    for greeting in (b"\x01\x00\x05hello", b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00\x05hello"):
        _rude(lambda connection, _, greeting=greeting: connection.sendall(greeting), state_dir)  # type: ignore[misc]
    push(state_dir, b"\x02" + bytes(60))
    with speaking(state_dir, zmq.DEALER, "control") as said:
        said.send(b"\x92\x02\xa4Ping")


def replayed(state_dir: Path, dice: random.Random) -> None:
    """Frames of live workers again, some times over and in any order."""
    frames = [
        frame for folder in statedir.producer_folders(state_dir / "journals") for frame in _frames(folder)
    ]
    again = [frame for frame in frames for _ in range(3)]
    dice.shuffle(again)
    push(state_dir, *again)


def _frames(folder: Path) -> list[bytes]:
    """A journal's records as frames, one record each."""
    producer, made = bytes.fromhex(folder.name), []
    with contextlib.suppress(OSError):
        for file in journals.segments(folder):
            body, at = file.read(), 0
            while length := int.from_bytes(body[at : at + 2], "little"):
                end = at + 10 + length
                frame = wire.Frame(
                    producer=producer, first=file.base + at, base=file.base, cut_s=1.8e9, body=body[at:end]
                )
                made.append(wire.encode_frame(frame))
                at = end
    return made[-300:]


def unknown_producer(state_dir: Path, _dice: random.Random) -> None:
    """Well-formed frames of a producer without folder or hello, from its beginning and later."""
    body = encode_record(b"\x94\xa3ada\xa8AI_QUERY\x01\xc0", segment_seed(PRODUCER, 0), 0)
    for first in (0, 64, 2**40):
        frame = wire.Frame(producer=PRODUCER, first=first, base=0, cut_s=1.8e9, body=body)
        push(state_dir, wire.encode_frame(frame))


def others_names(state_dir: Path, _dice: random.Random) -> None:
    """What workers say of themselves, said by somebody else, and what a collector says."""
    words: list[wire.Message] = [wire.Ack(PRODUCER, 10**6), wire.GoBack(0), wire.Refused("go away")]
    for folder in statedir.producer_folders(state_dir / "journals"):
        words += _words_of(bytes.fromhex(folder.name))
    with speaking(state_dir, zmq.DEALER, "control") as said:
        for word in words:
            said.send(wire.encode_message(word))


def impostors(state_dir: Path, _dice: random.Random) -> None:
    """What live workers say, under their names, whose answers come to the stranger until they are back."""
    for folder in statedir.producer_folders(state_dir / "journals"):
        producer = bytes.fromhex(folder.name)
        with speaking(state_dir, zmq.DEALER, "control", identity=producer) as said:
            for word in _words_of(producer):
                said.send(wire.encode_message(word))
            # Until it is believed to be the worker.
            said.poll(1_000)


def _words_of(producer: bytes) -> list[wire.Message]:
    return [
        wire.Hello(producer, 0, bytes(HEADER_BYTES), is_volatile=True),
        wire.Goodbye(producer, 0, 10**6, "1000000", is_over=True),
        wire.Lost(producer, 0, 2**62, "all of it"),
        wire.Flush(producer, 1, 2**62, 2.0**39),
        wire.Position(producer, 1, 2**62),
    ]


def giant_frames(state_dir: Path, _dice: random.Random) -> None:
    """Messages of 2 MiB, which end the connection, and frames of more than a frame may have."""
    push(state_dir, bytes(2 * 1024 * 1024))
    with speaking(state_dir, zmq.DEALER, "control") as said:
        said.send(bytes(2 * 1024 * 1024))
        said.send(bytes(100_000))
    head = b"\x01" + PRODUCER + bytes(24) + bytes(500_000)
    push(state_dir, head + crc32(head).to_bytes(4, "little"))


def endless_multipart(state_dir: Path, _dice: random.Random) -> None:
    """Messages of 10,000 parts, and one whose last part never comes."""
    with speaking(state_dir, zmq.PUSH) as said:
        for _ in range(9_999):
            said.send(b"part", zmq.SNDMORE)
        said.send(b"last")
    part = b"\x03" + (64 * 1024).to_bytes(8, "big") + bytes(64 * 1024)
    with contextlib.closing(connect(state_dir / "frames")) as connection:
        greet(connection)
        with contextlib.suppress(OSError):
            for _ in range(ENDLESS_BYTES // len(part)):
                connection.sendall(part)


def idle_connections(state_dir: Path, _dice: random.Random) -> None:
    """A thousand peers that have greeted and say nothing more, for a few seconds."""
    open_ones: list[socket.socket] = []
    try:
        for number in range(IDLE_COUNT):
            # Where the collector has shut its door for want of descriptors, nobody gets in.
            with contextlib.suppress(OSError):
                connection = connect(state_dir / _SOCKETS[number % 2])
                open_ones.append(connection)
                greet(connection, (b"PUSH", b"DEALER")[number % 2])
        time.sleep(3.0)
    finally:
        for connection in open_ones:
            connection.close()


STRANGERS: Final[dict[str, Stranger]] = {
    each.__name__: each
    for each in (
        random_bytes,
        half_open,
        wrong_versions,
        replayed,
        unknown_producer,
        others_names,
        impostors,
        giant_frames,
        endless_multipart,
        idle_connections,
    )
}
