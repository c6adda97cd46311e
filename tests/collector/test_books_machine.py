"""An event's whole way but sockets and HTTP, against a model: the equation holds through any interleaving.

Frames come in order, again, too early and in pieces; commits, crashes, seals, answers, flushes and a
person's decisions fall anywhere between them. The upstream honours keys, and says nothing, lies or refuses.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from settle_mp import config, journals
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.delivery import Completed
from settle_mp.collector.desk import Desk
from settle_mp.collector.flushing import Flushing
from settle_mp.collector.reception import Reception
from settle_mp.collector.shipping import Shipping
from settle_mp.collector.state import State
from settle_mp.core import decision, wire
from settle_mp.core.answer import BodyKind, Failure, NoReply, Reply
from settle_mp.core.books import Books, Tally
from settle_mp.core.event import pack_event
from settle_mp.core.record import Slot, encode_record, segment_seed
from tests.collector.journal_files import NOT_AN_EVENT, TIME_S
from tests.collector.ledgers import open_ledger, producer_id

if TYPE_CHECKING:
    from settle_mp.collector.delivery import Delivery
    from settle_mp.core.answer import Answer

CHOICE = st.integers(0, 1000)
PRODUCERS = st.integers(1, 2)
MEMORY = Path("/dev/shm")  # noqa: S108  thousands of syncs
TICKETS = itertools.count(1)
GONE = NoReply(failure=Failure.SENT_THEN_RESET, detail="")
#: What the upstream says, and whether it applies the batch.
ANSWERS: dict[str, tuple[Answer, bool]] = {
    "accepted": (Reply(status=200, body_kind=BodyKind.JSON), True),
    "lost, applied": (GONE, True),
    "lost, not applied": (GONE, False),
    "500, applied": (Reply(status=500, body_kind=BodyKind.JSON), True),
    "400": (Reply(status=400, body_kind=BodyKind.JSON), False),
    "413": (Reply(status=413, body_kind=BodyKind.JSON), False),
    "401": (Reply(status=401, body_kind=BodyKind.JSON), False),
    "429": (Reply(status=429, body_kind=BodyKind.JSON), False),
    "refused": (NoReply(failure=Failure.REFUSED, detail=""), False),
}


class Journal:
    """A producer's journal: its bytes, and where each record begins."""

    def __init__(self, number: int) -> None:
        self.producer = producer_id(number)
        self.bytes = b""
        self.starts = [0]
        self.events_count = 0

    def add(self, payload: bytes) -> None:
        """Track one event."""
        self.bytes += encode_record(payload, segment_seed(self.producer, 0), len(self.bytes))
        self.starts.append(len(self.bytes))
        self.events_count += 1

    def committed(self, position: int) -> int:
        """How many events stand before a position."""
        return self.starts.index(position)


class Senders:
    """In the place of `Delivery`: keeps what is submitted until the test answers it."""

    def __init__(self) -> None:
        self.jobs: dict[int, tuple[str, bytes]] = {}
        self.done: list[Completed] = []
        self.room_count = 4

    def submit(self, batch_id: int, *, idempotency_key: str, body: bytes) -> None:
        """Take a batch."""
        self.jobs[batch_id] = (idempotency_key, body)

    def take_completed(self) -> list[Completed]:
        """Give what was answered."""
        done, self.done = self.done, []
        return done


