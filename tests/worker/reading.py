"""Journals on disk, read strictly: every byte is a good record, or a zero behind the last one."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

from settle_mp import statedir
from settle_mp.core.event import unpack_event
from settle_mp.core.record import (
    Identity,
    Slot,
    decode_identity,
    decode_slot,
    mark_s,
    read_records,
    segment_seed,
)
from settle_mp.statedir import parse_segment_name, producer_folders

if TYPE_CHECKING:
    from settle_mp.core.event import Event


class Segment:
    """One segment's file: its place, the payloads of its records and the bytes that they take."""

    def __init__(self, path: Path) -> None:
        parsed = parse_segment_name(path.name)
        assert parsed is not None, path
        self.path = path
        self.base, self.size = parsed
        body = path.read_bytes()
        seed = segment_seed(bytes.fromhex(path.parent.name.removeprefix(".new-")), self.base)
        self.payloads, self.used_bytes = read_records(body, seed, 0)
        assert len(body) == self.size
        assert not body[self.used_bytes :].strip(b"\0"), f"{path} is damaged at {self.used_bytes}"
        assert mark_s(self.payloads[0]) is not None


def segments(folder: Path) -> list[Segment]:
    """Read a journal's segments by position, without those that stand before what is committed.

    Of two at one position only the one that was appended to counts: the other's making was interrupted.
    """
    best: dict[int, Segment] = {}
    for path in folder.glob("*.seg"):
        found = Segment(path)
        known = best.get(found.base)
        if known is None or found.used_bytes > known.used_bytes:
            best[found.base] = found
    committed = slot(folder, "courier").position if (folder / "header").exists() else 0
    bases = sorted(best)
    chain = [best[base] for base, end in zip(bases, [*bases[1:], inf], strict=True) if end > committed]
    for before, after in pairwise(chain):
        assert before.base + before.used_bytes == after.base
    return chain


def payloads(folder: Path) -> list[bytes]:
    """Read the payloads of a journal's records, time marks included."""
    return [payload for segment in segments(folder) for payload in segment.payloads]


def events(folder: Path) -> list[Event]:
    """Read a journal's events."""
    return [unpack_event(payload) for payload in payloads(folder) if mark_s(payload) is None]


def users(folder: Path) -> list[str]:
    """Read whose events a journal has; tests give each event a user of its own."""
    return [event.user_id for event in events(folder)]


def journals(state_dir: Path) -> list[Path]:
    """Find the folders of whole journals."""
    return sorted(producer_folders(state_dir / "journals"))


def only_journal(state_dir: Path) -> Path:
    """Find the one folder of a whole journal."""
    (folder,) = journals(state_dir)
    return folder


def all_users(state_dir: Path) -> list[str]:
    """Read whose events all journals of a host have, in order."""
    return sorted(user for folder in journals(state_dir) for user in users(folder))


def slot(folder: Path, writer: str) -> Slot:
    """Read a slot of a journal's header."""
    return decode_slot(writer, (folder / "header").read_bytes())


def is_locked(folder: Path) -> bool:
    """Whether a process lives that holds a journal's lock."""
    return statedir.is_locked(folder / "lock")


def held_locks(host: Path) -> list[str]:
    """Find the locks of a host's journals that this process has descriptors of. Linux only."""
    found = []
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return [target for target in found if target.startswith(str(host)) and target.endswith("/lock")]


def identity(folder: Path) -> Identity:
    """Read who a journal's header says it is."""
    found = decode_identity((folder / "header").read_bytes())
    assert found is not None
    return found
