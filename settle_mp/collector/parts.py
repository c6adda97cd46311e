"""The collector's parts, put together; and what each control message does to them."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from settle_mp.collector import journals
from settle_mp.collector.adoption import Adoption
from settle_mp.collector.decoder import Decoder
from settle_mp.collector.delivery import Delivery
from settle_mp.collector.flushing import Answers, Flushing
from settle_mp.collector.reception import Reception
from settle_mp.collector.shipping import Shipping
from settle_mp.collector.startup import make_upstream
from settle_mp.collector.state import State
from settle_mp.core import wire

if TYPE_CHECKING:
    from settle_mp.collector.startup import Opened
    from settle_mp.config import Settings

#: How long a stop waits for sender threads to end, in seconds.
SENDERS_S = 0.2


class Parts:
    """Everything behind the sockets.

    Attributes:
        greeted: Producers that said hello and wait for their introduction to be committed.
    """

    def __init__(self, opened: Opened) -> None:
        """Read the ledger and get ready to ship."""
        self._dir = opened.dir
        self._settings = opened.settings
        upstream = make_upstream(opened.settings)
        self.state = State(opened.ledger, Decoder(opened.settings.rules))
        self.delivery = Delivery(upstream)
        self.reception = Reception(self.state, opened.dir.journals, opened.put_aside)
        self.adoption = Adoption(self.state, self.reception, opened.dir)
        self.shipping = Shipping(self.state, self.delivery, opened.settings, has_key=upstream is not None)
        self.flushing = Flushing(self.state, self._upstream_reason)
        self.greeted: set[bytes] = set()
        self._couriers: set[bytes] = set()

    def _upstream_reason(self) -> str:
        health = self.shipping.health
        if health.state == "no_key":
            return "the collector has no api_key (SETTLESETTLE_API_KEY), so it collects without shipping"
        if health.state == "ok":
            return ""
        return f"the upstream is {health.state}: {health.last_error}"

    def hear(self, producer: bytes) -> None:
        """Its courier is alive."""
        member = self.state.members.get(producer)
        if member is not None:
            member.heard_s = time.monotonic()

    def answer(self, identity: bytes, message: wire.Message) -> Answers:
        """Do what a control message asks, and say what to send."""
        if isinstance(message, wire.Ping):
            return [(identity, wire.Pong(self.state.ledger.id, self._report()))]
        if isinstance(message, wire.HostFlush):
            self.adoption.scan_soon()
            return self.flushing.ask_host(identity, message, self._couriers, time.monotonic())
        # What a producer says of itself it says under its own name.
        producer = getattr(message, "producer", None)
        if producer is None or producer != identity:
            self.reception.refuse(f"a {type(message).__name__} under another's name")
            return []
        self.hear(producer)
        if isinstance(message, wire.Hello):
            return self._greet(message)
        if isinstance(message, wire.Flush):
            self.flushing.ask(message, time.monotonic())
        elif isinstance(message, wire.Position):
            self.flushing.hear(message)
        elif isinstance(message, wire.Goodbye):
            self._say_goodbye(message)
        return []

    def _greet(self, hello: wire.Hello) -> Answers:
        producer = hello.producer
        is_visible = (self._dir.journals / producer.hex()).is_dir()
        reason = self.reception.greet(
            producer, journals.parse_header(hello.header), is_volatile=not is_visible
        )
        if reason:
            return [(producer, wire.Refused(reason[:4000]))]
        self._couriers.add(producer)
        member = self.state.members.get(producer)
        if member is None:
            self.greeted.add(producer)
            return []
        return [(producer, wire.Welcome(self.state.ledger.id, member.position))]

    def _say_goodbye(self, goodbye: wire.Goodbye) -> None:
        self._couriers.discard(goodbye.producer)
        member = self.state.members.get(goodbye.producer)
        if member is None:
            return
        member.heard_s = float("-inf")
        self.adoption.scan_soon()
        if member.is_volatile:
            self.reception.note_departure(goodbye)

    def _report(self) -> str:
        health = self.shipping.health
        refusals = list(self.reception.refusals.values())[:5]
        report = {
            "state": health.state,
            "last_error": health.last_error[:500] if health.last_error else None,
            "refusals": [reason[:300] for reason in refusals],
            "refused_count": self.reception.refused_count,
            "is_resting": False,
        }
        return json.dumps(report)

    # --- Changes of the whole ---

    def reload(self) -> None:
        """Drop what is in memory and read it again.

        Raises:
            LedgerError: It can't be read either.
        """
        self.reception.drop()
        self.adoption.drop()
        self.greeted.clear()
        self.state.load(in_flight=self.shipping.in_flight)

    def use(self, settings: Settings) -> None:
        """Go on with settings and key that were read again.

        Raises:
            ValueError, LedgerError: Nothing was changed.
        """
        key = settings.read_api_key()
        if key is not None:
            self.state.ledger.set_key_mode(key.mode)
        self.shipping.replace(settings, make_upstream(settings))
        self.state.decoder.use(settings.rules)

    def forget(self, gone_before_s: float) -> None:
        """Forget producers that are long gone (rule L4)."""
        for producer in self.state.ledger.forget(gone_before_s=gone_before_s):
            self.state.members.pop(producer, None)
            self._couriers.discard(producer)

    def is_drained(self) -> bool:
        """Whether everything that can be read is confirmed."""
        return (
            not self.adoption.is_behind and not self.state.windows and not self.state.seals.is_waiting(2**63)
        )

    def close(self) -> None:
        """Let go of senders; what they have not finished is in doubt at the next start."""
        self.delivery.close(SENDERS_S)
