"""Decoded runs: exact sums, refused events, and what is remembered of them."""

from __future__ import annotations

import collections
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settle_mp.collector import decoder as decoding
from settle_mp.collector.decoder import BadRunError, Decoder, Run
from settle_mp.collector.frames import StoredFrame
from settle_mp.core.event import pack_event
from settle_mp.core.fold import Entry, Key, total
from settle_mp.core.record import encode_mark
from settle_mp.core.rules import MetadataRule
from settle_mp.core.window import HOUR_S, Window
from settle_mp.core.wire import Frame
from tests.core.segments import PRODUCER, SEED, event, records, segment
from tests.core.strategies import exact

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR = 500_000
#: A journaled list of four whose quantity is none: no courier of ours writes it.
NOT_AN_EVENT = b"\x94\xa1u\xa1E\xa1x\xc0"

USERS = st.sampled_from(["ada", "bob"])
TYPES = st.sampled_from(["AI_QUERY", "PDF_EXPORT"])
QUANTITIES: st.SearchStrategy[int | float | Decimal] = st.one_of(
    st.integers(1, 3), st.sampled_from([0.1, 0.25, 1e-9, 1e12, Decimal("0.3"), Decimal("1.10")])
)
METADATA: st.SearchStrategy[dict[str, Any] | None] = st.sampled_from(
    [None, {}, {"model": "a"}, {"model": 1}, {"model": 1.0}, {"model": True}, {"b": [1], "a": "x"}]
)
EVENTS = st.tuples(USERS, TYPES, QUANTITIES, METADATA)
#: What stands in a frame: an event, or None for a time mark.
FRAMES = st.lists(st.lists(EVENTS | st.none(), min_size=1, max_size=12), max_size=6)


def frame(payloads: Sequence[bytes], first: int = 0) -> Frame:
    """A frame of these records, from a position in the first segment."""
    body = b"".join(records(payloads, first))
    return Frame(producer=PRODUCER, first=first, base=0, cut_s=HOUR * HOUR_S + 5.0, body=body)


def stored(run: Run) -> StoredFrame:
    """What the ledger gives back of a committed run."""
    intake = run.intake
    return StoredFrame(
        producer=intake.producer,
        first=intake.first,
        last=intake.last,
        base=intake.base,
        hour=intake.hour,
        cut_s=intake.cut_s,
        body=intake.body,
        skipped=frozenset(index for index, _, _ in intake.invalid),
        events_count=intake.events_count,
        quantity=intake.quantity,
    )


def folded(*runs: Run) -> dict[Key, Entry]:
    """The sums of some runs."""
    window = Window(HOUR)
    for run in runs:
        window.count(run.events)
    assert window.events_count == sum(len(run.events) for run in runs)
    assert window.quantity == total(run.intake.quantity for run in runs)
    return window.entries


def naive(frames: Sequence[Sequence[Any]]) -> dict[Key, tuple[int, Decimal]]:
    """Add up the slow way: a Decimal for each key."""
    sums: dict[Key, tuple[int, Decimal]] = collections.defaultdict(lambda: (0, Decimal(0)))
    for user, kind, quantity, metadata in (each for events in frames for each in events if each is not None):
        text = json.dumps(metadata, sort_keys=True, separators=(",", ":")) if metadata else ""
        count, amount = sums[Key(user, kind, text)]
        sums[Key(user, kind, text)] = (count + 1, amount + Decimal(exact(quantity)))
    return dict(sums)


@given(FRAMES, st.integers(1, 6))
def test_sums_are_those_of_a_naive_model(frames: list[list[Any]], known_max: int) -> None:
    """Promise 5: each key's sum over any frames is exact; marks are no events; forgetting changes nothing."""
    decoder = Decoder({})
    window = Window(HOUR)
    before = decoding.KNOWN_MAX
    decoding.KNOWN_MAX = known_max  # type: ignore[misc]
    try:
        for events in frames:
            payloads = [encode_mark(7.0) if each is None else pack_event(*each) for each in events]
            run = decoder.decode(frame(payloads))
            assert run.intake.invalid == ()
            assert run.intake.events_count == sum(each is not None for each in events)
            window.count(run.events)
    finally:
        decoding.KNOWN_MAX = before  # type: ignore[misc]
    wanted = naive(frames)
    assert {key: (each.count, Decimal(each.quantity)) for key, each in window.entries.items()} == wanted
    assert window.events_count == sum(count for count, _ in wanted.values())


