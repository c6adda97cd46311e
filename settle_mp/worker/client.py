"""What the user holds: `Settle`, its `events`, and the hot path."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgpack

from settle_mp import config
from settle_mp.core.event import (
    METADATA_BYTES_MAX,
    QUANTITY_MAX,
    USER_ID_CHARS_MAX,
    exact,
    is_flat,
    pack_event,
)
from settle_mp.core.record import HEAD
from settle_mp.worker.foreign import is_foreign
from settle_mp.worker.life import stand_in
from settle_mp.worker.mode import mode_of
from settle_mp.worker.producer import Producer, producer_for
from settle_mp.worker.report import FlushReport
from settle_mp.worker.segment import NoRoomError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from decimal import Decimal
    from types import TracebackType

    from settle_mp.config import Settings
    from settle_mp.core.usage import UsageSummary
    from settle_mp.worker.line import Line
    from settle_mp.worker.wallet import Wallet

log = logging.getLogger("settle_mp")

#: Event types that the hot path knows by heart; others take the slow path, which checks their names.
KNOWN_TYPES_MAX: Final = 1024

#: Seconds that a call whose answer is waited for may take, all its tries together.
CALL_TIMEOUT_S: Final = 10.0


class Events:
    """Usage events: `track` them, and rarely more.

    Attributes:
        track: `track(user_id, event_type, quantity=1, metadata=None) -> None`; see `_make_track`.
    """

    track: Callable[..., None]

    def __init__(self, settings: Settings) -> None:
        """Use `Settle().events`."""
        self._settings = settings
        self._line: Line | None = None
        self._is_disabled = settings.disabled
        self._producer = producer_for(settings)
        self.track = (
            _disabled_track if settings.disabled else _make_track(self._producer, settings.on_invalid)
        )

    def flush(self, timeout: float = 5.0) -> FlushReport:
        """Wait until the upstream has accepted everything tracked so far in this process.

        Never raises for a slow or absent collector: the report says what is unconfirmed and why, and the
        events stay journaled. What was refused, held or dropped makes the first flush that meets it falsy;
        later flushes are about later events.

        Args:
            timeout: One deadline for the whole call, in seconds; 0 only asks.

        Returns:
            The events confirmed and unconfirmed, and the reason when any are unconfirmed.

        Raises:
            TypeError, ValueError: If timeout is not a number of seconds, or negative.
        """
        timeout_s = checked_timeout(timeout)
        if self._is_disabled:
            return FlushReport(confirmed_count=0, unconfirmed_count=0)
        return self._producer.flush(timeout_s)

    @property
    def pending_count(self) -> int:
        """Events of this process that the collector has not committed yet. 0 does not mean billed."""
        return 0 if self._is_disabled else self._producer.pending_count

    def get_summary(self, user_id: str, *, timeout: float = CALL_TIMEOUT_S) -> UsageSummary:
        """Ask the upstream what it has counted of a user: a request, which needs the API key.

        Events that the collector has not shipped yet are not in it; `flush()` first where that matters. Where
        events are disabled it is empty.

        Args:
            user_id: Whose usage, 1 to 256 characters.
            timeout: One deadline for all tries, in seconds.

        Raises:
            SettleSettleError: When the upstream refuses or can't be reached.
            TypeError, ValueError: For bad arguments.
        """
        from settle_mp.core.usage_calls import summary_call
        from settle_mp.worker.line import line_for

        call = summary_call(user_id)
        if self._is_disabled:
            return call.read({"summary": []})
        self._line = line_for(self._settings)
        return self._line.do(call, timeout=timeout, on_in_doubt="raise")


class Settle:
    """The client. Making one opens nothing and starts nothing: safe at import and before a fork.

    Args:
        settings: Any setting by name (see the settings table of the README); others come from the
            environment, from `settle-mp.toml`, or are defaults.

    Raises:
        SettingsError: For a setting that can't be, naming it, its source and what is allowed.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = config.load(**settings)
        self._mode = mode_of(self._settings)
        self._wallet: Wallet | None = None
        self.events = Events(self._settings)

    @property
    def wallet(self) -> Wallet:
        """Credits of users: calls that wait for the API's answer, straight from this process."""
        if self._wallet is None:
            from settle_mp.worker.wallet import Wallet

            self._wallet = Wallet(self._settings)
        return self._wallet

    @property
    def is_sandbox(self) -> bool:
        """Whether the API key was a test key (`ss_test_...`) when this client was made."""
        return self._mode == "test"

    @property
    def is_live(self) -> bool:
        """Whether the API key was a live key (`ss_live_...`) when this client was made."""
        return self._mode == "live"

    def close(self, timeout: float = 1.0) -> None:
        """Hand everything to the collector and end this process's connections.

        Nothing is lost without it: what is journaled is shipped all the same. May be called again;
        `track()` still journals afterwards, and the wallet opens a connection anew.

        Args:
            timeout: How long to wait for the collector to take it, in seconds.

        Raises:
            TypeError, ValueError: If timeout is not a number of seconds, or negative.
        """
        timeout_s = checked_timeout(timeout)
        if not self._settings.disabled:
            self.events._producer.close(timeout_s)  # noqa: SLF001  events is a part of this client
        if self.events._line is not None:  # noqa: SLF001  the same
            self.events._line.close()  # noqa: SLF001  the same
        if self._wallet is not None:
            self._wallet.close()

    def destroy(self, timeout: float = 1.0) -> None:
        """Do what `close` does, under the vendor's name for it."""
        self.close(timeout)

    def __enter__(self) -> Settle:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Settle(state_dir={str(self._settings.state_dir)!r})"


