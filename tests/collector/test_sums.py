"""Promise 5 through the whole collector: sums of what goes upstream equal those of a naive Decimal model.

For any events, metadata and rules, in any order, through any split into producers, frames, commits,
compactions, windows of several hours, batches and restarts.
"""

from __future__ import annotations

import decimal
import json
import os
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from settle_mp.collector.decoder import Decoder
from settle_mp.collector.reception import Reception
from settle_mp.collector.state import State
from settle_mp.core.event import pack_event
from settle_mp.core.record import Slot, encode_record, segment_seed
from settle_mp.core.rules import MetadataRule, read_rules
from settle_mp.core.window import HOUR_S, draft_batches
from settle_mp.core.wire import Frame
from settle_mp.journals import Header
from tests.collector.ledgers import open_ledger, producer_id
from tests.core.strategies import QUANTITIES, VALUES

#: Thousands of syncs are made in memory where there is one to write to.
MEMORY = Path("/dev/shm")  # noqa: S108
PRODUCERS = 3
NAMES = ("model", "tokens", "cost", "skipBilling")

Sums = dict[tuple[str, str, str], list[Any]]


@dataclass(frozen=True)
class Tracked:
    """What an application gave to `track()`."""

    user_id: str
    event_type: str
    quantity: float | Decimal
    metadata: dict[str, Any] | None


NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.1, 0.2, 0.3, 1e16, 5e-324]),
    st.decimals("-1e12", "1e12", places=25),
)
METADATA = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["a", "b", 1, 1.0, True, "1", None]),
        "tokens": NUMBERS,
        "cost": NUMBERS | st.just("dear"),
        "skipBilling": st.booleans(),
        "other": VALUES,
    },
)
EVENTS = st.builds(
    Tracked, st.sampled_from(["ada", "bob"]), st.sampled_from(["RULED", "FREE"]), QUANTITIES, METADATA
)
RULES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["keep", "sum", "drop"])).map(
    lambda chosen: {
        which: [name for name, list_of in chosen.items() if list_of == which and name != "skipBilling"]
        for which in ("keep", "sum", "drop")
    }
)
#: What happens between two frames.
STEPS = st.sampled_from(["nothing", "commit", "compact", "seal", "restart"])


def exact(number: float | Decimal) -> Decimal:
    """A number as people write it."""
    return number if isinstance(number, Decimal) else Decimal(repr(number))


def is_number(value: object) -> bool:
    """Whether a rule can add it up."""
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def model(events: list[Tracked], table: dict[str, list[str]]) -> Sums:
    """Sums by key, by hand."""
    sums: Sums = defaultdict(lambda: [0, Decimal(0), defaultdict(Decimal)])
    for event in events:
        metadata = dict(event.metadata or {})
        rule = table if event.event_type == "RULED" else {}
        added = {name: metadata.pop(name) for name in rule.get("sum", []) if name in metadata}
        if not all(map(is_number, added.values())):
            continue  # a dead letter
        for name in rule.get("drop", []):
            metadata.pop(name, None)
        row = sums[event.user_id, event.event_type, spelled(metadata)]
        row[0] += 1
        row[1] += exact(event.quantity)
        for name, value in added.items():
            row[2][name] += exact(value)
    return sums


def spelled(metadata: dict[str, Any]) -> str:
    """Metadata as text that is equal for equal ones: kinds of numbers differ, the order of keys does not."""

    def text(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: text(each) for name, each in value.items()}
        if isinstance(value, list):
            return [text(each) for each in value]
        if isinstance(value, float | Decimal):
            # A whole float stays a float, a whole Decimal is an integer; any other is its digits.
            is_whole = exact(value) == exact(value).to_integral_value()
            if is_whole and isinstance(value, Decimal):
                return int(value)
            return ["whole float" if is_whole else "fraction", f"{exact(value).normalize():f}"]
        return value

    return json.dumps(text(metadata), sort_keys=True)


