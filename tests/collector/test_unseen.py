"""Producers with journals on other hosts: what the collector knows of them, and when it forgets (rule L4)."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from settle_mp.collector import parts as parts_module
from settle_mp.core import wire
from settle_mp.worker.remains import Remains
from tests.collectors import Bench, bench, folder_of, make_journal
from tests.upstreams import upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.upstreams import Upstream

__all__ = ["upstream"]


class Elsewhere:
    """A dead producer's journal on another host, and what its heir says."""

    def __init__(self, made: Bench, folder: Path) -> None:
        self.made = made
        self.remains = Remains(folder, folder.parent / "quarantine")
        self.producer = self.remains.producer

    def say(self, message: wire.Message | wire.Frame) -> list[wire.Message]:
        """Say something under the dead one's name; returns what it is told."""
        parts = self.made.parts
        if isinstance(message, wire.Frame):
            answer = parts.reception.take_frame(message)
            return [] if answer is None else [answer]
        answers = parts.answer(self.producer, message)
        assert all(identity == self.producer for identity, _ in answers)
        return [answer for _, answer in answers]

    def greet(self) -> list[wire.Message]:
        """Say hello, and have it committed."""
        remains = self.remains
        answers = self.say(wire.Hello(self.producer, remains.tail, remains.image, is_volatile=False))
        self.made.parts.reception.commit()
        return answers

    def carry(self) -> None:
        """Have everything committed."""
        self.greet()
        for piece in self.remains.pieces(self.position):
            assert not [a for a in self.say(piece) if isinstance(a, (wire.Refused, wire.GoBack))]
            self.made.parts.reception.commit()

    def goodbye(self, *, is_over: bool = True, dropped_count: int = 0) -> list[wire.Message]:
        """Say goodbye, and have it committed."""
        said = wire.Goodbye(
            self.producer, self.remains.tail, dropped_count, f"{dropped_count}", is_over=is_over
        )
        answers = self.say(said)
        self.made.parts.reception.commit()
        return answers

    @property
    def position(self) -> int:
        """How far the ledger has committed it."""
        return self.made.parts.state.members[self.producer].position

    @property
    def is_known(self) -> bool:
        """Whether the ledger has a row of it."""
        return self.producer in self.made.parts.state.ledger.producers()


@pytest.fixture
def parts(state_dir: Path, upstream: Upstream) -> Iterator[Bench]:
    """A collector's parts."""
    with bench(state_dir, upstream) as made:
        yield made


@pytest.fixture
def elsewhere(parts: Bench) -> Iterator[Elsewhere]:
    """A dead producer's journal with three events, in another state folder."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smp-", dir="/tmp")))
        journal = make_journal(folder, "ada", "bob", "cyd")
        journal.close()
        yield Elsewhere(parts, folder_of(folder, journal))


def wait_and_forget(made: Bench, monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Let days pass, and have the collector forget whom it may."""
    later_s = days * 24 * 3600
    for more_s in (later_s, later_s + 25 * 3600):
        clock = SimpleNamespace(
            monotonic=partial(lambda more_s: time.monotonic() + more_s, more_s),
            time=partial(lambda more_s: time.time() + more_s, more_s),
        )
        with monkeypatch.context() as patch:
            patch.setattr(parts_module, "time", clock)
            made.parts.forget()


def test_it_is_welcomed_as_one_that_is_not_seen(elsewhere: Elsewhere) -> None:
    """By that its heir knows that it is needed; it is as durable as any."""
    assert elsewhere.greet() == []
    (welcome,) = elsewhere.greet()
    assert welcome == wire.Welcome(elsewhere.made.parts.state.ledger.id, 0, is_seen=False)
    row = elsewhere.made.parts.state.ledger.producers()[elsewhere.producer]
    assert (row.is_unseen, row.is_volatile) == (True, False)


def test_a_journal_here_is_seen(parts: Bench, state_dir: Path) -> None:
    """Its collector reads it itself."""
    journal = make_journal(state_dir, "ada")
    hello = wire.Hello(journal.producer, journal.tail, journal.header.image, is_volatile=False)
    parts.parts.answer(journal.producer, hello)
    parts.parts.reception.commit()
    ((_, welcome),) = parts.parts.answer(journal.producer, hello)
    assert isinstance(welcome, wire.Welcome)
    assert welcome.is_seen
    journal.close()


def test_no_scan_takes_it_for_gone(elsewhere: Elsewhere) -> None:
    """Rule L4: that no folder is here says nothing of one that never had one here."""
    elsewhere.carry()
    elsewhere.made.take_in()
    assert not elsewhere.made.parts.state.members[elsewhere.producer].is_gone


def test_its_heir_is_answered_once_its_goodbye_is_committed(elsewhere: Elsewhere) -> None:
    """Rule L4: only then may the folder go; what was dropped is in the ledger by then."""
    elsewhere.carry()
    assert elsewhere.goodbye(dropped_count=7) == []
    assert elsewhere.made.parts.reception.departed == [elsewhere.producer]
    row = elsewhere.made.parts.state.ledger.producers()[elsewhere.producer]
    assert row.gone_s is not None
    assert row.dropped.events == 7


