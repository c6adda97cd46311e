"""A flush says settled when that is so, waits for nothing later, and hears of each trouble once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
)

from settle_mp.core.ticket import Reach, Seal, SealBook, Standing, Trouble

A, B = b"a" * 16, b"b" * 16
SETTLED = Standing(0, 0, "")


def book_with(*seals: Seal) -> SealBook:
    """A book of these seals."""
    book = SealBook()
    for seal in seals:
        book.add(seal)
    return book


def fail(book: SealBook, number: int, batch: int, events_count: int, reason: str = "refused") -> None:
    """What the collector does with a batch that is dead-lettered or held."""
    book.troubles.update(book.troubled_by(number, events_count, reason))
    book.settle(number, batch, failed_count=events_count)


def test_a_flush_of_nothing_is_settled() -> None:
    """At position 0, and of what was settled long ago."""
    book = SealBook()
    assert book.standing(A, 0, sealed=0, open_events_count=0) == SETTLED
    assert book.standing(A, 500, sealed=500, open_events_count=0) == SETTLED
    assert SETTLED.is_final


def test_a_flush_waits_for_what_is_not_sealed() -> None:
    """Only when something before its position is not."""
    book = SealBook()
    assert book.standing(A, 500, sealed=400, open_events_count=7) == Standing(7, 0, "")
    assert not book.standing(A, 500, sealed=400, open_events_count=7).is_final
    assert book.standing(A, 400, sealed=400, open_events_count=7) == SETTLED


def test_marks_alone_need_no_seal() -> None:
    """Bytes without an event in them are settled as they are."""
    assert SealBook().standing(A, 500, sealed=400, open_events_count=0) == SETTLED


def test_a_flush_waits_for_each_batch_of_its_seals() -> None:
    """Which batch holds whose events is not known, so all must be settled."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4), B: Reach(0, 50, 2)}, {10, 11}))
    assert book.standing(A, 100, sealed=100, open_events_count=0) == Standing(4, 0, "")
    assert not book.settle(1, 10)
    assert book.standing(A, 100, sealed=100, open_events_count=0) == Standing(4, 0, "")
    assert book.standing(B, 1, sealed=50, open_events_count=0) == Standing(2, 0, "")
    assert book.settle(1, 11)
    assert book.standing(A, 100, sealed=100, open_events_count=0) == SETTLED


def test_a_flush_waits_for_no_later_seal() -> None:
    """A busy host goes on sealing; what begins at the position is not before it."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4)}, {10}), Seal(2, {A: Reach(100, 200, 5)}, {20}))
    assert book.standing(A, 100, sealed=200, open_events_count=9) == Standing(4, 0, "")
    assert book.standing(A, 101, sealed=200, open_events_count=9) == Standing(9, 0, "")
    book.settle(1, 10)
    assert book.standing(A, 100, sealed=200, open_events_count=9) == SETTLED


def test_a_flush_waits_for_no_other_producers_seal() -> None:
    """Nor for one that holds only marks of its own."""
    book = book_with(Seal(1, {B: Reach(0, 100, 4), A: Reach(0, 30, 0)}, {10}))
    assert book.standing(A, 100, sealed=100, open_events_count=0) == SETTLED


def test_children_stand_for_their_batch() -> None:
    """The seal is done when all of them are; a batch that is not its own changes nothing."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4)}, {10}))
    book.replace_batch(1, 10, {11, 12})
    book.replace_batch(1, 99, {98})
    book.replace_batch(7, 11, {13})
    assert not book.settle(1, 10)
    assert not book.settle(1, 12)
    assert book.settle(1, 11)
    assert book.standing(A, 100, sealed=100, open_events_count=0) == SETTLED


