"""For your tests: what your code tracks and charges, with no collector, no state folder and no API key.

pytest finds two fixtures by itself once settle-mp is installed:

    def test_an_answer_is_billed(settle_events, settle_wallet):
        settle_wallet.balances["user_123"] = 10

        answer("user_123", "What is a journal?")           # your code, with whatever client it made

        settle_events.assert_tracked("user_123", "AI_QUERY", metadata={"model": "gpt-4"}, times=1)
        assert settle_events.total("user_123") == 1
        assert settle_wallet.balances["user_123"] == 0

`settle_events` is a `RecordedEvents`, `settle_wallet` a `FakeWallet`. Without pytest, `record_events()` and
`fake_wallet()` are the same as context managers. Every client of the process is meant, sync and async, made
before or after, disabled or not. Arguments are checked as always.
"""

from settle_mp.core.event import Event
from settle_mp.testing.events import RecordedEvents, record_events
from settle_mp.testing.wallet import FakeWallet, fake_wallet

__all__ = ["Event", "FakeWallet", "RecordedEvents", "fake_wallet", "record_events"]
