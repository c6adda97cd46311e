"""`track()`: what it takes, what it refuses and in which words, and that nothing it is told gets lost."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from collections import OrderedDict
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.core.event import Event
from settle_mp.worker import journal as journals
from settle_mp.worker import segment as segments
from settle_mp.worker import track as tracks
from tests.worker import children, reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from settle_mp import Settle


class Name(str, Enum):
    """Event types as an application may list them; StrEnum came with Python 3.11."""

    QUERY = "AI_QUERY"


class Plain(Enum):
    """The same without being a str."""

    QUERY = "AI_QUERY"
    NUMBER = 5


class Number(int):
    """A number of the application's."""


GOOD: list[tuple[tuple[Any, ...], Event]] = [
    (("user", "AI_QUERY"), Event("user", "AI_QUERY", 1, None)),
    (("user", "AI_QUERY", 10**12), Event("user", "AI_QUERY", 10**12, None)),
    (("user", "AI_QUERY", 0.1), Event("user", "AI_QUERY", Decimal("0.1"), None)),
    (("user", "AI_QUERY", Decimal("1e-9")), Event("user", "AI_QUERY", Decimal("1e-9"), None)),
    (("user", "AI_QUERY", Number(3)), Event("user", "AI_QUERY", 3, None)),
    (("user", Name.QUERY), Event("user", "AI_QUERY", 1, None)),
    (("user", Plain.QUERY), Event("user", "AI_QUERY", 1, None)),
    (("ü" * 256, "x" * 128), Event("ü" * 256, "x" * 128, 1, None)),
    (("user", "AI_QUERY", 2, {}), Event("user", "AI_QUERY", 2, {})),
    (("user", "AI_QUERY", 1, {"n": 1, "b": True, "s": "x", "z": None}),
     Event("user", "AI_QUERY", 1, {"n": 1, "b": True, "s": "x", "z": None})),
    (("user", "AI_QUERY", 1, {"f": 0.5, "l": [1, {"d": []}]}),
     Event("user", "AI_QUERY", 1, {"f": 0.5, "l": [1, {"d": []}]})),
    (("user", "AI_QUERY", 1, OrderedDict(a=1)), Event("user", "AI_QUERY", 1, {"a": 1})),
    (("user", "AI_QUERY", 1, {"x": "y" * 8000}), Event("user", "AI_QUERY", 1, {"x": "y" * 8000})),
]  # fmt: skip

BAD: list[tuple[tuple[Any, ...], type[Exception], str]] = [
    ((None, "A"), TypeError, "user_id must be a str of 1 to 256 characters, not NoneType"),
    ((b"user", "A"), TypeError, "user_id must be a str of 1 to 256 characters, not bytes"),
    (("", "A"), ValueError, "user_id must have 1 to 256 characters, not 0"),
    (("u" * 257, "A"), ValueError, "user_id must have 1 to 256 characters, not 257"),
    (("\ud800", "A"), ValueError, "user_id must be valid Unicode text"),
    (("u", 5), TypeError, "event_type must be a str of 1 to 128 characters, not int"),
    (("u", Plain.NUMBER), TypeError, "event_type must be a str of 1 to 128 characters, not int"),
    (("u", ["A"]), TypeError, "event_type must be a str of 1 to 128 characters, not list"),
    (("u", "A" * 129), ValueError, "event_type must have 1 to 128 characters, not 129"),
    (
        ("u", "A", "1"),
        TypeError,
        "quantity must be an int, float or Decimal from 1E-9 to 1,000,000,000,000, not str",
    ),
    (("u", "A", True), TypeError, "quantity must be an int, float or Decimal .*, not bool"),
    (("u", "A", None), TypeError, "quantity must be .*, not NoneType"),
    (("u", "A", 0), ValueError, "quantity must be .*, not 0"),
    (("u", "A", -1), ValueError, "quantity must be .*, not -1"),
    (("u", "A", 10**12 + 1), ValueError, "quantity must be .*, not 1000000000001"),
    (("u", "A", float("nan")), ValueError, "quantity must be .*, not nan"),
    (("u", "A", float("inf")), ValueError, "quantity must be .*, not inf"),
    (("u", "A", Decimal("NaN")), ValueError, "quantity must be .*, not Decimal"),
    (("u", "A", 10**5000), ValueError, "quantity must be .*, not a value of type int"),
    (("u", "A", Decimal("1e-28")), ValueError, "quantity must be .*, not Decimal"),
    (("u", "A", 1, "x"), TypeError, "metadata must be a dict with str keys, or None, not str"),
    (("u", "A", 1, [("a", 1)]), TypeError, "metadata must be a dict with str keys, or None, not list"),
    (("u", "A", 1, {1: 2}), TypeError, "metadata must have str keys, not int"),
    (("u", "A", 1, {"x": object}), TypeError, r"metadata\['x'\] must be what JSON has .*, not type"),
    (("u", "A", 1, {"x": float("nan")}), ValueError, r"metadata\['x'\] must be a finite number, not nan"),
    (("u", "A", 1, {"x": 2**64}), ValueError, r"metadata\['x'\] must be an int from -2\*\*63 to 2\*\*64 - 1"),
    (("u", "A", 1, {"x": "\udfff"}), ValueError, r"metadata\['x'\] must be valid Unicode text"),
    (("u", "A", 1, {"x": "y" * 8190}), ValueError, "metadata must encode to at most 8,192 bytes, not 8,"),
    (("u", "A", 1, {"settle_mp": 1}), ValueError, r"metadata\['settle_mp'\] is reserved"),
]


