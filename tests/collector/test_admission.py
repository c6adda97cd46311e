"""Who may begin at a ledger, and where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from settle_mp.collector.admission import House, Refusal, admit
from settle_mp.collector.roster import NewProducer
from settle_mp.core.record import Identity, Slot
from settle_mp.journals import Header

PRODUCER = bytes(range(16))
OURS, ASIDE, STRANGE = (bytes([number]) * 16 for number in (1, 2, 3))
HOUSE = House(ledger=OURS, put_aside={ASIDE}, key_mode="test")
IDENTITY = Identity(
    producer=PRODUCER, key_mode="test", name="gunicorn worker 3", host="web-1", born_s=1.0, facts={}
)
NO_HEADER = Header(identity=None, courier=Slot(), drops=Slot(), collector=Slot())


def header(identity: Identity | None = IDENTITY, /, **slots: Slot) -> Header:
    """A header with these slots."""
    image = {"courier": Slot(), "drops": Slot(), "collector": Slot(), **slots}
    return Header(identity=identity, **image)


def bound(ledger: bytes, position: int = 4711) -> Slot:
    """A slot that says how far a ledger has committed."""
    return Slot(sequence=1, ledger=ledger, position=position, events_count=42)


def admitted(found: NewProducer | Refusal) -> NewProducer:
    """Who was taken up."""
    assert isinstance(found, NewProducer), found
    return found


def refused(found: NewProducer | Refusal) -> str:
    """Why somebody was not taken up."""
    assert isinstance(found, Refusal), found
    return found.reason


def test_a_new_producer_begins_at_its_start_and_is_known_by_name() -> None:
    """Nobody has taken anything of a journal that is bound to no ledger."""
    assert admit(PRODUCER, header(), HOUSE, is_volatile=True) == NewProducer(
        id=PRODUCER,
        position=0,
        name="gunicorn worker 3",
        host="web-1",
        key_mode="test",
        is_volatile=True,
        is_unseen=True,
    )


@pytest.mark.parametrize("writer", ["courier", "collector"])
@pytest.mark.parametrize("ledger", [OURS, ASIDE])
def test_an_unknown_producer_begins_at_its_headers_position(writer: str, ledger: bytes) -> None:
    """Rule L3: never at 0 by itself; a ledger that was put aside has taken what stands before."""
    found = admitted(admit(PRODUCER, header(**{writer: bound(ledger)}), HOUSE, is_volatile=False))
    assert (found.position, found.events_before) == (4711, 42)
    assert not found.is_volatile


def test_the_last_word_in_a_header_is_the_one_that_reaches_farther() -> None:
    """Rule L3: whoever of courier and collector heard of the later commit."""
    for courier, collector in ((10, 20), (20, 10)):
        both = header(courier=bound(OURS, courier), collector=bound(OURS, collector))
        assert admitted(admit(PRODUCER, both, HOUSE, is_volatile=False)).position == 20


def test_a_journal_of_an_unknown_ledger_waits_for_an_operator() -> None:
    """Rule L3: what a ledger elsewhere has taken is not taken again without a person's word."""
    reason = refused(admit(PRODUCER, header(courier=bound(STRANGE)), HOUSE, is_volatile=False))
    assert f"settle-mp adopt {PRODUCER.hex()}" in reason
    assert STRANGE.hex() in reason
    assert "gunicorn worker 3" in reason


@pytest.mark.parametrize("key_mode", ["live", "test", ""])
@pytest.mark.parametrize("house_mode", ["live", "test", ""])
def test_another_key_mode_is_refused(key_mode: str, house_mode: str) -> None:
    """Rule C2: test events are never billed with a live key, nor the other way; unknown modes fit any."""
    identity = replace(IDENTITY, key_mode=key_mode)
    found = admit(PRODUCER, header(identity), replace(HOUSE, key_mode=house_mode), is_volatile=False)
    if key_mode and house_mode and key_mode != house_mode:
        reason = refused(found)
        assert f"{key_mode} key" in reason
        assert f"{house_mode} key" in reason
    else:
        assert admitted(found).key_mode == key_mode


def test_a_header_that_cant_be_read_waits_where_a_ledger_was_put_aside() -> None:
    """Rule L3: nobody knows what that ledger has taken, so 0 would be a guess that may bill twice."""
    reason = refused(admit(PRODUCER, NO_HEADER, HOUSE, is_volatile=False))
    assert f"settle-mp adopt {PRODUCER.hex()}" in reason


def test_a_header_that_cant_be_read_begins_at_0_where_no_other_ledger_was() -> None:
    """There is nobody else who could have taken something."""
    found = admit(PRODUCER, NO_HEADER, replace(HOUSE, put_aside=()), is_volatile=False)
    assert admitted(found).position == 0


def test_a_lost_identity_alone_does_not_lose_the_position() -> None:
    """Rule L3: the slots have checksums of their own."""
    found = admit(PRODUCER, header(None, collector=bound(ASIDE)), HOUSE, is_volatile=False)
    assert admitted(found).position == 4711
    reason = refused(admit(PRODUCER, header(None, collector=bound(STRANGE)), HOUSE, is_volatile=False))
    assert "settle-mp adopt" in reason
