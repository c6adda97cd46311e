"""The corpus: inputs that reach each branch of a decoder, a file each, named by what is in it.

`python -m tests.fuzz.corpus` writes the seeds anew.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fuzz.seeds import seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS: Final = Path(__file__).parent / "corpus"


def inputs(target: str) -> list[bytes]:
    """A target's inputs, always in the same order."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def keep(target: str, data: bytes) -> None:
    """Add an input."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)


def mutations(datas: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """So many changed inputs, the same for the same seed: bytes changed, cut out, doubled, crossed."""
    chance = random.Random(seed)  # noqa: S311  no secret
    for _ in range(count):
        data = bytearray(chance.choice(datas))
        for _ in range(chance.randint(1, 4)):
            at = chance.randint(0, len(data))
            end = min(len(data), at + chance.choice([1, 1, 2, 8, 30]))
            other = chance.choice(datas)
            start = chance.randint(0, len(other))
            piece = chance.choice(
                [
                    bytes([chance.randrange(256)]),
                    bytes([byte ^ 1 << chance.randrange(8) for byte in data[at : at + 1]]),
                    bytes(chance.choice([[0], [255], [0, 0, 0, 0], [255] * 8])),
                    bytes(data[at:end]) * 2,
                    other[start : start + chance.choice([1, 4, 40, 400])],
                    b"",
                ]
            )
            data[at:end] = piece
        yield bytes(data)


if __name__ == "__main__":
    for name, datas in seeds().items():
        for data in datas:
            keep(name, data)
