"""The ledger's side files: what must be known of it when the database itself can't be believed.

`seal` holds the ledger's id and its highest seal number, `aside` the ledgers that were put aside. Both are
JSON under a checksum, and small.

Rule: a side file is written whole under another name, synced and renamed; it is never half of two versions.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

if TYPE_CHECKING:
    from pathlib import Path

MARK_NAME: Final = "seal"
ASIDE_NAME: Final = "aside"


@dataclass(frozen=True, slots=True)
class Mark:
    """The ledger of a folder, and the highest seal of which anything may have been sent."""

    ledger: bytes
    seal_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """One ledger that was put aside.

    Attributes:
        ids: Under which ids journals may be bound to it; none when its id could not be read.
        name: The name of its file in the quarantine.
        reason: Why.
        held: What it held by its own account, in words.
        at_s: When (Unix seconds).
        is_told: Whether a later ledger names it as a residue.
    """

    ids: tuple[str, ...]
    name: str
    reason: str
    held: str
    at_s: float
    is_told: bool = False


def read_mark(folder: Path) -> Mark | None:
    """The mark, or None when there is none that can be read."""
    try:
        value = _read(folder / MARK_NAME)
        return None if value is None else Mark(bytes.fromhex(value["ledger"]), int(value["seal_number"]))
    except (ValueError, KeyError, TypeError):
        return None


def write_mark(folder: Path, mark: Mark) -> None:
    """Write the mark, and come back when it is on the disk."""
    _write(folder / MARK_NAME, {"ledger": mark.ledger.hex(), "seal_number": mark.seal_number})


def read_asides(folder: Path) -> list[Aside]:
    """The ledgers that were put aside, oldest first; none when the file can't be read."""
    try:
        value = _read(folder / ASIDE_NAME) or []
        return [Aside(**{**each, "ids": tuple(each["ids"])}) for each in value]
    except (ValueError, KeyError, TypeError):
        return []


def aside_ids(folder: Path) -> frozenset[bytes]:
    """The ids of the ledgers that were put aside."""
    return frozenset(bytes.fromhex(each) for aside in read_asides(folder) for each in aside.ids)


def write_asides(folder: Path, asides: list[Aside]) -> None:
    """Write which ledgers were put aside, and come back when it is on the disk."""
    _write(folder / ASIDE_NAME, [asdict(each) for each in asides])


def sync_folder(folder: Path) -> None:
    """Come back when the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, value: Any) -> None:
    text = json.dumps(value).encode()
    building = path.with_name(path.name + ".new")
    # One from before a death may have other rights; what is written must be ours alone from its first byte.
    with contextlib.suppress(FileNotFoundError):
        building.unlink()
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"%08x\n%s" % (crc32(text), text))
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)
    sync_folder(path.parent)


def _read(path: Path) -> Any:
    try:
        head, _, text = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    if head != b"%08x" % crc32(text):
        msg = f"{path.name} fails its checksum"
        raise ValueError(msg)
    return json.loads(text)
