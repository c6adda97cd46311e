"""The collector's memory: what is read again is what was there, and an error leaves it where it was."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp.collector import state as module
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.reception import Reception
from settle_mp.collector.state import State
from settle_mp.core.event import pack_event
from settle_mp.core.record import Slot, encode_record, segment_seed
from settle_mp.core.rules import MetadataRule
from settle_mp.core.ticket import Seal
from settle_mp.core.window import HOUR_S, draft_batches
from settle_mp.core.wire import Frame
from settle_mp.journals import Header
from tests.collector.journal_files import NOT_AN_EVENT, TIME_S, mark
from tests.collector.ledgers import (
    FailingConnection,
    open_ledger,
    producer_id,
    put_connection,
    real_connection,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RULES = {"PDF_EXPORT": MetadataRule(sum=frozenset({"cost"}))}
NO_SLOT = Slot()


class Counter:
    """A state with all that changes it, as the loop does."""

    def __init__(self, folder: Path, *, dice: random.Random | None = None) -> None:
        self.ledger = open_ledger(folder)
        self.state = State(self.ledger, Decoder(RULES))
        self.reception = Reception(self.state, folder / "journals", frozenset())
        self.dice = dice or random.Random(0)  # noqa: S311  a test's dice
        self.numbers: list[int] = []

    # --- What comes in ---

    def greet(self, *, position: int = 0) -> int:
        """A new producer; returns its number."""
        number = len(self.numbers) + 1
        slot = Slot(sequence=1, ledger=self.ledger.id, position=position, events_count=position // 10)
        header = Header(identity=None, courier=slot, drops=NO_SLOT, collector=NO_SLOT)
        assert not self.reception.greet(producer_id(number), header, is_volatile=number % 2 == 0)
        self.numbers.append(number)
        return number

    def take(self, number: int, payloads: list[bytes], at_s: float = TIME_S) -> None:
        """A frame of a producer."""
        producer = producer_id(number)
        first = self.reception.position(producer)
        seed = segment_seed(producer, 0)
        body = b"".join(encode_record(payload, seed, first) for payload in payloads)
        assert (
            self.reception.take_frame(Frame(producer=producer, first=first, base=0, cut_s=at_s, body=body))
            is None
        )

    def take_some(self) -> None:
        """A frame of anybody, with anything in it."""
        if self.numbers:
            payloads = [self._payload() for _ in range(self.dice.randrange(1, 6))]
            at_s = TIME_S + self.dice.choice([0, 1, 2, HOUR_S, 2 * HOUR_S + 0.5])
            self.take(self.dice.choice(self.numbers), payloads, at_s)

    def _payload(self) -> bytes:
        return self.dice.choice(
            [
                mark(),
                NOT_AN_EVENT,
                pack_event("ada", "AI_QUERY", self.dice.choice([1, 2, 0.1, 10**12]), None),
                pack_event("bob", "AI_QUERY", 1, {"model": self.dice.choice(["a", 1, 1.0])}),
                pack_event("bob", "PDF_EXPORT", 1, {"cost": self.dice.choice([1, 0.1])}),
                pack_event("bob", "PDF_EXPORT", 1, {"cost": "dear"}),
            ]
        )

    def commit(self) -> None:
        """Commit what is gathered."""
        if self.reception.is_gathering:
            self.reception.commit()

    # --- What goes out ---

    def compact(self) -> None:
        """Let sums take the place of frames."""
        self.ledger.compact(self.state.windows, TIME_S)

    def seal(self) -> None:
        """Seal all that is open."""
        state = self.state
        drafts = [
            draft
            for window in state.windows
            for draft in draft_batches(window, rows_max=2, is_annotated=True)
        ]
        reaches = state.reaches()
        sealed = self.ledger.seal(drafts, reaches, TIME_S)
        state.seals.add(Seal(sealed.number, reaches, set(sealed.batches)))
        state.sealed(sealed.number)

    def settle(self) -> None:
        """Let the upstream accept or refuse the oldest batch."""
        outbox, seals = self.ledger.outbox, self.state.seals
        for batch in outbox.due(time.time(), 1):
            outbox.mark_attempting([batch.id], TIME_S)
            if self.dice.random() < 0.6:
                outbox.settle(batch.id, TIME_S)
                seals.settle(batch.seal, batch.id)
            else:
                troubles = seals.troubled_by(batch.seal, batch.events_count, "refused")
                outbox.dead_letter(batch.id, reason="refused", now_s=TIME_S, troubles=troubles)
                seals.troubles.update(troubles)
                seals.settle(batch.seal, batch.id, failed_count=batch.events_count)

    def tell(self) -> None:
        """A producer is told its trouble."""
        for producer in list(self.state.seals.troubles)[:1]:
            self.ledger.take_trouble(producer)
            self.state.seals.take_trouble(producer)


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    """A state on a new ledger."""
    made = Counter(tmp_path)
    yield made
    made.ledger.close()


def image(state: State) -> dict[str, Any]:
    """All that matters of a state, as plain values."""
    return {
        "members": {
            each.id: (
                each.name,
                each.position,
                each.sealed_position,
                each.open_events_count,
                each.counted_events,
                each.is_volatile,
                each.is_gone,
            )
            for each in state.members.values()
        },
        "windows": {
            window.hour: (
                {key: (entry.count, entry.quantity, entry.sums) for key, entry in window.entries.items()},
                window.events_count,
                window.first_s,
                window.last_s,
            )
            for window in state.windows
        },
        "seals": {
            seal.number: (dict(seal.reaches), seal.batches, seal.failed_count)
            for seal in state.seals._seals.values()
        },
        "troubles": state.seals.troubles,
    }


def again(counter: Counter) -> dict[str, Any]:
    """What another process would read of the same ledger."""
    return image(State(counter.ledger, Decoder(RULES)))


@pytest.mark.parametrize("seed", range(12))
def test_what_is_read_again_is_what_was_there(tmp_path: Path, seed: int) -> None:
    """Rule L1: after any commits, compactions, seals and answers, a reload changes nothing."""
    counter = Counter(tmp_path, dice=random.Random(seed))  # noqa: S311  a test's dice
    steps: list[Callable[[], object]] = [
        *[counter.take_some] * 6,
        *[counter.commit] * 4,
        lambda: counter.greet(position=10 * counter.dice.randrange(5)),
        counter.compact,
        counter.seal,
        *[counter.settle] * 2,
        counter.tell,
    ]
    counter.greet()
    seen = 0
    for _ in range(60):
        counter.dice.choice(steps)()
        assert again(counter) == image(counter.state)
        seen += bool(counter.state.windows) and bool(counter.state.seals._seals)
    assert seen
    before = image(counter.state)
    counter.state.load(in_flight=())
    assert image(counter.state) == before
    counter.ledger.close()


@pytest.mark.parametrize("is_after", [False, True])
def test_an_error_of_the_ledger_leaves_memory_where_it_was(
    counter: Counter,
    is_after: bool,  # noqa: FBT001
) -> None:
    """Rule L1: memory never runs ahead: whichever statement fails, only what was committed is applied."""
    number = counter.greet()
    counter.take(number, [pack_event("ada", "AI_QUERY", 1, None)])
    counter.commit()
    before, real = image(counter.state), real_connection(counter.ledger)
    failed = undone = 0
    for fails_at in range(1, 60):
        failing = FailingConnection(real, fails_at, is_after=is_after)
        put_connection(counter.ledger, failing)
        counter.take(number, [pack_event("ada", "AI_QUERY", 1, None), NOT_AN_EVENT])
        try:
            counter.reception.commit()
        except LedgerError as error:
            failed += 1
            put_connection(counter.ledger, real)
            if error.is_outcome_unknown:
                counter.ledger.reopen()
                real = real_connection(counter.ledger)
            committed = again(counter)
            # As before, or all of it: what failed may have come after the commit.
            assert image(counter.state) in (before, committed)
            undone += committed == before
            counter.reception.drop()
            counter.state.load(in_flight=())
            assert image(counter.state) == committed
            before = committed
        else:
            assert failing.failed is None
            break
    put_connection(counter.ledger, real)
    assert failed >= 4
    assert undone >= 4
    assert image(counter.state) != before
    assert image(counter.state) == again(counter)


def test_a_run_without_events_opens_no_window(counter: Counter) -> None:
    """Rule L1: marks and refused events advance the position and are in no sum, before and after a reload."""
    number = counter.greet()
    counter.take(number, [mark(), NOT_AN_EVENT])
    counter.commit()
    assert not counter.state.windows
    member = counter.state.members[producer_id(number)]
    assert (member.position > 0, member.open_events_count, member.counted_events) == (True, 0, 1)
    assert again(counter) == image(counter.state)


def test_a_reload_remembers_who_was_heard(counter: Counter) -> None:
    """The ledger does not know who spoke when, nor our last word in a header: that stays in memory."""
    number = counter.greet()
    counter.commit()
    member = counter.state.members[producer_id(number)]
    member.heard_s, member.header_sequence = 7.0, 3
    counter.state.load(in_flight=())
    member = counter.state.members[producer_id(number)]
    assert (member.heard_s, member.header_sequence) == (7.0, 3)


def test_what_was_under_way_is_in_doubt_after_a_load_except_what_still_is(counter: Counter) -> None:
    """Rule D1: what is `attempting` and nobody works on may have been applied; what is in flight waits."""
    number, batches = counter.greet(), []
    for _ in range(2):
        counter.take(number, [pack_event("ada", "AI_QUERY", 1, None)])
        counter.commit()
        counter.seal()
        (batch,) = counter.ledger.outbox.due(time.time(), 1)
        counter.ledger.outbox.mark_attempting([batch.id], TIME_S)
        batches.append(batch.id)
    counter.state.load(in_flight=batches[:1])
    doubts = [counter.ledger.outbox.get(each).first_in_doubt_s is not None for each in batches]
    assert doubts == [False, True]
    State(counter.ledger, Decoder(RULES))
    assert counter.ledger.outbox.get(batches[0]).first_in_doubt_s is not None


def test_the_number_of_the_latest_seal_does_not_fall(counter: Counter) -> None:
    """A flush waits for seals up to it, also when all of them are settled."""
    number = counter.greet()
    for expected in (1, 2):
        counter.take(number, [pack_event("ada", "AI_QUERY", 1, None)])
        counter.commit()
        counter.seal()
        assert counter.state.seal_number == expected
    assert State(counter.ledger, Decoder(RULES)).seal_number == 2
    outbox = counter.ledger.outbox
    later = outbox.due(time.time(), 2)[-1]
    outbox.mark_attempting([later.id], TIME_S)
    outbox.settle(later.id, TIME_S)
    counter.state.load(in_flight=())
    assert counter.state.seal_number == 2
    while counter.state.seals.is_waiting(2):
        counter.settle()
    counter.state.load(in_flight=())
    assert counter.state.seal_number == 2


def test_hours_are_bounded(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 3: with an upstream down for weeks later hours share the newest window; none is lost."""
    monkeypatch.setattr(module, "HOURS_MAX", 3)
    number = counter.greet()
    for hour in range(6):
        counter.take(number, [pack_event("ada", "AI_QUERY", 1, None)], TIME_S + hour * HOUR_S)
        counter.commit()
    first = int(TIME_S // HOUR_S)
    counts = {window.hour - first: window.events_count for window in counter.state.windows}
    assert counts == {0: 1, 1: 1, 2: 4}
    assert again(counter) == image(counter.state)


def test_time_never_jumps(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wall clock that is set moves nothing that is scheduled."""
    before_s = counter.state.now_s()
    assert abs(before_s - time.time()) < 60
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert before_s <= counter.state.now_s() < before_s + 60
