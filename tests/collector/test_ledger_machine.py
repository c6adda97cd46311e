"""The ledger against a model that knows each user's events, through any calls, errors and restarts."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from settle_mp.collector.ledger import LedgerError
from settle_mp.core.family import DeadLetterSuspects, Regroup, family_step
from settle_mp.core.window import draft_of_body
from tests.collector.ledgers import (
    NOW_S,
    FailingConnection,
    Till,
    faults,
    open_ledger,
    producer_id,
    put_connection,
    real_connection,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.collector.outbox import Batch, DeadLetter
    from settle_mp.core.window import Draft

#: Whose the events are that were refused at intake and are valid by now.
REPLAYED = "zed"
USERS = st.sampled_from(["ann", "bob", "cy", "dee"])
PRODUCERS = st.integers(1, 3)
CHOICE = st.integers(0, 1000)
ANSWERS = st.sampled_from(["422", "422", "422", "accepted", "no answer", "no answer, hold", "401"])
MEMORY = Path("/dev/shm")  # noqa: S108  thousands of syncs


class LedgerMachine(RuleBasedStateMachine):
    """A ledger, and what each user must find in it: open, sealed, confirmed or dead."""

    @initialize()
    def make(self) -> None:
        """Begin with a new ledger."""
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
        self.till = Till(open_ledger(Path(self.folder.name)))
        self.till.introduce(1, 2, 3)
        self.tracked: Counter[str] = Counter()
        self.confirmed: Counter[str] = Counter()
        self.dead: Counter[str] = Counter()
        self.discarded: Counter[str] = Counter()
        #: Events that were refused at intake, in the dead letters and discarded since.
        self.refused_count = self.dropped_count = 0
        #: Key and body of every batch that was in doubt, by its id, and how often it was.
        self.doubts: dict[int, tuple[str, bytes]] = {}
        self.doubted_events_count = 0
        self.fails_at: int | None = None
        self.is_after = False
        self.take(1, ["ann", "bob", "cy", "dee"], 0)
        self.seal(4)
        # Something to decide about from the beginning: a held batch, and an event that was refused at intake.
        self.take(2, ["ann", "bob"], 1)
        self.seal(4)
        self.attempt(-1)
        self.answered(self.pick("attempting", 0), "no answer, hold", 0)

    def teardown(self) -> None:
        """Leave nothing behind."""
        if hasattr(self, "till"):
            self.till.ledger.close()
            self.folder.cleanup()

    # What happens.

    @rule(number=PRODUCERS, users=st.lists(USERS, min_size=1, max_size=5), bad_count=st.integers(0, 2))
    def take(self, number: int, users: list[str], bad_count: int) -> None:
        """A producer's events are committed, some of them invalid."""
        invalid = tuple((index, b"x", "bad") for index in range(bad_count))
        for user in users:
            if self.attempted(lambda: self.till.take(number, 2, user=user, invalid=invalid)):  # noqa: B023
                self.tracked[user] += 2
                self.refused_count += bad_count

    @rule()
    def compact(self) -> None:
        """Sums take the place of frames."""
        self.attempted(self.till.compact)

    @rule(rows_max=st.integers(1, 4))
    def seal(self, rows_max: int) -> None:
        """All that is open is sealed."""
        self.attempted(lambda: self.till.seal(rows_max))

    @precondition(lambda self: self.batches("ready", "ordered"))
    @rule(choice=CHOICE)
    def attempt(self, choice: int) -> None:
        """A batch is about to be sent, and no answer comes for now."""
        batch = self.pick("ready", choice, "ordered")
        assert batch.id in {due.id for due in self.outbox.due(NOW_S, 10_000)}
        self.attempted(lambda: self.till.attempt(batch.id))

    @precondition(lambda self: self.batches("ready", "ordered", "attempting"))
    @rule(answers=st.lists(st.tuples(CHOICE, ANSWERS, CHOICE), min_size=1, max_size=6))
    def send(self, answers: list[tuple[int, str, int]]) -> None:
        """Batches are sent, and answers come; also for those that nobody had answered yet."""
        for choice, answer, cut in answers:
            if not self.batches("ready", "ordered", "attempting"):
                return
            batch = self.pick("ready", choice, "ordered", "attempting")
            if batch.state != "attempting" and not self.attempted(lambda: self.till.attempt(batch.id)):  # noqa: B023
                return
            self.answered(self.outbox.get(batch.id), answer, cut)

    @precondition(lambda self: self.batches("held"))
    @rule(choice=CHOICE)
    def confirm(self, choice: int) -> None:
        """A person says that a held batch was applied."""
        batch = self.pick("held", choice)
        confirm = lambda: self.decisions.confirm(batch.id, NOW_S)  # noqa: E731
        if self.attempted(lambda: self.decided(batch, confirm)):
            self.confirmed += rows(batch)

    @precondition(lambda self: self.batches("held"))
    @rule(choice=CHOICE)
    def retry(self, choice: int) -> None:
        """A person orders one more try."""
        batch = self.pick("held", choice)
        if self.attempted(lambda: self.decisions.retry(batch.id, NOW_S)):
            assert self.outbox.get(batch.id).state == "ordered"

    @precondition(lambda self: self.batches("held"))
    @rule(choice=CHOICE)
    def renew(self, choice: int) -> None:
        """A person says that a held batch was not applied: it goes on without a doubt."""
        batch = self.pick("held", choice)
        if self.attempted(lambda: self.decisions.renew(batch.id, NOW_S)):
            self.doubts.pop(batch.id, None)

    @precondition(lambda self: self.batches("held"))
    @rule(choice=CHOICE)
    def discard(self, choice: int) -> None:
        """A person gives a held batch up."""
        batch = self.pick("held", choice)
        discard = lambda: self.decisions.discard(batch.id, NOW_S)  # noqa: E731
        if self.attempted(lambda: self.decided(batch, discard)):
            self.discarded += rows(batch)

    @precondition(lambda self: self.outbox.dead_letters())
    @rule(choice=CHOICE, is_dropped=st.booleans())
    def decide_about_a_letter(self, choice: int, *, is_dropped: bool) -> None:
        """A dead letter goes out again, or is given up."""
        letters = self.outbox.dead_letters()
        letter = letters[choice % len(letters)]
        if is_dropped:
            if self.attempted(lambda: self.decisions.drop(letter.id, NOW_S)):
                self.left(letter, is_dropped=True)
        elif self.attempted(lambda: self.decisions.replay([(letter, draft_of(letter))], NOW_S)):
            self.left(letter, is_dropped=False)

    def left(self, letter: DeadLetter, *, is_dropped: bool) -> None:
        """A dead letter is one no more."""
        if letter.origin == "batch":
            users = users_of(letter.payload)
            self.dead -= users
            self.discarded += users if is_dropped else Counter()
        else:
            self.refused_count -= 1
            self.dropped_count += is_dropped
            # From now on it is an event like any other.
            self.tracked[REPLAYED] += not is_dropped

    @rule(number=PRODUCERS)
    def leave(self, number: int) -> None:
        """A producer goes, and is forgotten if it is sealed to its end; another life takes its number."""
        self.attempted(lambda: self.till.ledger.mark_gone([producer_id(number)], NOW_S))
        self.attempted(lambda: self.till.ledger.forget(gone_before_s=NOW_S + 1))
        self.fails_at = None
        self.till.introduce(1, 2, 3)

    @rule()
    def restart(self) -> None:
        """The collector is killed and starts again: what was being sent is in doubt."""
        under_way = self.batches("attempting")
        self.till.ledger.close()
        self.till = Till(open_ledger(Path(self.folder.name)))
        found = self.outbox.recover(NOW_S)
        assert [batch.id for batch in found] == [batch.id for batch in under_way]
        for batch in under_way:
            self.note_doubt(batch)

    @rule(fails_at=st.integers(1, 40), is_after=st.booleans())
    def break_next(self, fails_at: int, *, is_after: bool) -> None:
        """One of the next statements fails."""
        self.fails_at, self.is_after = fails_at, is_after

    # What must hold.

    @invariant()
    def the_books_balance(self) -> None:
        """Every bucket has what the model says, and its rows say the same."""
        ledger = self.till.ledger
        assert faults(ledger) == []
        totals = {bucket: amount.events for bucket, amount in ledger.totals().items()}
        assert totals["committed"] == self.tracked.total() + self.refused_count + self.dropped_count
        assert totals["confirmed"] == self.confirmed.total()
        assert totals["discarded"] == self.discarded.total() + self.dropped_count
        assert totals["dead_lettered"] == self.dead.total() + self.refused_count
        doubted = [batch for batch in self.batches() if batch.id in self.doubts]
        assert totals["in_doubt"] == sum(batch.events_count for batch in doubted)
        assert ledger.in_doubt_ever().events == self.doubted_events_count

    @invariant()
    def each_user_has_each_event_once(self) -> None:
        """Open, sealed, confirmed, dead and discarded make what was tracked, for every user."""
        found = self.confirmed + self.dead + self.discarded
        for window in self.till.windows:
            found.update({key.user_id: entry.count for key, entry in window.entries.items()})
        for batch in self.batches():
            found += rows(batch)
        assert found == self.tracked

    @invariant()
    def what_was_in_doubt_keeps_its_key_and_bytes(self) -> None:
        """Rule D2."""
        for batch in self.batches():
            assert batch.is_in_doubt == (batch.id in self.doubts)
            assert self.doubts.get(batch.id, (batch.key, batch.body)) == (batch.key, batch.body)

    @invariant()
    def every_seal_has_its_batches(self) -> None:
        """No seal without a batch, and no batch without its seal."""
        assert {seal.number for seal in self.outbox.seals()} == {batch.seal for batch in self.batches()}

    # How.

    @property
    def outbox(self) -> Any:
        """The ledger's outbox."""
        return self.till.ledger.outbox

    @property
    def decisions(self) -> Any:
        """What a person can do in it."""
        return self.till.ledger.decisions

    def batches(self, *states: str) -> list[Batch]:
        """The batches in some states, or all."""
        ids = {each for batches in self.outbox.unsettled_by_seal().values() for each in batches}
        ids |= {batch.id for batch in self.outbox.held()}
        found = [self.outbox.get(batch_id) for batch_id in sorted(ids)]
        return [batch for batch in found if not states or batch.state in states]

    def pick(self, state: str, choice: int, *more: str) -> Batch:
        """One of them."""
        batches = self.batches(state, *more)
        return batches[choice % len(batches)]

    def answered(self, batch: Batch, answer: str, cut: int) -> None:
        """An answer came for a batch."""
        outbox = self.outbox
        say: dict[str, Any] = {"reason": answer, "now_s": NOW_S}
        if answer == "accepted":
            if self.attempted(lambda: self.decided(batch, lambda: outbox.settle(batch.id, NOW_S))):
                self.confirmed += rows(batch)
        elif answer == "no answer":
            if self.attempted(lambda: outbox.retry(batch.id, at_s=NOW_S, is_in_doubt=True, **say)):
                self.note_doubt(batch)
        elif answer == "no answer, hold":
            hold = lambda: outbox.hold(batch.id, is_in_doubt=True, **say)  # noqa: E731
            if self.attempted(lambda: self.decided(batch, hold)):
                self.note_doubt(batch)
        elif answer == "401" and batch.id not in self.doubts:
            self.attempted(lambda: outbox.rekey(batch.id, at_s=NOW_S, **say))
        elif answer == "401":
            self.attempted(lambda: outbox.retry(batch.id, at_s=NOW_S, is_in_doubt=False, **say))
        else:
            self.refused(batch, cut, say)

    def refused(self, batch: Batch, cut: int, say: dict[str, Any]) -> None:
        """A batch was certainly refused: held, suspected or cut."""
        outbox = self.outbox
        if batch.id in self.doubts:
            self.attempted(lambda: self.decided(batch, lambda: outbox.hold(batch.id, **say)))
        elif len(batch.lots) == 1:
            self.attempted(lambda: self.decided(batch, lambda: outbox.suspect(batch.id, **say)))
        else:
            numbers = range(len(batch.lots))
            named = cut % len(numbers)
            groups = [(named,), tuple(number for number in numbers if number != named)]
            self.attempted(lambda: outbox.divide(batch.id, groups, **say))

    def note_doubt(self, batch: Batch) -> None:
        """A try ended in doubt."""
        self.doubts[batch.id] = (batch.key, batch.body)
        self.doubted_events_count += batch.events_count

    def decided(self, batch: Batch, change: Callable[[], object]) -> None:
        """Change a member of a family, and do what the core says of it, in one transaction."""
        self.buried: Counter[str] = Counter()
        with self.till.ledger.transaction():
            change()
            step = family_step(self.outbox.family(batch.root), now_s=NOW_S, jitter=0.5)
            if isinstance(step, DeadLetterSuspects):
                suspects = {each.id: each for each in self.outbox.suspects(batch.root)}
                assert suspects
                assert set(self.outbox.dead_letter_suspects(batch.root, now_s=NOW_S)) == set(suspects)
                for each in suspects.values():
                    self.buried += rows(each)
            elif isinstance(step, Regroup):
                self.outbox.regroup(batch.root, at_s=NOW_S, reason=step.reason, now_s=NOW_S)

    def attempted(self, change: Callable[[], object]) -> bool:
        """Do something that may be made to fail. Returns whether it happened."""
        self.buried = Counter()
        ledger = self.till.ledger
        before = ledger.totals(), [batch.changed_s for batch in self.batches()], self.fingerprint()
        connection = real_connection(ledger)
        if self.fails_at is not None:
            failing = FailingConnection(connection, self.fails_at, is_after=self.is_after)
            put_connection(ledger, failing)
        try:
            change()
        except LedgerError as error:
            assert self.fails_at is not None
            self.fails_at = None
            if error.is_outcome_unknown:
                ledger.reopen()
            else:
                put_connection(ledger, connection)
            self.till.load()
            after = ledger.totals(), [batch.changed_s for batch in self.batches()], self.fingerprint()
            if not error.is_outcome_unknown:
                assert after == before
            happened = after != before
        else:
            with suppress(LedgerError):
                put_connection(ledger, connection)
            happened = True
        if happened:
            self.dead += self.buried
        return happened

    def fingerprint(self) -> list[Any]:
        """What tells whether something happened."""
        producers = [(row.id, row.position, row.gone_s) for row in self.till.ledger.producers().values()]
        batches = [(batch.id, batch.key, batch.state, batch.tries) for batch in self.batches()]
        letters = [letter.id for letter in self.outbox.dead_letters()]
        return [producers, batches, letters, self.till.ledger.raw_bytes, self.till.ledger.in_doubt_ever()]


def rows(batch: Batch) -> Counter[str]:
    """Events by user; each has a quantity of 1."""
    return users_of(batch.body)


def users_of(body: bytes) -> Counter[str]:
    """The same of a body."""
    found: Counter[str] = Counter()
    for row in json.loads(body)["events"]:
        found[row["userId"]] += row["quantity"]
    return found


def draft_of(letter: DeadLetter) -> Draft:
    """What goes out again: a row as it was, or an event that is valid by now and has a quantity."""
    body = letter.payload
    if letter.origin == "event":
        row = {"userId": REPLAYED, "eventType": "AI_QUERY", "quantity": 1}
        body = b'{"events":[' + json.dumps(row).encode() + b"]}"
    return draft_of_body(letter.hour, body, events_count=letter.events_count, quantity=letter.events_count)


LedgerMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