def test_a_goodbye_before_its_events_is_none(elsewhere: Elsewhere) -> None:
    """Rule L4: a ledger that does not have everything asks for it instead."""
    elsewhere.greet()
    assert elsewhere.goodbye() == [wire.GoBack(0)]
    assert elsewhere.made.parts.state.ledger.producers()[elsewhere.producer].gone_s is None


def test_a_worker_that_ends_with_something_left_is_not_over(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule L4: its heir may come days later, and its last acks may not have reached its header."""
    elsewhere.greet()
    assert elsewhere.goodbye(is_over=False, dropped_count=2) == []
    wait_and_forget(elsewhere.made, monkeypatch, days=10)
    assert elsewhere.is_known
    assert elsewhere.made.parts.state.ledger.producers()[elsewhere.producer].dropped.events == 2


def test_a_worker_that_ends_with_nothing_left_is_forgotten_like_others(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule L4: where workers come and go, rows must not pile up; one that goes on after all is taken back."""
    elsewhere.carry()
    elsewhere.goodbye(is_over=False)
    elsewhere.made.ship()
    elsewhere.made.parts.forget()
    assert elsewhere.is_known
    wait_and_forget(elsewhere.made, monkeypatch, days=2)
    assert not elsewhere.is_known


def test_it_is_forgotten_a_day_after_it_is_over(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule L4: late enough for an heir that died before it had removed the folder."""
    elsewhere.carry()
    elsewhere.goodbye()
    elsewhere.made.ship()
    elsewhere.made.parts.forget()
    assert elsewhere.is_known
    wait_and_forget(elsewhere.made, monkeypatch, days=2)
    assert not elsewhere.is_known


def test_what_was_silent_for_too_long_waits_for_a_person(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule L4: with its row gone, its header may be older than what was billed."""
    elsewhere.carry()
    elsewhere.made.ship()
    elsewhere.remains.commit(elsewhere.made.parts.state.ledger.id, elsewhere.remains.tail // 2)
    wait_and_forget(elsewhere.made, monkeypatch, days=40)
    assert not elsewhere.is_known
    again = Elsewhere(elsewhere.made, elsewhere.remains._folder)
    (refused,) = again.greet()
    assert isinstance(refused, wire.Refused)
    assert "settle-mp adopt" in refused.reason
    assert not again.is_known


def test_one_with_nothing_new_comes_back_whenever_it_likes(
    elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule L4: where the header has everything, nothing can be taken twice."""
    elsewhere.carry()
    elsewhere.made.ship()
    elsewhere.remains.commit(elsewhere.made.parts.state.ledger.id, elsewhere.remains.tail)
    wait_and_forget(elsewhere.made, monkeypatch, days=40)
    again = Elsewhere(elsewhere.made, elsewhere.remains._folder)
    assert again.greet() == []
    assert again.position == again.remains.tail


def test_without_a_header_it_waits_for_a_person(elsewhere: Elsewhere) -> None:
    """Rule L3: nobody can know what was taken of it."""
    (elsewhere.remains._folder / "header").unlink()
    again = Elsewhere(elsewhere.made, elsewhere.remains._folder)
    (refused,) = again.greet()
    assert isinstance(refused, wire.Refused)
    assert "header" in refused.reason


def test_a_loss_is_named_once_and_stepped_over(elsewhere: Elsewhere) -> None:
    """Rule J3: it moves the position, is one residue however often it is told, and waits its turn."""
    elsewhere.greet()
    late = wire.Lost(elsewhere.producer, 50, 90, "40 bytes at position 50 can't be read")
    assert elsewhere.say(late) == [wire.GoBack(0)]
    lost = wire.Lost(elsewhere.producer, 0, 90, "90 bytes at position 0 can't be read")
    for _ in range(3):
        elsewhere.say(lost)
        elsewhere.made.parts.reception.commit()
    assert elsewhere.position == 90
    (fault,) = elsewhere.made.faults()
    assert "90 bytes at position 0 can't be read" in fault
    answer = wire.Ack(elsewhere.made.parts.state.ledger.id, 90)
    assert elsewhere.say(lost) == [answer]


def test_a_loss_of_nobody_is_refused(elsewhere: Elsewhere) -> None:
    """Whoever never said hello moves no position, nor does a loss that ends before it begins."""
    elsewhere.say(wire.Lost(elsewhere.producer, 0, 90, "x"))
    elsewhere.greet()
    elsewhere.say(wire.Lost(elsewhere.producer, 90, 0, "x"))
    assert elsewhere.position == 0
    assert elsewhere.made.faults() == []


def test_drops_of_a_living_one_are_taken_from_its_hello(elsewhere: Elsewhere) -> None:
    """Promise 3: its header is nowhere else to be seen."""
    elsewhere.greet()
    journal = make_journal(elsewhere.remains._folder.parent.parent, "dan")
    journal.drop(Decimal("2.5"))
    hello = wire.Hello(journal.producer, journal.tail, journal.header.image, is_volatile=False)
    for _ in range(2):
        elsewhere.made.parts.answer(journal.producer, hello)
        elsewhere.made.parts.reception.commit()
    dropped = elsewhere.made.parts.state.ledger.producers()[journal.producer].dropped
    assert (dropped.events, str(dropped.quantity)) == (1, "2.5")
    journal.close()
