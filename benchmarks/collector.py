"""How many events a second one core commits and folds: frames in, SQLite transactions and sums out.

The frames are made beforehand; what is timed is all that the collector's loop does with them: checksums,
decoding, the transaction with fsync, the fold, the headers. 128 events a frame, as from busy workers. The
rate is that of the core's own time, since a shared machine gives a process more or less of it. What packing
one small event takes is printed as well, to tell machines apart.

    python -m benchmarks.collector
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import msgpack

from settle_mp import statedir
from settle_mp.collector import lineage
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.reception import Reception
from settle_mp.collector.startup import spare_garbage_collection
from settle_mp.collector.state import State
from settle_mp.core import wire
from settle_mp.core.event import pack_event
from settle_mp.core.record import Identity, encode_identity, encode_record, segment_seed

EVENTS = 2_000_000
FRAME_EVENTS = 128
PRODUCERS = 4
#: Frames that one transaction takes: what comes in within 20 ms at this rate.
GROUP_FRAMES = 80
ROUNDS = 3


def make_frames(keys_count: int, producers: list[bytes]) -> list[bytes]:
    """Frames of events drawn evenly from a number of keys."""
    payloads = [pack_event(f"user_{key}", "AI_QUERY", 1, {"model": "gpt-4"}) for key in range(keys_count)]
    positions = dict.fromkeys(producers, 0)
    frames = []
    dice = random.Random(keys_count)  # noqa: S311  the same events in each run
    for number in range(EVENTS // FRAME_EVENTS):
        producer = producers[number % len(producers)]
        seed, at = segment_seed(producer, 0), positions[producer]
        body = bytearray()
        for payload in dice.choices(payloads, k=FRAME_EVENTS):
            body += encode_record(payload, seed, at + len(body))
        frame = wire.Frame(producer=producer, first=at, base=0, cut_s=time.time(), body=bytes(body))
        positions[producer] = frame.last
        frames.append(wire.encode_frame(frame))
    return frames


def make_journal(journals: Path) -> bytes:
    """A folder with a header, as the collector looks for one before it takes a frame."""
    producer = os.urandom(16)
    folder = journals / producer.hex()
    folder.mkdir(parents=True)
    identity = Identity(
        producer=producer, key_mode="test", name="benchmark", host="here", born_s=time.time(), facts={}
    )
    (folder / statedir.HEADER_NAME).write_bytes(encode_identity(identity).ljust(4096, b"\0"))
    return producer


def run(keys_count: int) -> float:
    """Events a second for a number of keys."""
    root = Path(tempfile.mkdtemp(prefix="smp-bench-"))
    try:
        state_dir = statedir.StateDir(root)
        state_dir.prepare()
        producers = [make_journal(state_dir.journals) for _ in range(PRODUCERS)]
        frames = make_frames(keys_count, producers)
        ledger = lineage.open_or_replace(root, [], ledger_bytes_max=4 << 30, now_s=time.time())
        state = State(ledger, Decoder({}))
        reception = Reception(state, state_dir.journals, frozenset())
        started_s = time.process_time()
        for start in range(0, len(frames), GROUP_FRAMES):
            for data in frames[start : start + GROUP_FRAMES]:
                assert reception.take_frame(wire.decode_frame(data)) is None
            reception.commit()
        entries = [entry for window in state.windows for entry in window.entries.values()]
        took_s = time.process_time() - started_s
        assert sum(entry.count for entry in entries) == len(frames) * FRAME_EVENTS
        ledger.close()
        return len(frames) * FRAME_EVENTS / took_s
    finally:
        shutil.rmtree(root)


def main() -> None:
    """Print medians."""
    spare_garbage_collection()
    pack, started_s = msgpack.Packer().pack, time.process_time()
    for _ in range(1_000_000):
        pack(["user_123", "AI_QUERY", 1, None])
    print(f"one small event packs in {time.process_time() - started_s:.2f} us", flush=True)
    for keys_count in (4_000, 250_000):
        rates = [run(keys_count) for _ in range(ROUNDS)]
        shown = ", ".join(f"{rate:,.0f}" for rate in rates)
        print(f"{keys_count:>8,} keys: {statistics.median(rates):>10,.0f} events/s ({shown})")


if __name__ == "__main__":
    main()