def test_whole_numbers_stay_whole_and_fractions_are_exact() -> None:
    """Promise 5: 0.1 ten times is 1; integers are added as such, beyond any float."""
    decoder = Decoder({})
    tenth = pack_event("ada", "AI_QUERY", 0.1, None)
    run = decoder.decode(frame([tenth] * 10))
    assert run.intake.quantity == 1
    (entry,) = folded(run).values()
    assert (entry.count, entry.quantity) == (10, 1)
    most = pack_event("ada", "AI_QUERY", 10**12, None)
    whole = decoder.decode(frame([most] * 9_000 + [event(0)]))
    assert type(whole.intake.quantity) is int
    assert whole.intake.quantity == 9_000 * 10**12 + 1


def test_known_fractions_are_added_exactly_too() -> None:
    """Promise 5: the short way for known payloads never adds fractions with Python's 28 digits."""
    decoder = Decoder({})
    fine = Decimal("1.000000000000000000000000001")
    payloads = [pack_event("ada", "AI_QUERY", quantity, None) for quantity in (fine, 10**12)]
    for _ in range(2):  # the second time all payloads are known
        run = decoder.decode(frame(payloads))
        assert str(run.intake.quantity) == "1000000000001.000000000000000000000000001"
        (entry,) = folded(run).values()
        assert entry.quantity == run.intake.quantity


def test_time_marks_are_no_events() -> None:
    """A mark is neither counted nor refused, before, between or behind events, known or not."""
    decoder = Decoder({})
    mark = encode_mark(1_800_000_000.0)
    for _ in range(2):  # the second time all payloads are known
        run = decoder.decode(frame([mark, event(1), mark, event(2), mark]))
        assert (run.intake.events_count, run.intake.quantity, run.intake.invalid) == (2, 5, ())
    assert decoder.decode(frame([mark])).intake.events_count == 0


def test_an_invalid_event_is_named_by_index_and_reason_and_advances_the_position() -> None:
    """Rule L1: an invalid event is handed to the dead letters, the others count, and the position goes on."""
    decoder = Decoder({})
    sent = frame([encode_mark(7.0), event(1), NOT_AN_EVENT, event(2), NOT_AN_EVENT])
    run = decoder.decode(sent)
    assert [index for index, _, _ in run.intake.invalid] == [1, 3]
    assert {payload for _, payload, _ in run.intake.invalid} == {NOT_AN_EVENT}
    assert all(reason for _, _, reason in run.intake.invalid)
    assert (run.intake.events_count, run.intake.quantity) == (2, 5)
    assert (run.intake.first, run.intake.last) == (sent.first, sent.last)


def test_an_invalid_event_is_skipped_at_recall() -> None:
    """Rule L1: what is dead-lettered does not come back into the fold, even if today's rules take it."""
    strict = {"AI_QUERY": MetadataRule(sum=frozenset({"tokens"}))}
    text = pack_event("ada", "AI_QUERY", 1, {"tokens": "many"})
    decoder = Decoder(strict)
    run = decoder.decode(frame([text, event(1)]))
    assert [index for index, _, _ in run.intake.invalid] == [0]
    assert "tokens" in run.intake.invalid[0][2]
    for rules in (strict, {}):
        recalled = Decoder(rules).recall(stored(run))
        assert [each.quantity for each in recalled] == [2]


def test_what_was_accepted_is_recalled_under_stricter_rules() -> None:
    """Rule L1: nothing that was committed may crash the next start, whatever the rules say by then."""
    decoder = Decoder({})
    text = pack_event("ada", "AI_QUERY", 4, {"tokens": "many"})
    run = decoder.decode(frame([text, event(1)]))
    assert run.intake.invalid == ()
    strict = Decoder({"AI_QUERY": MetadataRule(sum=frozenset({"tokens"}))})
    recalled = strict.recall(stored(run))
    assert sum(each.quantity for each in recalled) == run.intake.quantity == 6
    window = Window(HOUR)
    window.count(recalled)
    assert {key.metadata for key in window.entries} == {"", '{"tokens":"many"}'}


