"""What was tracked while a test ran, and claims about it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, overload
from urllib.parse import parse_qs, urlsplit

from settle_mp.core import fold
from settle_mp.core.answer import BodyKind, Reply
from settle_mp.core.call import Heard
from settle_mp.core.event import Event, exact
from settle_mp.worker.line import stand_ins
from settle_mp.worker.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from settle_mp.core.call import Call
    from settle_mp.core.event import Quantity

#: How long `wait` waits if it is not told, in seconds.
WAIT_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.005
#: Events that a failed claim lists.
_SHOWN_MAX: Final = 20


class RecordedEvents(Sequence[Event]):
    """The events of this process and of its forked children, in the order in which they were tracked.

    It is a sequence: `len(events)`, `events[0].quantity`, `for event in events`. An event is a named tuple
    `(user_id, event_type, quantity, metadata)`: its quantity an int or a Decimal, its metadata as they would
    go upstream (tuples are lists), before the rules of a `settle-mp.toml`.

    The methods that take `user_id`, `event_type`, `quantity` and `metadata` mean the events that have what is
    given, and every event where nothing is. Of `metadata`, the given pairs must be among the event's.
    """

    def __init__(self, recording: Recording) -> None:
        """Use the fixture `settle_events`, or `record_events()`."""
        self._recording = recording

    # --- Looking ---

    def where(
        self,
        user_id: str | None = None,
        event_type: str | None = None,
        *,
        quantity: float | Decimal | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> list[Event]:
        """Find the events that have what is given."""
        wanted = (user_id, event_type, None if quantity is None else exact(quantity))
        pairs = dict(metadata or {}).items()
        return [
            event
            for event in self
            if all(want is None or want == has for want, has in zip(wanted, event[:3], strict=True))
            and pairs <= (event.metadata or {}).items()
        ]

    def total(
        self,
        user_id: str | None = None,
        event_type: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
    ) -> Quantity:
        """Add up the quantities of the events that have what is given: exact, an int if all of them are."""
        return fold.total(each.quantity for each in self.where(user_id, event_type, metadata=metadata))

    def totals(self, user_id: str | None = None) -> dict[str, Quantity]:
        """Add up the quantities by event type, of one user or of all."""
        found = self.where(user_id)
        types = dict.fromkeys(each.event_type for each in found)
        return {
            name: fold.total(each.quantity for each in found if each.event_type == name) for name in types
        }

    @property
    def dropped_count(self) -> int:
        """Events that were refused and only counted: those of clients with `on_invalid = "count"`."""
        return sum(each.event is None for each in self._recording.read())

    # --- Claiming ---

    def assert_tracked(
        self,
        user_id: str | None = None,
        event_type: str | None = None,
        *,
        quantity: float | Decimal | None = None,
        metadata: Mapping[str, Any] | None = None,
        times: int | None = None,
    ) -> list[Event]:
        """Claim that there are events that have what is given, and return them.

        Args:
            user_id: Whose.
            event_type: What.
            quantity: How much in one event.
            metadata: Pairs that are among an event's metadata.
            times: How many such events there are; None for one or more.

        Raises:
            AssertionError: When it is not so, with what was recorded.
        """
        found = self.where(user_id, event_type, quantity=quantity, metadata=metadata)
        if (found and times is None) or len(found) == times:
            return found
        claim = _spelled(user_id, event_type, quantity, metadata)
        often = "at least once" if times is None else f"{times} times"
        raise AssertionError(f"{claim} should have been tracked {often}, not {len(found)} times; {self!r}")

    def assert_not_tracked(
        self,
        user_id: str | None = None,
        event_type: str | None = None,
        *,
        quantity: float | Decimal | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Claim that no event has what is given; that there is none at all, where nothing is given.

        Raises:
            AssertionError: When it is not so, with what was recorded.
        """
        self.assert_tracked(user_id, event_type, quantity=quantity, metadata=metadata, times=0)

    # --- Waiting and starting over ---

    def wait(self, count: int, timeout: float = WAIT_S) -> list[Event]:
        """Wait until at least so many events are there, where a thread or a child tracks them.

        Args:
            count: How many.
            timeout: How long to wait, in seconds.

        Raises:
            AssertionError: When they did not come in time, with what was recorded.
        """
        deadline_s = time.monotonic() + timeout
        while len(events := list(self)) < count:
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{count} events should have been tracked within {timeout} s; {self!r}")
            time.sleep(_LOOK_AGAIN_S)
        return events

    def clear(self) -> None:
        """Forget what was tracked so far."""
        self._recording.clear()

    # --- Being a sequence ---

    def _events(self) -> list[Event]:
        return [each.event for each in self._recording.read() if each.event is not None]

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events())

    def __len__(self) -> int:
        return len(self._events())

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> list[Event]: ...
    def __getitem__(self, index: int | slice) -> Event | list[Event]:
        return self._events()[index]

    def __repr__(self) -> str:
        events = self._events()
        shown = "".join(f"\n  {_spelled(*event)}" for event in events[:_SHOWN_MAX])
        more = f"\n  and {len(events) - _SHOWN_MAX} more" if len(events) > _SHOWN_MAX else ""
        return f"recorded: {len(events)} events{shown}{more}"


@contextlib.contextmanager
def record_events() -> Iterator[RecordedEvents]:
    """Record what every client of this process tracks, and of the children that it forks meanwhile.

    Nothing is journaled, sent or started. Each event is pending until the next `flush()`, which confirms all
    of its process at once; `get_summary()` tells what was recorded.
    """
    recording = Recording()
    events = RecordedEvents(recording)
    summaries = _Summaries(events)
    recording.start()
    stand_ins.append(summaries)
    try:
        yield events
    finally:
        stand_ins.remove(summaries)
        recording.stop()


class _Summaries:
    """Answers `get_summary()` as an upstream that has counted what was recorded."""

    def __init__(self, events: RecordedEvents) -> None:
        self._events = events

    def takes(self, call: Call[Any]) -> bool:
        return call.path.startswith("/v1/events/summary?")

    def call(self, call: Call[Any], *, timeout_s: float) -> Heard:
        del timeout_s
        (user_id,) = parse_qs(urlsplit(call.path).query, keep_blank_values=True)["userId"]
        summary = [
            {"eventType": name, "totalQuantity": total, "count": len(self._events.where(user_id, name))}
            for name, total in self._events.totals(user_id).items()
        ]
        reply = Reply(status=200, body_kind=BodyKind.JSON)
        return Heard(reply=reply, payload={"data": {"summary": summary}}, headers={})


def _spelled(user_id: object, event_type: object, quantity: object, metadata: object) -> str:
    given = [] if user_id is None else [repr(user_id)]
    given += [] if event_type is None else [repr(event_type) if given else f"event_type={event_type!r}"]
    given += [] if quantity is None else [f"quantity={quantity}"]
    given += [f"metadata={metadata!r}"] if metadata else []
    return f"track({', '.join(given)})"
