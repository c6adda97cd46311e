"""The traffic: which request number N is, by whom, and the usage that it stands for.

Rule 1: a request is told by its number alone, so that what was sent is known without asking any of our parts.
Rule 2: every event of a type has the same quantity, so that units tell how many events they are.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

#: Different users in the traffic. A few do a lot and many do little, as with real ones.
USERS_COUNT: Final = 300
MODELS: Final = ("large", "small")
TOKENS_MAX: Final = 4_000
#: How often the collector ships its sums, in seconds.
FLUSH_INTERVAL_S: Final = 5
#: Which worker answered, so that the demo knows whom it can kill.
WORKER_HEADER: Final = "X-Worker"
#: A request with this header is answered without being tracked: `settle-mp demo --sabotage`.
SABOTAGE_HEADER: Final = "X-Sabotage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One endpoint of the app, and the events that it tracks."""

    event_type: str
    path: str
    #: Of one event. 0.1 has no exact binary fraction, so that sums of it show whether they are exact.
    quantity: Decimal
    #: Requests of a hundred.
    percent: int
    #: What events carry beside user, type and quantity, in words.
    carries: str
    #: The metadata rule: names that stay, are added up, are forgotten. All empty: there is no rule.
    keep: tuple[str, ...] = ()
    sum: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    @property
    def has_rule(self) -> bool:
        """Whether the settings file has a rule for it."""
        return bool(self.keep or self.sum or self.drop)


AI_QUERY: Final = Kind(
    event_type="AI_QUERY",
    path="/ask",
    quantity=Decimal(1),
    percent=55,
    carries="model, tokens, request_id",
    keep=("model",),
    sum=("tokens",),
    drop=("request_id",),
)
VIDEO_MINUTES: Final = Kind(
    event_type="VIDEO_MINUTES",
    path="/watch",
    quantity=Decimal("0.1"),
    percent=35,
    carries="no metadata",
)
PDF_EXPORT: Final = Kind(
    event_type="PDF_EXPORT",
    path="/export",
    quantity=Decimal(1),
    percent=10,
    carries="request_id",
)
KINDS: Final = (AI_QUERY, VIDEO_MINUTES, PDF_EXPORT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request, and the metadata of the event that the app tracks for it."""

    id: str
    kind: Kind
    user_id: str
    metadata: dict[str, Any] | None

    @property
    def body(self) -> bytes:
        """What is posted to the kind's path."""
        return json.dumps({"user": self.user_id, "request_id": self.id, **(self.metadata or {})}).encode()


def request(number: int) -> Request:
    """Give request number N; the same for every call."""
    dice = random.Random(number)  # noqa: S311 - Traffic, not secrets.
    kind = dice.choices(KINDS, weights=[each.percent for each in KINDS])[0]
    # Cubed: about as uneven as Zipf's law, a sixth of all requests by one user.
    user_id = f"user_{int(dice.random() ** 3 * USERS_COUNT):03}"
    request_id = f"r{number:06}"
    metadata: dict[str, Any] | None = None
    if kind is AI_QUERY:
        tokens = dice.randint(1, TOKENS_MAX)
        metadata = {"model": dice.choice(MODELS), "tokens": tokens, "request_id": request_id}
    elif kind is PDF_EXPORT:
        metadata = {"request_id": request_id}
    return Request(id=request_id, kind=kind, user_id=user_id, metadata=metadata)


def answer_to(request_id: str) -> bytes:
    """Give the body of the one right answer to a request."""
    return json.dumps({"done": request_id}).encode()


def settings_file() -> str:
    """Write the settings file of the demo."""
    lines = [
        "# How often sums are shipped. The run is short: the default of 2 s would leave less to add up.",
        f"flush_interval_s = {FLUSH_INTERVAL_S}",
    ]
    for kind in KINDS:
        if kind.has_rule:
            lines += ["", f"[events.{kind.event_type}]"]
            lines += [f"{name} = {json.dumps(getattr(kind, name))}" for name in ("keep", "sum", "drop")]
    return "\n".join(lines) + "\n"