@given(FRAMES)
def test_recall_gives_the_sums_of_the_first_decoding(frames: list[list[Any]]) -> None:
    """Rule L1: what is read again after an error or a restart is what was there before."""
    decoder = Decoder({})
    fresh = Decoder({})
    for events in frames:
        payloads = [encode_mark(7.0) if each is None else pack_event(*each) for each in events]
        run = decoder.decode(frame([*payloads, NOT_AN_EVENT, event(1)]))
        window = Window(HOUR)
        window.count(fresh.recall(stored(run)))
        assert window.entries == folded(run)


def test_new_rules_are_for_what_comes_next() -> None:
    """A payload that is known is decoded anew under new rules; what is folded stays as it is."""
    decoder = Decoder({})
    sent = frame([pack_event("ada", "AI_QUERY", 1, {"request": "r1"})])
    before = decoder.decode(sent)
    decoder.use({"AI_QUERY": MetadataRule(drop=frozenset({"request"}))})
    after = decoder.decode(sent)
    assert {key.metadata for key in folded(before, after)} == {'{"request":"r1"}', ""}


def test_a_known_payload_is_added_to_the_window_of_its_frame() -> None:
    """An entry remembered of one window is never added to for another, sealed or of another hour."""
    decoder = Decoder({})
    run = decoder.decode(frame([event(1)]))
    first, second = Window(HOUR), Window(HOUR)
    for window in (first, second, first):
        window.count(run.events)
    assert [sum(entry.count for entry in window.entries.values()) for window in (first, second)] == [2, 1]


def test_summed_metadata_are_exact_and_per_key() -> None:
    """Promise 5: a rule's sums are added as decimals, and a missing one counts as nothing."""
    decoder = Decoder({"AI_QUERY": MetadataRule(sum=frozenset({"cost"}))})
    payloads = [pack_event("ada", "AI_QUERY", 1, {"cost": 0.1})] * 10
    payloads.append(pack_event("ada", "AI_QUERY", 1, {}))
    (entry,) = folded(decoder.decode(frame(payloads))).values()
    assert (entry.count, entry.sums) == (11, {"cost": 1})


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 3: however many different payloads come, at most KNOWN_MAX of them are kept in memory."""
    monkeypatch.setattr(decoding, "KNOWN_MAX", 8)
    decoder = Decoder({})
    for number in range(50):
        fraction = pack_event("ada", "AI_QUERY", number + 0.5, None)
        assert decoder.decode(frame([event(number), fraction])).intake.quantity == number + 1 + number + 0.5
        assert len(decoder._known) <= 8


@pytest.mark.parametrize("at", ["head", "payload", "offset", "end"])
def test_bytes_that_are_no_record_refuse_the_whole_run(at: str) -> None:
    """Rule L1: a frame that can't be parsed is refused, and nothing of it is taken."""
    body = bytearray(segment([event(1), event(2)]))
    second = len(records([event(1)])[0])
    if at == "end":
        body += b"\1"
    else:
        body[second + {"head": 0, "offset": 9, "payload": 12}[at]] ^= 0x41
    with pytest.raises(BadRunError, match=f"position {len(body) - 1 if at == 'end' else second}"):
        Decoder({}).decode(Frame(producer=PRODUCER, first=0, base=0, cut_s=5.0, body=bytes(body)))


def test_records_of_another_producer_or_segment_are_none() -> None:
    """Rule J3: the checksum is seeded with producer and segment, so foreign bytes are never counted."""
    body = b"".join(records([event(1)], 0, SEED))
    for producer, base in ((bytes(16), 0), (PRODUCER, 64)):
        with pytest.raises(BadRunError):
            Decoder({}).decode(Frame(producer=producer, first=base, base=base, cut_s=5.0, body=body))