def track_twice(client: Settle, arguments: tuple[Any, ...]) -> None:
    """Track by the slow path, which learns the event type, and then by the fast one if that takes it."""
    client.events.track(*arguments)
    client.events.track(*arguments)


@pytest.mark.parametrize(("arguments", "event"), GOOD)
def test_what_is_tracked_is_journaled(
    quiet: Settle, state_dir: Path, arguments: tuple[Any, ...], event: Event
) -> None:
    """The fast path and the slow one write the same event, exactly."""
    track_twice(quiet, arguments)
    found = reading.events(reading.only_journal(state_dir))
    assert found == [event, event]
    assert [type(each.quantity) for each in found] == [type(event.quantity)] * 2


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
def test_what_is_wrong_is_said(
    quiet: Settle, state_dir: Path, arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    """The message names the argument, what was given and what is allowed; the next event is not harmed."""
    for _ in range(2):  # the second time the event type is known by heart
        with pytest.raises(error, match=words):
            quiet.events.track(*arguments)
        quiet.events.track("u", "A")
    assert reading.users(reading.only_journal(state_dir)) == ["u", "u"]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
def test_count_keeps_quiet_and_counts(
    make_client: Callable[..., Settle],
    state_dir: Path,
    caplog: pytest.LogCaptureFixture,
    arguments: tuple[Any, ...],
    error: type[Exception],
    words: str,
) -> None:
    """With on_invalid="count" nothing is raised: what is wrong is counted as dropped, and logged once."""
    del error, words
    client = make_client(on_invalid="count")
    client.close(timeout=0)
    with caplog.at_level(logging.ERROR, "settle_mp"):
        for _ in range(3):
            client.events.track(*arguments)
            client.events.track("u", "A")
    slot = reading.slot(reading.only_journal(state_dir), "drops")
    assert (slot.dropped_count, slot.dropped_quantity) == (3, "0")
    assert [record.message for record in caplog.records] == ["event_refused"]
    assert reading.users(reading.only_journal(state_dir)) == ["u"] * 3


def test_an_exception_of_a_handler_is_no_bad_argument(make_client: Callable[..., Settle]) -> None:
    """Rule J2: with "count" as well, what the application's own code raises in there is the application's."""

    class Hostile(dict[str, Any]):
        def items(self) -> Any:
            raise ValueError("mine")

    client = make_client(on_invalid="count")
    client.close(timeout=0)
    with pytest.raises(ValueError, match="mine"):
        client.events.track("u", "A", 1, Hostile(a=1))


def test_disabled_takes_anything_and_writes_nothing(
    make_client: Callable[..., Settle], state_dir: Path
) -> None:
    """The setting makes events no-ops that return at once."""
    client = make_client(disabled=True)
    anything: Any = None
    client.events.track(anything, anything)
    assert bool(client.events.flush(timeout=0))
    assert client.events.pending_count == 0
    client.close()
    assert list(state_dir.iterdir()) == []


def test_more_event_types_than_are_known_by_heart(
    quiet: Settle, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that makes up event types takes no memory for each; all are journaled."""
    monkeypatch.setattr(tracks, "KNOWN_TYPES_MAX", 3)
    for number in range(10):
        track_twice(quiet, ("u", f"TYPE_{number}"))
    found = reading.events(reading.only_journal(state_dir))
    assert [event.event_type for event in found] == [f"TYPE_{n}" for n in range(10) for _ in range(2)]


def test_keywords_are_the_vendors(quiet: Settle, state_dir: Path) -> None:
    """The signature and its names are those of the vendor's SDK."""
    quiet.events.track(user_id="u", event_type="A", quantity=2, metadata={"k": "v"})
    assert reading.events(reading.only_journal(state_dir)) == [Event("u", "A", 2, {"k": "v"})]


def test_finalizers_that_track(quiet: Settle, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule J6: garbage is collected in the midst of `track()`, of its packing too, and finalizers track."""
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MIN", 16 * 1024)
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MAX", 16 * 1024)
    track = quiet.events.track
    returned: list[str] = []

    class Litter:
        def __init__(self) -> None:
            self.cycle = self

        def __del__(self) -> None:
            name = f"finalizer-{len(returned)}"
            track(name, "A", metadata={"a": 1, "b": "x" * 50})
            returned.append(name)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(1000):
            Litter()
            track(f"call-{number}", "A", metadata={"a": number, "b": "y" * 50, "c": [number]})
            returned.append(f"call-{number}")
        gc.collect()
    finally:
        gc.set_threshold(*before)
    assert len(returned) == 2000
    assert reading.all_users(state_dir) == sorted(returned)


@pytest.mark.parametrize("has_gil", [True, False])
def test_threads_and_acks_while_segments_change(
    quiet: Settle, state_dir: Path, monkeypatch: pytest.MonkeyPatch, *, has_gil: bool
) -> None:
    """Rule J6: four threads track, a fifth commits and frees; each event is counted once."""
    monkeypatch.setattr(segments, "HAS_GIL", has_gil)
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MIN", 8 * 1024)
    monkeypatch.setattr(journals, "SEGMENT_BYTES_MAX", 8 * 1024)
    quiet.events.track("first", "A")
    life = quiet.events._producer._mine()
    assert life is not None
    journal, is_over = life.journal, threading.Event()

    def work(number: int) -> None:
        for count in range(4000):
            quiet.events.track(f"{number}-{count}", "A", metadata={"x": "y" * (count % 50)})

    def commit() -> None:
        while not is_over.is_set():
            journal.commit(b"L" * 16, journal.tail)
            assert journal.pending_count >= 0

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        committer = threading.Thread(target=commit)
        for thread in [committer, *threads]:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        is_over.set()
        committer.join()
        sys.setswitchinterval(before)
    journal.commit(b"L" * 16, journal.tail)
    assert reading.slot(reading.only_journal(state_dir), "courier").events_count == 16001
    assert len(list(reading.only_journal(state_dir).glob("*.seg"))) == 1


def test_tracking_starts_and_waits_for_nothing_in_a_thread_that_died(quiet: Settle, state_dir: Path) -> None:
    """Rule J4: a fork while other threads are in the midst of `track()`: the child waits for none of them."""
    is_over = threading.Event()

    def work(number: int) -> None:
        count = 0
        while not is_over.is_set():
            quiet.events.track(f"parent-{number}-{count}", "A")
            count += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()

    def child() -> list[str]:
        for number in range(3):
            quiet.events.track(f"child-{number}", "A")
        life = quiet.events._producer._mine()
        assert life is not None
        return reading.users(state_dir / "journals" / life.journal.producer.hex())

    try:
        for _ in range(30):
            assert children.run(child) == ["child-0", "child-1", "child-2"]
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    reading.all_users(state_dir)
