"""The desk: a person's decisions, carried out in ledger and memory by whoever holds the state folder.

That is the running collector, asked over its control socket, or a command that holds the collector's lock.

Rule: what one ticket asks for is done once, however often it comes.
"""

from __future__ import annotations

import contextlib
import logging
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from settle_mp import journals
from settle_mp.collector.admission import Refusal, admit_by_word
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.health import Health
from settle_mp.collector.reception import Reception
from settle_mp.collector.settlement import Settlement
from settle_mp.collector.startup import open_collector
from settle_mp.collector.state import State
from settle_mp.core import decision, wire
from settle_mp.core.books import Amount, amount_of
from settle_mp.core.event import InvalidEventError
from settle_mp.core.fold import number_text
from settle_mp.core.record import NO_LEDGER
from settle_mp.core.window import draft_of_body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from settle_mp.collector.batches import Batch
    from settle_mp.collector.dead_letters import DeadLetter
    from settle_mp.collector.roster import NewProducer
    from settle_mp.config import Settings
    from settle_mp.core.window import Draft

log: Final = logging.getLogger("settle_mp")

#: Things decided about in one transaction at most: the loop has others to serve.
AT_ONCE_MAX: Final = 200
#: Answers kept for commands that ask again because the answer crossed their question, or was lost.
ANSWERS_MAX: Final = 1000
#: Reasons that are told of those that things were left for.
REASONS_MAX: Final = 5


@dataclass(slots=True)
class _Deed:
    """What was done for one ticket."""

    amounts: list[Amount] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    rest: int = 0

    def answer(self, ticket: int) -> wire.Decided:
        """What to tell the command."""
        amount = amount_of(self.amounts)
        told = self.reasons[:REASONS_MAX]
        if len(self.reasons) > len(told):
            told.append(f"and {len(self.reasons) - len(told)} more")
        return wire.Decided(
            ticket,
            len(self.amounts),
            amount.events,
            number_text(amount.quantity),
            self.rest,
            "; ".join(told),
        )