def test_a_batch_without_children_is_settled() -> None:
    """Nothing waits for it for ever."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4)}, {10}))
    book.replace_batch(1, 10, set())
    assert book.standing(A, 100, sealed=100, open_events_count=0) == SETTLED
    assert not book.is_waiting(1)


def test_a_seal_without_batches_is_not_kept() -> None:
    """There is nothing to wait for."""
    book = book_with(Seal(1, {A: Reach(0, 100, 0)}))
    assert not book.is_waiting(1)
    assert book.settle(1, 10)


def test_a_failed_batch_is_told_at_once_and_once() -> None:
    """While others are in flight, with the reason; then flushes are about the rest."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4), B: Reach(0, 50, 2)}, {10, 11}))
    fail(book, 1, 10, 3, "the upstream refused a row")
    told = book.standing(A, 100, sealed=100, open_events_count=0)
    assert told == Standing(4, 3, "the upstream refused a row")
    assert told.is_final
    book.take_trouble(A)
    assert book.standing(A, 100, sealed=100, open_events_count=0) == Standing(1, 0, "")
    book.settle(1, 11)
    assert book.standing(A, 100, sealed=100, open_events_count=0) == SETTLED
    # B hears of it when it flushes, of no more than it has.
    assert book.standing(B, 50, sealed=50, open_events_count=0) == Standing(
        2, 2, "the upstream refused a row"
    )
    book.take_trouble(B)
    assert book.standing(B, 50, sealed=50, open_events_count=0) == SETTLED


def test_a_flush_of_what_came_before_hears_nothing() -> None:
    """Its events are not among those that failed."""
    book = book_with(Seal(2, {A: Reach(100, 200, 4)}, {20}))
    fail(book, 2, 20, 4)
    assert book.standing(A, 100, sealed=200, open_events_count=0) == SETTLED
    assert book.standing(A, 101, sealed=200, open_events_count=0) == Standing(4, 4, "refused")