def _make_track(producer: Producer, on_invalid: str) -> Callable[..., None]:
    """Build `track()`: everything that it touches is a local of this function.

    It checks, packs and appends in one go. Whatever is not plain falls through to the slow path, which
    checks everything again and says what is wrong.
    """
    slot, asleep, wake = producer.slot, producer.asleep, producer.wake
    pack = msgpack.Packer(strict_types=True, autoreset=True).pack
    head = HEAD.pack
    chars_max, quantity_max, bytes_max = USER_ID_CHARS_MAX, QUANTITY_MAX, METADATA_BYTES_MAX
    known_types: set[str] = set()
    track_slowly = _make_slow_track(producer, on_invalid, known_types)

    def track(
        user_id: str,
        event_type: str,
        quantity: float | Decimal = 1,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a user did something. Durable when it returns; never waits, never awaited.

        Args:
            user_id: Whose usage it is, 1 to 256 characters.
            event_type: What was done, 1 to 128 characters, by convention SCREAMING_SNAKE_CASE.
            quantity: How much: an int, float or Decimal from 1e-9 to 10**12.
            metadata: Anything JSON has under str keys, at most 8,192 bytes encoded.

        Raises:
            TypeError, ValueError: For bad arguments, unless the setting `on_invalid` is "count".
        """
        try:
            if asleep:
                wake()
            if (
                type(user_id) is str
                and 0 < len(user_id) <= chars_max
                and event_type in known_types
                and type(quantity) is int
                and 0 < quantity <= quantity_max
                and (metadata is None or is_flat(metadata))
            ):
                payload = pack([user_id, event_type, quantity, metadata])
                length = len(payload)
                if length <= bytes_max:
                    write, tell, seed = slot[0]
                    write(head(length, crc32(payload, seed), tell()) + payload)
                    return
        except (ValueError, TypeError, OverflowError, NoRoomError) as error:
            if is_foreign(error):
                raise
        track_slowly(user_id, event_type, quantity, metadata)

    return track


def _make_slow_track(
    producer: Producer, on_invalid: str, known_types: set[str]
) -> Callable[[object, object, object, object], None]:
    def track_slowly(user_id: object, event_type: object, quantity: object, metadata: object) -> None:
        try:
            payload = pack_event(user_id, event_type, quantity, metadata)
        except (TypeError, ValueError) as error:
            if on_invalid == "raise" or is_foreign(error):
                raise
            producer.drop(0, "event_refused", str(error))
            return
        if type(event_type) is str and len(known_types) < KNOWN_TYPES_MAX:
            known_types.add(event_type)
        producer.append(payload, exact(quantity))  # type: ignore[arg-type]

    return track_slowly


def _disabled_track(
    user_id: str,
    event_type: str,
    quantity: float | Decimal = 1,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Do nothing: the setting `disabled` is on. A test that records means this event as well."""
    life = stand_in()
    if life is not None:
        life.journal.append(pack_event(user_id, event_type, quantity, metadata))


def checked_timeout(timeout: object) -> float:
    """Return a number of seconds, 0 or more.

    Raises:
        TypeError, ValueError: For anything else.
    """
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        msg = f"timeout must be a number of seconds, not {type(timeout).__name__}"
        raise TypeError(msg)
    if not 0 <= timeout < math.inf:
        msg = f"timeout must be 0 or more seconds, and finite, not {timeout!r}"
        raise ValueError(msg)
    return float(timeout)
