"""The corpus meets the decoders, and so do some thousand inputs like it; `make fuzz` does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector import decoder as decoding
from settle_mp.core import record as recording
from settle_mp.core import salvage as salvaging
from tests.fuzz import targets
from tests.fuzz.corpus import CORPUS, inputs, mutations
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable

#: Mutations a target: a second or less.
MUTATIONS_COUNT = 3_000
#: Bytes that the corpus may take in the repository.
CORPUS_BYTES_MAX = 300_000


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_and_what_is_like_it(target: str) -> None:
    """No input crashes a decoder or is taken for what it is not; the same inputs in each run."""
    datas = inputs(target)
    for data in [*datas, *mutations(datas, MUTATIONS_COUNT, seed=1)]:
        TARGETS[target](data)


def test_the_corpus_holds_the_seeds_and_stays_small() -> None:
    """A change of the layout changes the seeds: `python -m tests.fuzz.corpus` writes them anew."""
    for target, wanted in seeds().items():
        assert set(wanted) <= set(inputs(target)), target
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < CORPUS_BYTES_MAX


# The targets can complain.


def complains(target: str) -> bool:
    """Whether a target complains of any input of the corpus."""
    try:
        for data in inputs(target):
            TARGETS[target](data)
    except (AssertionError, IndexError):
        return True
    return False


class Anything(int):
    """A checksum that every other one is equal to."""

    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def unchecked(*_: object) -> int:
    """Compute nothing."""
    return Anything()


@pytest.mark.parametrize("target", ["run", "records", "segment"])
def test_a_record_taken_from_anybody_is_seen(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no checksum, what others wrote passes for a record: the targets complain."""
    for module in (recording, salvaging):
        monkeypatch.setattr(module, "crc32", unchecked)
    assert complains(target)


def refusing(error: Exception) -> Callable[..., Any]:
    """A decoder that fails in a way that it may not."""

    def refuse(*_: object, **__: object) -> None:
        raise error

    return refuse


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("frame", "decode_frame"),
        ("message", "decode_message"),
        ("header", "parse_header"),
        ("event", "unpack_event"),
    ],
)
def test_a_decoder_that_crashes_is_seen(target: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not the decoder's own comes out of the target."""
    monkeypatch.setattr(targets, name, refusing(IndexError()))
    assert complains(target)


def test_a_count_that_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that lost an event on the way is none."""
    monkeypatch.setattr(decoding._Memory, "__missing__", lambda *_: None)
    assert complains("run")
