"""Carrying what a dead producer left: what is said and sent, in which order, and when it is over."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.core import wire
from settle_mp.journals import segments
from settle_mp.worker import carrier as module
from settle_mp.worker.carrier import CREDIT_BYTES, Carrier
from settle_mp.worker.remains import Remains
from tests.collectors import folder_of, make_journal, track

if TYPE_CHECKING:
    from pathlib import Path

LEDGER = bytes(range(16))


class Script:
    """A link whose other side is a list of answers: each is given once the one before has been thought about.

    An answer may be a function of all that was said so far. At the list's end the process is asked to stop.
    """

    def __init__(self, *answers: Any) -> None:
        self.said: list[wire.Message | wire.Frame] = []
        self.is_over = False
        self.socket = self
        self._answers = collections.deque(answers)

    def send(self, frame: wire.Frame) -> bool:
        self.said.append(frame)
        return True

    def say(self, message: wire.Message) -> None:
        self.said.append(message)

    def heard(self) -> list[wire.Message]:
        if not self._answers:
            self.is_over = True
            return []
        answer = self._answers.popleft()
        answer = answer(self) if callable(answer) else answer
        return [] if answer is None else [answer]

    def poll(self, _: int) -> int:
        return 1

    @property
    def frames(self) -> list[wire.Frame]:
        return [each for each in self.said if isinstance(each, wire.Frame)]

    @property
    def sent(self) -> int:
        return self.frames[-1].last


def welcome(position: int = 0) -> wire.Welcome:
    """Begin here."""
    return wire.Welcome(LEDGER, position, is_seen=False)


def ack(position: int) -> wire.Ack:
    """So far."""
    return wire.Ack(LEDGER, position)


def ack_all(script: Script) -> wire.Ack:
    """All that was sent."""
    return ack(script.sent)


def carried(remains: Remains, *answers: Any) -> tuple[Script, bool, str]:
    """Carry, and return what was said, whether it is over, and why it was refused."""
    script = Script(*answers)
    carrier = Carrier(script, remains)  # type: ignore[arg-type]
    return script, carrier.run(lambda: script.is_over), carrier.refusal


@pytest.fixture
def folder(state_dir: Path) -> Path:
    """Leave a journal of 1.5 MB in several segments."""
    journal = make_journal(state_dir)
    for _ in range(60_000):
        track(journal, "ada")
    journal.close()
    return folder_of(state_dir, journal)


@pytest.fixture
def small(state_dir: Path) -> Path:
    """Leave a journal of three events."""
    journal = make_journal(state_dir, "ada", "bob", "cyd")
    journal.close()
    return folder_of(state_dir, journal)


def look(folder: Path) -> Remains:
    """Look at a journal."""
    return Remains(folder, folder.parent.parent / "quarantine")


def test_it_begins_where_the_collector_stands(small: Path) -> None:
    """Rule 1: not where the header says, which may lack the last acks."""
    remains = look(small)
    first = next(iter(remains.pieces(0)))
    assert isinstance(first, wire.Frame)
    position = first.last
    script, _, _ = carried(remains, None, welcome(position), None)
    assert script.frames == []
    assert isinstance(script.said[0], wire.Hello)
    assert isinstance(script.said[-1], wire.Goodbye)
    assert remains.committed == position


def test_nothing_is_said_but_hello_before_the_welcome(small: Path) -> None:
    """Rule 1: acks of the dead one's own frames are none."""
    script, _, _ = carried(look(small), None, ack(0), None, None)
    assert {type(each) for each in script.said} == {wire.Hello}


def test_no_more_than_the_credit_is_in_flight(folder: Path) -> None:
    """Rule 1: it bounds the collector's memory; acks make room for the rest."""
    remains = look(folder)
    script, _, _ = carried(remains, welcome(), None, None)
    assert CREDIT_BYTES // 2 < sum(len(frame.body) for frame in script.frames) <= CREDIT_BYTES
    script, _, _ = carried(remains, welcome(), ack_all, ack_all, ack_all)
    assert script.sent == remains.tail
    assert isinstance(script.said[-1], wire.Goodbye)


def test_a_loss_waits_for_what_is_before_it_and_holds_up_what_is_behind(folder: Path) -> None:
    """Rule 2: one connection may overtake the other, and the position would jump over events."""
    gone = segments(folder)[1]
    gone.path.unlink()
    start = gone.base
    script, _, _ = carried(look(folder), welcome(), None, None)
    assert script.sent == start
    assert not any(isinstance(each, wire.Lost) for each in script.said)
    script, _, _ = carried(look(folder), welcome(), ack(start), None, None)
    lost = script.said[-1]
    assert isinstance(lost, wire.Lost)
    assert lost.start == script.sent == start
    script, _, _ = carried(look(folder), welcome(start), None, None)
    assert script.frames == []
    script, _, _ = carried(look(folder), welcome(start), ack(lost.end), None)
    assert script.frames[0].first == lost.end


def test_it_goes_back_when_it_is_asked_to(small: Path) -> None:
    """A new collector may have less than was sent to the old one."""
    script, _, _ = carried(look(small), welcome(), wire.GoBack(0), None)
    assert [frame.first for frame in script.frames] == [0, 0]


def test_the_past_is_not_sent_again(small: Path) -> None:
    """What a ledger has acknowledged may be billed: a ledger that went back in time gets nothing more."""
    remains = look(small)
    remains.commit(LEDGER, remains.tail)
    for answer in (welcome(), wire.GoBack(0)):
        script, is_over, refusal = carried(remains, welcome(remains.tail), answer, None)
        assert not is_over
        assert "acknowledged before" in refusal
        assert script.frames == []


def test_only_the_farewell_ends_it(small: Path) -> None:
    """Rule 3: the folder may go only when the goodbye, and the drops in it, are in the ledger."""
    script, is_over, _ = carried(look(small), welcome(), ack_all, None, None)
    assert isinstance(script.said[-1], wire.Goodbye)
    assert script.said[-1].is_over
    assert not is_over
    assert carried(look(small), welcome(script.sent), wire.Farewell())[1]


def test_a_refusal_ends_it_at_once(small: Path) -> None:
    """The next journal has its turn; this one stays."""
    _, is_over, refusal = carried(look(small), wire.Refused("another key mode"), None)
    assert not is_over
    assert "another key mode" in refusal


def test_a_silent_collector_is_not_waited_for_for_ever(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is let go of, and the journal stays for the next look."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    script, is_over, refusal = carried(look(small), None, None, None)
    assert (is_over, refusal) == (False, "")
    assert not script.is_over


def test_a_host_wide_flush_hears_how_far_it_goes(small: Path) -> None:
    """It waits for what is on its way, like that of the living."""
    remains = look(small)
    script, _, _ = carried(remains, welcome(), wire.AskPosition(7), None)
    assert wire.Position(remains.producer, 7, remains.tail) in script.said
