"""The collector's parts, put together; and what each control message does to them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from settle_mp import journals
from settle_mp.collector import account
from settle_mp.collector.adoption import Adoption
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.delivery import Delivery
from settle_mp.collector.desk import Desk
from settle_mp.collector.flushing import Answers, Flushing
from settle_mp.collector.host_flushing import HostFlushing
from settle_mp.collector.ledger import LedgerError
from settle_mp.collector.reception import Reception
from settle_mp.collector.shipping import Shipping
from settle_mp.collector.startup import bind_key, make_upstream
from settle_mp.collector.state import State
from settle_mp.core import wire
from settle_mp.core.books import Amount
from settle_mp.core.fold import parse_number

if TYPE_CHECKING:
    from settle_mp.collector.startup import Opened
    from settle_mp.collector.state import Member
    from settle_mp.config import Settings
    from settle_mp.core.record import Identity

#: How long a stop waits for sender threads to end, in seconds.
SENDERS_S: Final = 0.2
#: How long producers that are gone are remembered (rule L4), and for how long one without a folder may be
#: silent before it is taken for gone, in seconds. Its next hello says where it stood.
FORGET_AFTER_S: Final = 24 * 3600.0
#: The same for one with a folder on another host, whose next worker may come late, in seconds. What comes
#: after that waits for an operator's word.
FORGET_UNSEEN_AFTER_S: Final = 30 * 24 * 3600.0
#: Producers whose journals are elsewhere, of which is kept what they say of themselves.
UNSEEN_MAX: Final = 100


class Parts:
    """Everything behind the sockets.

    Attributes:
        greeted: Producers that said hello and wait for their introduction to be committed.
        trouble: Why nothing is taken in just now; empty when all is well.
    """

    def __init__(self, opened: Opened) -> None:
        """Read the ledger and get ready to ship."""
        self._dir = opened.dir
        upstream = make_upstream(opened.settings)
        self.state: State = State(opened.ledger, Decoder(opened.settings.rules))
        self.delivery: Delivery = Delivery(upstream)
        self.reception: Reception = Reception(self.state, opened.dir.journals, opened.put_aside)
        self.adoption: Adoption = Adoption(self.state, self.reception, opened.dir)
        self.shipping: Shipping = Shipping(
            self.state, self.delivery, opened.settings, has_key=upstream is not None
        )
        self.flushing: Flushing = Flushing(self.state, self._upstream_reason, self._intake_reason)
        self.host_flushing: HostFlushing = HostFlushing(self.state, self._upstream_reason, self._waiting)
        self.desk: Desk = Desk(
            self.state,
            self.shipping.settlement,
            self.reception,
            journals_dir=opened.dir.journals,
            settings=opened.settings,
        )
        self.desk.on_replay = self.host_flushing.look_anew
        self.desk.on_adopt = self.adoption.scan_soon
        self.greeted: set[bytes] = set()
        self.trouble = ""
        self._couriers: set[bytes] = set()
        self._unseen: dict[bytes, Identity] = {}
        self._since_s = time.monotonic()

    def _upstream_reason(self) -> str:
        health = self.shipping.health
        if health.state == "no_key":
            return "the collector has no api_key (SETTLESETTLE_API_KEY), so it collects without shipping"
        if health.state == "ok":
            return ""
        return f"the upstream is {health.state}: {health.last_error}"

    def _intake_reason(self, producer: bytes) -> str:
        return self.trouble or self.reception.refusal(producer)

    def hear(self, producer: bytes) -> None:
        """Its courier is alive."""
        member = self.state.members.get(producer)
        if member is not None:
            member.heard_s = time.monotonic()

    def answer(self, identity: bytes, message: wire.Message) -> Answers:
        """Do what a control message asks, and say what to send.

        Raises:
            LedgerError: Nothing was done.
        """
        if isinstance(message, wire.Ping | wire.HostFlush | wire.Decide | wire.Adopt):
            return self._obey(identity, message)
        # What a producer says of itself it says under its own name.
        producer = getattr(message, "producer", None)
        if producer is None or producer != identity:
            self.reception.refuse(f"a {type(message).__name__} under another's name")
            return []
        self.hear(producer)
        return self._heed(message)

    def _heed(self, message: wire.Message) -> Answers:
        """Do what a producer asks under its own name."""
        if isinstance(message, wire.Hello):
            return self._greet(message)
        if isinstance(message, wire.Flush):
            return self.flushing.ask(message, time.monotonic())
        if isinstance(message, wire.Goodbye):
            return self._say_goodbye(message)
        if isinstance(message, wire.Lost):
            return self._step_over(message)
        if isinstance(message, wire.Position):
            self.host_flushing.hear(message)
        return []

    def _obey(self, identity: bytes, message: wire.Command) -> Answers:
        if isinstance(message, wire.HostFlush):
            return self._flush_host(identity, message)
        if isinstance(message, wire.Ping):
            return [(identity, wire.Pong(self.state.ledger.id, self._report()))]
        return [(identity, self.desk.answer(message))]

    def turn_away(self, identity: bytes, message: wire.Message) -> Answers:
        """The same while the ledger can't be used: say so to whom it matters; the others ask again."""
        if isinstance(message, wire.Ping):
            return [(identity, wire.Pong(self.state.ledger.id, self._report()))]
        if isinstance(message, wire.Decide | wire.Adopt):
            return [(identity, wire.Decided(message.ticket, 0, 0, "0", 0, self.trouble or "try again"))]
        return [(identity, wire.Refused(self.trouble))] if isinstance(message, wire.Hello) else []

    def _flush_host(self, identity: bytes, message: wire.HostFlush) -> Answers:
        members = self.state.members
        alive = {each for each in self._couriers if each in members and not members[each].is_gone}
        scan = self.adoption.scan_anew()
        return self.host_flushing.ask(identity, message, couriers=alive, scan=scan, now_s=time.monotonic())

    def _greet(self, hello: wire.Hello) -> Answers:
        producer = hello.producer
        if self.trouble:
            # A welcome would bring the same frames again and again, to be thrown away.
            return [(producer, wire.Refused(self.trouble))]
        is_seen = (self._dir.journals / producer.hex()).is_dir()
        header = journals.parse_header(hello.header)
        unseen_to = None if is_seen else hello.position
        reason = self.reception.greet(producer, header, is_volatile=hello.is_volatile, unseen_to=unseen_to)
        if reason:
            return [(producer, wire.Refused(reason))]
        self._couriers.add(producer)
        if not is_seen and header.identity is not None and len(self._unseen) < UNSEEN_MAX:
            self._unseen[producer] = header.identity
        member = self.state.members.get(producer)
        if member is None:
            self.greeted.add(producer)
            return []
        if member.is_unseen:
            self._record_dropped(producer, header.drops.dropped_count, header.drops.dropped_quantity)
        return [(producer, self.welcome(member))]

    def welcome(self, member: Member) -> wire.Welcome:
        """What a producer is told from where on it is to send."""
        return wire.Welcome(self.state.ledger.id, member.position, not member.is_unseen)

    def _record_dropped(self, producer: bytes, count: int, quantity: str) -> None:
        """Note what a producer dropped whose header we don't see."""
        if count:
            self.state.ledger.record_dropped({producer: Amount(count, parse_number(quantity))})

    def _say_goodbye(self, goodbye: wire.Goodbye) -> Answers:
        producer = goodbye.producer
        self._couriers.discard(producer)
        self._unseen.pop(producer, None)
        member = self.state.members.get(producer)
        if member is None:
            return []
        member.heard_s = float("-inf")
        self.adoption.scan_soon()
        if not member.is_unseen:
            return []
        if not goodbye.is_over and member.position < goodbye.position:
            # What is left is its heir's to bring, however late that comes.
            self._record_dropped(producer, goodbye.dropped_count, goodbye.dropped_quantity)
        elif not member.is_volatile and member.position < goodbye.position:
            return [(producer, wire.GoBack(member.position))]
        else:
            self.reception.note_departure(goodbye)
        return []

    def _step_over(self, lost: wire.Lost) -> Answers:
        member = self.state.members.get(lost.producer)
        if member is None or not member.is_unseen or lost.start > lost.end:
            self.reception.refuse("a loss in a journal that is none of an heir's")
            return []
        reply = self.reception.take_lost(lost)
        return [] if reply is None else [(lost.producer, reply)]

    def _report(self) -> str:
        return account.report(self.shipping, self._waiting(), self.trouble, self._unseen.values())

    def _waiting(self) -> list[str]:
        """Which journals wait, and why."""
        return self.reception.refusals + self.adoption.unread

    # --- Changes of the whole ---

    def let_go(self) -> None:
        """Drop what was about to be committed; couriers and journals still have it."""
        self.reception.drop()
        self.adoption.drop()
        self.greeted.clear()

    def reload(self) -> None:
        """Drop what is in memory and read it again.

        Raises:
            LedgerError: It can't be read either.
        """
        self.let_go()
        self.state.load(in_flight=self.shipping.in_flight)

    def use(self, settings: Settings) -> None:
        """Go on with settings and key that were read again.

        Raises:
            ValueError, LedgerError: Nothing was changed.
        """
        upstream = make_upstream(settings)
        try:
            bind_key(self.state.ledger, settings)
        except BaseException:
            if upstream is not None:
                upstream.close()
            raise
        self.shipping.replace(settings, upstream)
        self.state.decoder.use(settings.rules)
        self.desk.use(settings)

    def forget(self) -> None:
        """Forget producers that are long gone (rule L4)."""
        now_s = time.monotonic()
        lost = [
            member.id
            for member in self.state.members.values()
            if member.is_unseen
            and not member.is_gone
            and now_s - max(member.heard_s, self._since_s)
            > (FORGET_AFTER_S if member.is_volatile else FORGET_UNSEEN_AFTER_S)
        ]
        if lost:
            self.state.ledger.mark_gone(lost, time.time())
        for producer in lost:
            self.state.members[producer].is_gone = True
        for producer in self.state.ledger.forget(gone_before_s=time.time() - FORGET_AFTER_S):
            self.state.members.pop(producer, None)
            self._couriers.discard(producer)

    def is_drained(self) -> bool:
        """Whether everything was read that can be taken, and is confirmed."""
        return (
            not self.reception.is_gathering
            and not self.adoption.unread
            and not self.state.windows
            and not self.state.seals.is_waiting(2**63)
        )

    def close(self) -> None:
        """Let go of senders; what they have not finished is in doubt."""
        self.delivery.close(SENDERS_S)
        with contextlib.suppress(LedgerError):  # nothing durable depends on it: the next start does the same
            self.shipping.turn(is_urgent=False, is_ending=True)
            self.state.ledger.outbox.recover(time.time())