class House:
    """A collector's memory and ledger, fed with frames and read by its batches."""

    def __init__(self, folder: Path, rules: dict[str, MetadataRule]) -> None:
        self._folder = folder
        self._rules = rules
        self._at_s = float(int(time.time() // HOUR_S) * HOUR_S)
        self.open()
        for number in range(PRODUCERS):
            slot = Slot(sequence=1, ledger=self.ledger.id, position=0, events_count=0)
            header = Header(identity=None, courier=slot, drops=Slot(), collector=Slot())
            self.reception.greet(producer_id(number), header, is_volatile=False)

    def open(self) -> None:
        """Read everything from the ledger, as at a start."""
        self.ledger = open_ledger(self._folder)
        self.state = State(self.ledger, Decoder(self._rules))
        self.reception = Reception(self.state, self._folder / "journals", frozenset())

    def take(self, number: int, events: list[Tracked]) -> None:
        """A frame; each belongs to an hour of its own choice."""
        producer = producer_id(number)
        first = self.reception.position(producer)
        seed = segment_seed(producer, 0)
        body = b""
        for event in events:
            payload = pack_event(event.user_id, event.event_type, event.quantity, event.metadata)
            body += encode_record(payload, seed, first + len(body))
        at_s = self._at_s + HOUR_S * (first % 3)
        frame = Frame(producer=producer, first=first, base=0, cut_s=at_s, body=body)
        assert self.reception.take_frame(frame) is None

    def do(self, step: str) -> None:
        """What happens between two frames; what was not committed is committed first."""
        if step != "nothing" and self.reception.is_gathering:
            self.reception.commit()
        if step == "compact":
            self.ledger.compact(self.state.windows, self._at_s)
        elif step == "seal":
            self.seal()
        elif step == "restart":
            self.ledger.close()
            self.open()

    def seal(self) -> None:
        """Seal all that is open, in batches of two rows."""
        drafts = [
            draft
            for window in self.state.windows
            for draft in draft_batches(window, rows_max=2, is_annotated=True)
        ]
        sealed = self.ledger.seal(drafts, self.state.reaches(), self._at_s)
        self.state.sealed(sealed.number)

    def shipped(self, table: dict[str, list[str]]) -> Sums:
        """Sums by key over all rows of all batches, as a reader of the JSON finds them."""
        sums: Sums = defaultdict(lambda: [0, Decimal(0), defaultdict(Decimal)])
        for batch in self.ledger.outbox.due(time.time() + 10 * HOUR_S, 10_000):
            for row in json.loads(batch.body, parse_float=read_number)["events"]:
                metadata = row["metadata"]
                count = metadata.pop("settle_mp")["count"]
                rule = table if row["eventType"] == "RULED" else {}
                added = {name: metadata.pop(name) for name in rule.get("sum", []) if name in metadata}
                sum_of = sums[row["userId"], row["eventType"], spelled(metadata)]
                sum_of[0] += count
                sum_of[1] += exact(row["quantity"])
                for name, value in added.items():
                    sum_of[2][name] += exact(value)
        return sums


def read_number(text: str) -> float | Decimal:
    """A fraction as a float where that is exact, as the application may have given it; else every digit."""
    return float(text) if Decimal(repr(float(text))) == Decimal(text) else Decimal(text)


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.integers(0, PRODUCERS - 1), st.lists(EVENTS, min_size=1, max_size=5), STEPS), max_size=8
    ),
    RULES,
)
def test_sums_of_what_is_shipped_equal_a_naive_model(
    frames: list[tuple[int, list[Tracked], str]], table: dict[str, list[str]]
) -> None:
    """By key: how many events, how much, and the metadata that a rule adds up, to the last digit."""
    tracked = [event for _, events, _ in frames for event in events]
    folder = tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
    with folder, decimal.localcontext(decimal.Context(prec=2000)):
        house = House(Path(folder.name), read_rules({"RULED": table}))
        for number, events, step in frames:
            house.take(number, events)
            house.do(step)
        house.do("commit")
        house.seal()
        shipped = house.shipped(table)
        house.ledger.close()
        assert dict(shipped) == dict(model(tracked, table))
