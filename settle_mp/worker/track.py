"""`track()`: the hot path, and the slow one behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Generic
from zlib import crc32

import msgpack

from settle_mp.core.event import (
    QUANTITY_MAX,
    USER_ID_CHARS_MAX,
    checked_event_type,
    pack_event,
)
from settle_mp.core.metadata import METADATA_BYTES_MAX, is_flat
from settle_mp.core.naming import name_of
from settle_mp.core.record import HEAD
from settle_mp.worker.foreign import is_foreign
from settle_mp.worker.life import stand_in
from settle_mp.worker.naming import Naming
from settle_mp.worker.segment import NoRoomError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal
    from enum import Enum
    from fractions import Fraction
    from typing import SupportsIndex

    # Checkers know this module without its being installed. Who names no event types may use any text.
    from typing_extensions import TypeVar

    from settle_mp.config import Settings
    from settle_mp.worker.producer import Producer

    EventT_contra = TypeVar("EventT_contra", bound="str | Enum", contravariant=True, default=str)
else:
    from typing import TypeVar

    EventT_contra = TypeVar("EventT_contra", contravariant=True)

#: Event types that the hot path knows by heart; others take the slow path, which checks their names.
KNOWN_TYPES_MAX: Final = 1024


class Tracker(Generic[EventT_contra]):
    """What `events` of both clients begin with."""

    def track(
        self,
        user_id: str,
        event_type: EventT_contra,
        quantity: float | Decimal | Fraction | SupportsIndex = 1,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a user did something. Durable when it returns; never waits, never awaited.

        Args:
            user_id: Whose usage it is, 1 to 256 characters.
            event_type: What was done, 1 to 128 characters, by convention SCREAMING_SNAKE_CASE: a text, or a
                member of an Enum whose values are texts.
            quantity: How much, from 1e-9 to 10**12: an int, float or Decimal, or a Fraction or numpy scalar
                that is exactly one.
            metadata: Anything JSON has under str keys, at most 8,192 bytes encoded; also datetimes, Decimals,
                UUIDs, Enums, bytes, sets, dataclasses, pydantic models and numpy scalars.

        Raises:
            TypeError, ValueError: For bad arguments, unless the setting `on_invalid` is "count".
        """
        # An instance has a function of its own under this name: a call less, and all it needs at hand.
        vars(self)["track"](user_id, event_type, quantity, metadata)


def make_track(producer: Producer, settings: Settings) -> Callable[..., None]:
    """Build `track()`: everything that it touches is a local of this function.

    It checks, packs and appends in one go. Whatever is not plain falls through to the slow path, which
    checks everything again and says what is wrong.
    """
    slot, asleep, wake = producer.slot, producer.asleep, producer.wake
    pack = msgpack.Packer(strict_types=True, autoreset=True).pack
    head = HEAD.pack
    chars_max, quantity_max, bytes_max = USER_ID_CHARS_MAX, QUANTITY_MAX, METADATA_BYTES_MAX
    # What is sent for each event type: members of an Enum are found as quickly as texts.
    names: dict[object, str] = {}
    track_slowly = _make_slow_track(producer, settings, names)

    def track(
        user_id: str,
        event_type: str,
        quantity: float | Decimal = 1,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a user did something; see `Tracker.track`."""
        try:
            if asleep:
                wake()
            if (
                type(user_id) is str
                and user_id
                and len(user_id) <= chars_max
                and type(quantity) is int
                and 0 < quantity <= quantity_max
                and (metadata is None or is_flat(metadata))
            ):
                payload = pack([user_id, names[event_type], quantity, metadata])
                length = len(payload)
                if length <= bytes_max:
                    write, tell, seed = slot[0]
                    write(head(length, crc32(payload, seed), tell()) + payload)
                    return
        except (ValueError, TypeError, OverflowError, KeyError, NoRoomError) as error:
            if is_foreign(error):
                raise
        track_slowly(user_id, event_type, quantity, metadata)

    return track


def _make_slow_track(
    producer: Producer, settings: Settings, names: dict[object, str]
) -> Callable[[object, object, object, object], None]:
    naming, raises = Naming(settings), settings.on_invalid == "raise"

    def track_slowly(user_id: object, event_type: object, quantity: object, metadata: object) -> None:
        try:
            name = checked_event_type(name_of(event_type))
            payload = pack_event(user_id, name, quantity, metadata)
            naming.check(name)
        except (TypeError, ValueError) as error:
            if raises or is_foreign(error):
                raise
            producer.drop(0, "event_refused", str(error))
            return
        if len(names) < KNOWN_TYPES_MAX and type(event_type).__hash__ is not None:
            # Texts of any class under plain text: a dict that has no other keys is looked up faster.
            names[name if isinstance(event_type, str) else event_type] = name
        producer.append(payload)

    return track_slowly


def disabled_track(
    user_id: str,
    event_type: str,
    quantity: float | Decimal = 1,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Do nothing: the setting `disabled` is on. A test that records means this event as well."""
    life = stand_in()
    if life is not None:
        life.journal.append(pack_event(user_id, name_of(event_type), quantity, metadata))