class BooksMachine(RuleBasedStateMachine):
    """One collector, two producers, an upstream that remembers keys."""

    @initialize(on_in_doubt=st.sampled_from(["retry", "hold"]))
    def make(self, on_in_doubt: str) -> None:
        """Begin with nothing."""
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        self.settings = config.load(
            state_dir=Path(self.folder.name) / "state", on_in_doubt=on_in_doubt, batch_rows_max=3
        )
        self.journals = {number: Journal(number) for number in (1, 2)}
        self.tracked: Counter[str] = Counter()
        self.known: dict[str, bytes] = {}
        self.applied: Counter[str] = Counter()
        self.open()
        # From the beginning there is a dead letter, and a batch that was in doubt and is held or sent again.
        self.track(1, ["ann", "bob"])
        self.track_nonsense(1)
        self.frame(1, 0, 6, is_next=True)
        self.commit()
        self.ship()
        self.answer(0, "lost, not applied")

    def open(self) -> None:
        """Start a collector."""
        self.ledger = open_ledger(Path(self.folder.name) / "ledger")
        self.state = State(self.ledger, Decoder({}))
        self.reception = Reception(self.state, Path(self.folder.name) / "journals", frozenset())
        self.senders = Senders()
        self.shipping = Shipping(self.state, cast("Delivery", self.senders), self.settings, has_key=True)
        self.flushing = Flushing(self.state, lambda: "", lambda _: "")
        self.desk = Desk(
            self.state,
            self.shipping.settlement,
            self.reception,
            journals_dir=Path(self.folder.name),
            settings=self.settings,
        )

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "ledger"):
            self.ledger.close()
            self.folder.cleanup()

    # --- In ---

    @rule(
        number=PRODUCERS,
        users=st.lists(st.sampled_from(["ann", "bob", "cy"]), min_size=1, max_size=4),
        way=st.integers(0, 3),
    )
    def track(self, number: int, users: list[str], way: int = 0) -> None:
        """Events are journaled, and go a part of their way at once."""
        for user in users:
            self.journals[number].add(pack_event(user, "AI_QUERY", 1, None))
            self.tracked[user] += 1
        if way > 0:
            self.frame(number, 0, 6, is_next=True)
        if way > 1:
            self.commit()
        if way > 2:
            self.ship()

    @rule(number=PRODUCERS)
    def track_nonsense(self, number: int) -> None:
        """A foreign hand journals what is no event."""
        self.journals[number].add(NOT_AN_EVENT)

    @rule(number=PRODUCERS, first=CHOICE, count=st.integers(1, 6), is_next=st.booleans())
    def frame(self, number: int, first: int, count: int, *, is_next: bool) -> None:
        """Any run of records comes: the next one, one that came before, one behind a gap."""
        journal = self.journals[number]
        slot = Slot()
        header = journals.Header(identity=None, courier=slot, drops=slot, collector=slot)
        assert self.reception.greet(journal.producer, header, is_volatile=True) == ""
        position = self.reception.position(journal.producer)
        at = journal.committed(position) if is_next else first % len(journal.starts)
        end = min(at + count, len(journal.starts) - 1)
        if at == end:
            return
        body = journal.bytes[journal.starts[at] : journal.starts[end]]
        first_position = journal.starts[at]
        reply = self.reception.take_frame(
            wire.Frame(producer=journal.producer, first=first_position, base=0, cut_s=TIME_S, body=body)
        )
        assert isinstance(reply, wire.GoBack) == (first_position > position)
        assert self.reception.position(journal.producer) == (
            position if first_position > position else max(position, journal.starts[end])
        )

    @rule()
    def commit(self) -> None:
        """What is gathered is committed."""
        if self.reception.is_gathering:
            self.reception.commit()

    @rule()
    def compact(self) -> None:
        """Sums take the place of frames."""
        self.ledger.compact(self.state.windows, TIME_S)

    @rule(is_applied=st.booleans())
    def crash(self, *, is_applied: bool) -> None:
        """The collector is killed, with batches under way that may still be applied; another one starts."""
        for key, body in self.senders.jobs.values() if is_applied else ():
            self.apply(key, body)
        self.ledger.close()
        self.open()

    # --- Out ---

    @rule()
    def ship(self) -> None:
        """Windows are sealed and batches sent; time passes, so that nothing waits for its hour."""
        self.shipping.health.paused_until_s = 0.0
        self.shipping._is_mended = True
        self.shipping.turn(is_urgent=True)

    @rule(answers=st.lists(st.tuples(CHOICE, st.sampled_from([*ANSWERS])), min_size=1, max_size=8))
    def converse(self, answers: list[tuple[int, str]]) -> None:
        """Batches are sent, and one after the other is answered."""
        for choice, name in answers:
            self.ship()
            if self.senders.jobs:
                self.answer(choice, name)

    def answer(self, choice: int, name: str) -> None:
        """The upstream answers a batch under way; a key that it knows it does not apply again."""
        batch_id = sorted(self.senders.jobs)[choice % len(self.senders.jobs)]
        key, body = self.senders.jobs.pop(batch_id)
        answer, is_applied = ANSWERS[name]
        assert self.known.get(key, body) == body, "one key came with two bodies"
        if is_applied:
            self.apply(key, body)
        self.senders.done.append(Completed(batch_id=batch_id, answer=answer, took_s=0.0))
        self.shipping.turn(is_urgent=False, is_ending=True)

    def apply(self, key: str, body: bytes) -> None:
        """The upstream takes a batch, unless it knows the key."""
        if key not in self.known:
            self.known[key] = body
            for row in json.loads(body)["events"]:
                self.applied[row["userId"]] += row["quantity"]

    # --- A person ---

    @precondition(lambda self: self.ledger.outbox.held())
    @rule(choice=CHOICE, is_given_up=st.booleans())
    def decide_about_a_batch(self, choice: int, *, is_given_up: bool) -> None:
        """By what the upstream's usage shows: never so that anything is billed twice."""
        held = self.ledger.outbox.held()
        batch = held[choice % len(held)]
        actions = (
            [decision.CONFIRM, decision.RETRY]
            if batch.key in self.known
            else [decision.RENEW, decision.RETRY]
        )
        action = decision.DISCARD if is_given_up else actions[choice % 2]
        answer = self.desk.answer(wire.Decide(next(TICKETS), action, batch.id, batch.id))
        assert (answer.done_count, answer.events_count) == (1, batch.events_count)

    @precondition(lambda self: self.ledger.outbox.dead_letters())
    @rule(choice=CHOICE, action=st.sampled_from([decision.REPLAY, decision.DROP]))
    def decide_about_a_letter(self, choice: int, action: str) -> None:
        """It goes out again or is given up; what is no event can only be given up."""
        letters = self.ledger.outbox.dead_letters()
        letter = letters[choice % len(letters)]
        answer = self.desk.answer(wire.Decide(next(TICKETS), action, letter.id, letter.id))
        is_event = letter.origin == "event" and action == decision.REPLAY
        assert answer.done_count == (0 if is_event else 1)

    @rule(number=PRODUCERS)
    def flush(self, number: int) -> None:
        """One that is confirmed leaves nothing of its producer behind but what a person decides about."""
        journal = self.journals[number]
        position = len(journal.bytes)
        ticket = next(TICKETS)
        self.flushing.ask(wire.Flush(journal.producer, ticket, position, 0.0), time.monotonic())
        for _, message in self.flushing.turn(time.monotonic()):
            assert isinstance(message, wire.Flushed)
            if not message.unconfirmed_count and not message.reason:
                member = self.state.members.get(journal.producer)
                assert position == 0 or (member is not None and member.position == position)
                if not self._others_wait(number):
                    assert self.ledger.totals()["pending"].events == 0
        self.flushing.sent()

    def _others_wait(self, number: int) -> bool:
        other = self.journals[3 - number]
        member = self.state.members.get(other.producer)
        at = member.position if member else 0
        return at < len(other.bytes) or bool(self.state.windows) or self.state.seals.is_waiting(2**62)

    # --- What must hold ---

    @invariant()
    def the_equation_holds(self) -> None:
        """Per producer and overall, each bucket from its own rows and against its running total."""
        if not hasattr(self, "ledger"):
            return
        rows = self.ledger.producers()
        tallies = []
        for journal in self.journals.values():
            position = rows[journal.producer].position if journal.producer in rows else 0
            committed = rows[journal.producer].events.events if journal.producer in rows else 0
            journaled = journal.events_count - journal.committed(position)
            tallies.append(
                Tally(
                    name=journal.producer.hex(),
                    tracked_events=journal.events_count,
                    committed_events=committed,
                    journaled_events=journaled,
                )
            )
        books = Books(
            rows=self.ledger.books_rows(),
            totals=self.ledger.totals(),
            tallies=tuple(tallies),
            residues=tuple(self.ledger.residues()),
        )
        assert books.faults() == []

    @invariant()
    def nothing_is_billed_twice(self) -> None:
        """No user has more upstream than was tracked, and what is confirmed is upstream."""
        if not hasattr(self, "ledger"):
            return
        assert all(count <= self.tracked[user] for user, count in self.applied.items())
        assert self.ledger.totals()["confirmed"].events <= self.applied.total()


def _settings() -> Any:
    return settings(max_examples=60, stateful_step_count=50, deadline=None)


BooksMachine.TestCase.settings = _settings()
TestBooksMachine = BooksMachine.TestCase