class Desk:
    """Carries decisions out.

    Args:
        state: The memory of the ledger.
        settlement: Decides about families.
        reception: Knows who is refused, and why.
        journals_dir: Where the journals are.
        settings: Whose rules make an event valid.

    Attributes:
        on_replay: Called when a seal was written that holds no window.
        on_adopt: Called when a journal may be read.
    """

    def __init__(
        self,
        state: State,
        settlement: Settlement,
        reception: Reception,
        *,
        journals_dir: Path,
        settings: Settings,
    ) -> None:
        self._state = state
        self._settlement = settlement
        self._reception = reception
        self._journals = journals_dir
        self._settings = settings
        self._answers: dict[int, wire.Decided] = {}
        self.on_replay: Callable[[], None] = _nothing
        self.on_adopt: Callable[[], None] = _nothing

    def use(self, settings: Settings) -> None:
        """Go on under other settings."""
        self._settings = settings

    def answer(self, message: wire.Decide | wire.Adopt) -> wire.Decided:
        """Do what a command asks, once, and say what was done.

        Raises:
            LedgerError: Nothing was done.
        """
        known = self._answers.get(message.ticket)
        if known is not None:
            return known
        deed = self._adopt(message.journal) if isinstance(message, wire.Adopt) else self._decide(message)
        if len(self._answers) >= ANSWERS_MAX:
            self._answers.pop(next(iter(self._answers)))
        answer = self._answers[message.ticket] = deed.answer(message.ticket)
        return answer

    def _decide(self, message: wire.Decide) -> _Deed:
        deed = _Deed()
        if message.action in decision.BATCH_ACTIONS:
            self._decide_about_batches(message, deed)
        elif message.action in decision.LETTER_ACTIONS:
            self._decide_about_letters(message, deed)
        elif message.action in decision.RESIDUE_ACTIONS:
            self._acknowledge(message, deed)
        else:
            deed.reasons.append(f"{message.action!r} is nothing that can be decided")
        if deed.amounts:
            amount, bill = amount_of(deed.amounts), decision.BILL[message.action]
            extra = {"action": message.action, "count": len(deed.amounts), "first": message.first}
            log.info("decided", extra={**extra, "bill": f"{amount}: {bill}" if amount.events else bill})
        return deed

    # --- Held batches ---

    def _decide_about_batches(self, message: wire.Decide, deed: _Deed) -> None:
        page = self._state.ledger.outbox.held(AT_ONCE_MAX, after=message.first - 1)
        batches = [batch for batch in page if batch.id <= message.last]
        deed.rest = _rest([batch.id for batch in page], message.last)
        if not batches and message.first == message.last:
            deed.reasons.append(self._why_no_batch(message.first))
        now_s = self._state.now_s()
        is_sending = message.action in {decision.RETRY, decision.RENEW}
        with self._state.ledger.transaction():
            for batch in batches:
                # One that can't be sent must not keep the others of this transaction from it.
                if is_sending and not batch.body:
                    deed.reasons.append(f"batch {batch.id} fails its checksum: confirm or discard it")
                else:
                    self._do(message.action, batch, now_s)
                    deed.amounts.append(Amount(batch.events_count, batch.quantity))
        for number in {batch.seal for batch in batches} if is_sending else ():
            self._state.look_again(number)

    def _why_no_batch(self, batch_id: int) -> str:
        try:
            self._state.ledger.decisions.held(batch_id)
        except (LookupError, ValueError) as error:
            return str(error)
        return ""

    def _do(self, action: str, batch: Batch, now_s: float) -> None:
        decisions = self._state.ledger.decisions
        if action == decision.RETRY:
            decisions.retry(batch.id, now_s)
        elif action == decision.RENEW:
            decisions.renew(batch.id, now_s)
        elif action == decision.CONFIRM:
            decisions.confirm(batch.id, now_s)
            self._state.ledger.bump("confirmed_by_hand_events", batch.events_count)
            self._settlement.decide_family(batch, now_s)
        else:
            decisions.discard(batch.id, now_s)
            self._settlement.decide_family(batch, now_s)

    # --- Dead letters ---

    def _decide_about_letters(self, message: wire.Decide, deed: _Deed) -> None:
        page = self._state.ledger.outbox.dead_letters(AT_ONCE_MAX, after=message.first - 1)
        letters = [letter for letter in page if letter.id <= message.last]
        deed.rest = _rest([letter.id for letter in page], message.last)
        if not letters and message.first == message.last:
            deed.reasons.append(f"there is no dead letter {message.first}")
        now_s = self._state.now_s()
        if message.action == decision.REPLAY:
            self._replay(letters, deed, now_s)
            return
        with self._state.ledger.transaction():
            for letter in letters:
                self._state.ledger.decisions.drop(letter.id, now_s)
                deed.amounts.append(letter.amount)

    def _replay(self, letters: list[DeadLetter], deed: _Deed, now_s: float) -> None:
        replayed: list[tuple[DeadLetter, Draft]] = []
        for letter in letters:
            try:
                replayed.append((letter, self._draft(letter)))
            except InvalidEventError as error:
                deed.reasons.append(f"dead letter {letter.id} still is no valid event: {error}")
        if not replayed:
            return
        number, _ = self._state.ledger.decisions.replay(replayed, now_s)
        self._state.replayed(number)
        self.on_replay()
        deed.amounts += [Amount(draft.events_count, draft.quantity) for _, draft in replayed]

    def _draft(self, letter: DeadLetter) -> Draft:
        if letter.origin == "batch":
            return draft_of_body(
                letter.hour, letter.payload, events_count=letter.events_count, quantity=letter.quantity
            )
        settings = self._settings
        return decision.draft_of_event(
            letter.payload, letter.hour, settings.rules, annotate=settings.annotate
        )

    # --- Residues ---

    def _acknowledge(self, message: wire.Decide, deed: _Deed) -> None:
        ledger = self._state.ledger
        numbers = [message.first]
        if message.first != message.last:
            opened = [residue.id for residue in ledger.named_residues() if residue.is_open]
            page = [number for number in opened if number >= message.first][:AT_ONCE_MAX]
            deed.rest = _rest(page, message.last)
            numbers = [number for number in page if number <= message.last]
        now_s = self._state.now_s()
        with ledger.transaction():
            for number in numbers:
                try:
                    ledger.decisions.acknowledge(number, now_s)
                except (LookupError, ValueError) as error:
                    deed.reasons.append(str(error))
                else:
                    deed.amounts.append(Amount())

    # --- Journals ---

    def _adopt(self, producer: bytes) -> _Deed:
        deed = _Deed()
        if self._reception.knows(producer):
            return deed
        folder = self._journals / producer.hex()
        try:
            header = journals.read_header(folder)
        except OSError as error:
            deed.reasons.append(f"there is no journal {producer.hex()} that can be read: {error.strerror}")
            return deed
        found = admit_by_word(producer, header, self._reception.house())
        if isinstance(found, Refusal):
            deed.reasons.append(found.reason)
            return deed
        new = _at_its_beginning(found, folder) if header.bond.ledger == NO_LEDGER else found
        ledger = self._state.ledger
        with ledger.transaction():
            if new.key_mode:
                ledger.set_key_mode(new.key_mode)
            ledger.introduce([new], time.time())
        self._state.welcome(new)
        self._reception.forget_refusal(producer)
        self._reception.publish([producer])
        self.on_adopt()
        deed.amounts.append(Amount())
        extra = {
            "journal": producer.hex(),
            "position": new.position,
            "other_ledger": header.bond.ledger.hex(),
        }
        log.info("journal_adopted", extra={**extra, "bill": "what stands behind the position is billed"})
        return deed


@contextlib.contextmanager
def on_files(settings: Settings) -> Iterator[Desk]:
    """A desk for a command, while no collector runs: it holds the collector's lock meanwhile.

    Raises:
        AlreadyRunningError: A collector runs.
        SettingsError, LedgerError, AddressError, OSError: As for a collector that starts.
    """
    opened = open_collector(settings)
    try:
        state = State(opened.ledger, Decoder(settings.rules))
        settlement = Settlement(state, settings, Health("ok"))
        reception = Reception(state, opened.dir.journals, opened.put_aside)
        yield Desk(state, settlement, reception, journals_dir=opened.dir.journals, settings=settings)
    finally:
        opened.close()


def _at_its_beginning(new: NewProducer, folder: Path) -> NewProducer:
    """Where its header can't say how far it was taken: what some ledger had acked is no longer there."""
    files = journals.segments(folder)
    return replace(new, position=files[0].base) if files else new


def _rest(numbers: list[int], last: int) -> int:
    """Where to go on, if a full page may have more behind it."""
    return numbers[-1] + 1 if len(numbers) == AT_ONCE_MAX and numbers[-1] < last else 0


def _nothing() -> None:
    """No hook."""