def test_troubles_add_up_until_they_are_told() -> None:
    """From the earliest start, with the latest reason."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4)}, {10}), Seal(2, {A: Reach(100, 200, 5)}, {20}))
    fail(book, 2, 20, 5, "second")
    fail(book, 1, 10, 4, "first")
    assert book.troubles == {A: Trouble(0, 9, "first")}


def test_a_producer_without_events_in_a_seal_is_not_troubled() -> None:
    """It covers some of its bytes, but nothing that could have failed."""
    book = book_with(Seal(1, {A: Reach(0, 100, 0), B: Reach(0, 50, 2)}, {10}))
    assert book.troubled_by(1, 5, "refused") == {B: Trouble(0, 2, "refused")}
    assert book.troubled_by(2, 5, "refused") == {}


def test_a_seal_knows_whom_it_covers() -> None:
    """It waits with nothing of anybody else."""
    seal = Seal(1, {A: Reach(0, 100, 4)}, {10})
    assert (seal.waiting_count(A), seal.waiting_count(B)) == (4, 0)


def test_asking_who_is_troubled_changes_nothing() -> None:
    """The ledger writes it first."""
    book = book_with(Seal(1, {A: Reach(0, 100, 4)}, {10}))
    book.troubled_by(1, 5, "refused")
    assert book.troubles == {}
    assert book.standing(A, 100, sealed=100, open_events_count=0) == Standing(4, 0, "")


def test_taking_no_trouble_is_allowed() -> None:
    """A producer that has none."""
    SealBook().take_trouble(A)


@pytest.mark.parametrize(
    ("standing", "is_final"),
    [
        (Standing(0, 0, ""), True),
        (Standing(1, 0, ""), False),
        (Standing(1, 1, "refused"), True),
        (Standing(5, 1, "refused"), True),
        (Standing(0, 0, "not yet committed"), False),
    ],
)
def test_waiting_goes_on_while_it_can_change_something(standing: Standing, is_final: bool) -> None:  # noqa: FBT001
    """Settled is final, failed is final, anything else may still become settled."""
    assert standing.is_final is is_final


def test_a_host_waits_up_to_a_seal() -> None:
    """A host-wide flush is about the seals that exist when it is asked."""
    book = book_with(Seal(4, {A: Reach(0, 100, 4)}, {40}), Seal(6, {A: Reach(100, 200, 4)}, {60}))
    assert [book.is_waiting(number) for number in (3, 4, 5, 6, 7)] == [False, True, True, True, True]
    book.settle(4, 40)
    assert [book.is_waiting(number) for number in (4, 5, 6)] == [False, False, True]


# --- Against a model that knows each event ---


@dataclass
class Tracked:
    """One event of the model: where it stands, and which batch of which seal holds it."""

    position: int
    seal: int = 0
    batch: int = 0
    #: open, sealed, confirmed or failed.
    state: str = "open"
    is_told: bool = False


@dataclass
class Source:
    """One producer of the model: all its events, and how far they are committed and sealed."""

    events: list[Tracked] = field(default_factory=list)
    committed: int = 0
    sealed: int = 0

    def before(self, position: int, *states: str) -> list[Tracked]:
        """Its events before a position that are in one of these states."""
        return [event for event in self.events if event.position < position and event.state in states]


class Flushes(RuleBasedStateMachine):
    """Producers track, the collector seals, batches go every way they can, anybody flushes at any time."""

    batches = Bundle("batches")
    producers = st.sampled_from([A, B, b"c" * 16])

    def __init__(self) -> None:
        super().__init__()
        self.book = SealBook()
        self.sources: dict[bytes, Source] = {}
        self.seals: dict[int, dict[bytes, Reach]] = {}
        self.unsettled: dict[int, set[int]] = {}
        #: Where the seals begin that had failures since the producer was last told.
        self.failed_starts: dict[bytes, list[int]] = {}
        #: Who was told of a failure.
        self.told: set[bytes] = set()
        self.batches_count = 0

    def new_batch(self) -> int:
        """A number that no batch has had."""
        self.batches_count += 1
        return self.batches_count

    def held_by(self, batch: int) -> list[Tracked]:
        """The events in a batch."""
        return [event for source in self.sources.values() for event in source.events if event.batch == batch]

    @rule(producer=producers, count=st.integers(0, 3), mark=st.booleans())
    def track(self, producer: bytes, count: int, mark: bool) -> None:  # noqa: FBT001
        """Commit some events of a producer, with a time mark before them or not."""
        source = self.sources.setdefault(producer, Source())
        source.committed += 9 * mark
        for _ in range(count):
            source.events.append(Tracked(source.committed))
            source.committed += 10

    @rule(target=batches, data=st.data())
    def seal(self, data: st.DataObject) -> Any:
        """Seal all that is open into some batches."""
        number = len(self.seals) + 1
        opened = [
            event for source in self.sources.values() for event in source.events if event.state == "open"
        ]
        reaches = {
            producer: Reach(source.sealed, source.committed, len(source.before(source.committed, "open")))
            for producer, source in self.sources.items()
            if source.sealed < source.committed
        }
        made = [self.new_batch() for _ in range(data.draw(st.integers(1, 4)))]
        for event in opened:
            event.seal, event.batch, event.state = number, data.draw(st.sampled_from(made)), "sealed"
        used = {event.batch for event in opened}
        for source in self.sources.values():
            source.sealed = source.committed
        self.seals[number] = reaches
        if used:
            self.unsettled[number] = set(used)
        self.book.add(Seal(number, reaches, set(used)))
        return multiple(*((number, batch) for batch in used))

    @rule(batch=consumes(batches))
    def confirm(self, batch: tuple[int, int]) -> None:
        """The upstream accepted it."""
        for event in self.held_by(batch[1]):
            event.state = "confirmed"
        assert self.book.settle(*batch) == self.done(*batch)

    @rule(batch=consumes(batches), reason=st.sampled_from(["refused", "held"]))
    def fail(self, batch: tuple[int, int], reason: str) -> None:
        """It was dead-lettered or is held."""
        number, held = batch[0], self.held_by(batch[1])
        troubles = self.book.troubled_by(number, len(held), reason)
        covered = {producer: reach for producer, reach in self.seals[number].items() if reach.events_count}
        assert troubles.keys() == covered.keys()
        for producer, reach in covered.items():
            self.failed_starts.setdefault(producer, []).append(reach.start)
            before = self.book.troubles.get(producer, Trouble(0, 0, ""))
            assert (
                1
                <= troubles[producer].events_count - before.events_count
                <= min(len(held), reach.events_count)
            )
            assert troubles[producer].start == min(self.failed_starts[producer])
            assert troubles[producer].reason == reason
        for event in held:
            event.state = "failed"
        self.book.troubles.update(troubles)
        assert self.book.settle(*batch, failed_count=len(held)) == self.done(*batch)

    def done(self, number: int, batch: int) -> bool:
        """Take a batch off the model's list; whether its seal has no other."""
        self.unsettled[number].discard(batch)
        if self.unsettled[number]:
            return False
        del self.unsettled[number]
        return True

    @rule(target=batches, batch=consumes(batches), data=st.data())
    def divide(self, batch: tuple[int, int], data: st.DataObject) -> Any:
        """It was split, bisected or given a new key."""
        number, held = batch[0], self.held_by(batch[1])
        children = [self.new_batch() for _ in range(min(len(held), data.draw(st.integers(1, 3))))]
        for index, event in enumerate(held):
            event.batch = children[index] if index < len(children) else data.draw(st.sampled_from(children))
        self.unsettled[number] = (self.unsettled[number] - {batch[1]}) | set(children)
        self.book.replace_batch(*batch, set(children))
        return multiple(*((number, child) for child in children))

    @rule()
    def restart(self) -> None:
        """The collector was killed: everything is read back from the ledger."""
        troubles = dict(self.book.troubles)
        self.book = book_with(
            *(Seal(number, self.seals[number], set(batches)) for number, batches in self.unsettled.items())
        )
        self.book.troubles.update(troubles)

    def standing(self, producer: bytes, position: int) -> Standing:
        """What the book says."""
        source = self.sources[producer]
        opened = len(source.before(source.committed, "open"))
        return self.book.standing(producer, position, sealed=source.sealed, open_events_count=opened)

    def waits(self, producer: bytes, position: int) -> bool:
        """Whether a flush must wait, and may: for what is open, and for seals from before its position."""
        source = self.sources[producer]
        has_open = source.sealed < position and bool(source.before(source.committed, "open"))
        return has_open or any(
            producer in self.seals[number]
            and self.seals[number][producer].events_count
            and self.seals[number][producer].start < position
            for number in self.unsettled
        )

    @precondition(lambda self: self.sources)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        """A producer asks up to some position, and is told of its troubles."""
        producer = data.draw(st.sampled_from(sorted(self.sources)))
        source = self.sources[producer]
        position = data.draw(st.integers(0, source.committed) | st.just(source.committed))
        standing = self.standing(producer, position)
        is_troubled = any(start < position for start in self.failed_starts.get(producer, []))
        assert (standing.failed_count > 0) == is_troubled == bool(standing.reason)
        assert (standing.unconfirmed_count > standing.failed_count) == self.waits(producer, position)
        assert standing.is_final == (is_troubled or not self.waits(producer, position))
        if is_troubled:
            for event in source.before(source.committed, "failed"):
                event.is_told = True
            self.failed_starts.pop(producer)
            self.told.add(producer)
            self.book.take_trouble(producer)
            assert self.standing(producer, position).failed_count == 0

    @invariant()
    def nothing_unsettled_is_called_settled(self) -> None:
        """For every producer and every position at which an answer could change."""
        for producer, source in self.sources.items():
            for position in {
                0,
                source.sealed,
                source.committed,
                *(event.position + 1 for event in source.events),
            }:
                standing = self.standing(producer, position)
                unsettled = source.before(position, "open", "sealed")
                untold = [event for event in source.before(position, "failed") if not event.is_told]
                if unsettled or untold:
                    assert standing.unconfirmed_count > 0
                # Once told of a failure, which may have been another producer's, the count is a lower bound.
                if producer not in self.told:
                    assert standing.unconfirmed_count >= len(unsettled) + len(untold)
                if not standing.unconfirmed_count:
                    assert standing.is_final
                    assert not standing.reason

    @invariant()
    def a_host_waits_for_what_is_unsettled(self) -> None:
        """No more and no less."""
        for number in range(len(self.seals) + 2):
            assert self.book.is_waiting(number) == any(seal <= number for seal in self.unsettled)


TestFlushes = Flushes.TestCase
