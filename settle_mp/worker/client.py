"""What the user holds: `Settle` and its `events`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic

from settle_mp import config
from settle_mp.worker.mode import mode_of
from settle_mp.worker.producer import producer_for
from settle_mp.worker.report import FlushReport
from settle_mp.worker.track import EventT_contra, Tracker, disabled_track, make_track

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from typing_extensions import Unpack

    from settle_mp.arguments import NamedArguments
    from settle_mp.config import Settings
    from settle_mp.core.secret import Secret
    from settle_mp.core.usage import UsageSummary
    from settle_mp.worker.line import Line
    from settle_mp.worker.wallet import Wallet

#: Seconds that a call whose answer is waited for may take, all its tries together.
CALL_TIMEOUT_S: Final = 10.0


class Events(Tracker[EventT_contra]):
    """Usage events: `track` them, and rarely more."""

    def __init__(self, settings: Settings) -> None:
        """Use `Settle().events`."""
        self._settings = settings
        self._line: Line | None = None
        self._is_disabled = settings.disabled
        self._producer = producer_for(settings)
        vars(self)["track"] = disabled_track if settings.disabled else make_track(self._producer, settings)

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


class Settle(Generic[EventT_contra]):
    """The client. Making one opens nothing and starts nothing: safe at import and before a fork.

    `Settle[AppEvent]()`, where AppEvent is a Literal, a StrEnum or an Enum whose values are texts, lets type
    checkers take no other event type in `track`, and editors complete the names.

    Args:
        api_key: The setting. It and the next may be given by position, as to the vendor's clients.
        base_url: The setting.
        event_types: The only event types that `track()` takes: an Enum class, or names. None takes any. Type
            checkers see a client of these types.
        settings: Any other setting by name (see the settings table of the README); others come from the
            environment, from `settle-mp.toml`, or are defaults.

    Raises:
        SettingsError: For a setting that can't be, naming it, its source and what is allowed.
    """

    def __init__(
        self,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        *,
        event_types: Iterable[EventT_contra] | None = None,
        **settings: Unpack[NamedArguments],
    ) -> None:
        self._settings = config.load(api_key=api_key, base_url=base_url, event_types=event_types, **settings)
        self._mode = mode_of(self._settings)
        self._wallet: Wallet | None = None
        self.events: Events[EventT_contra] = Events(self._settings)

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

    def __enter__(self) -> Settle[EventT_contra]:
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
