"""Faults: the ways in which the sandbox can be told to misbehave, as values that are checked when made."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, get_args

from settle_mp.sandbox.answers import Answer, failure

Action = Literal["pass", "answer", "reset", "hold", "drip", "refuse"]
When = Literal["before", "after"]

#: Seconds that one fault can make a request wait.
DELAY_S_MAX: Final = 3_600.0
# The server writes these itself; h11 refuses an answer in which they are wrong.
_FRAMING: Final = frozenset({"content-length", "transfer-encoding", "connection"})
_BODILESS: Final = frozenset({204, 304})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way to misbehave: which requests it meets, where on their way, and what happens then.

    The fields are those of the JSON object that `POST /sandbox/faults` takes. Prefer the named makers
    (`Fault.answering(503)`, `Fault.reset()`, …) in Python.

    Attributes:
        action: `pass` (only the delay), `answer` (with status, headers and body), `reset` (RST instead of
            an answer), `hold` (wait until released, then go on), `drip` (the answer, a byte every
            `interval_s`), `refuse` (400 for requests with rows of `user_id`, until cleared).
        when: `before` or `after` the rows are applied; an `answer` or `reset` before means not applied.
        times: How many requests meet it; None for all until it is cleared.
        delay_s: Seconds to wait, at the place that `when` says, before the action.
        path: Only requests of this path.
        user_id: Only requests with a row of this user.
        event_type: Only requests with a row of this type.
        status: The status to answer with; `drip` without one sends the true answer.
        headers: Headers of that answer, `Retry-After` for example.
        body: Body of that answer; None for one in the upstream's shape.
        is_stored: Whether that answer is kept under the request's idempotency key, and replayed.
        interval_s: Seconds between two bytes of a `drip`.
    """

    action: Action = "pass"
    when: When = "after"
    times: int | None = 1
    delay_s: float = 0.0
    path: str | None = None
    user_id: str | None = None
    event_type: str | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    is_stored: bool = False
    interval_s: float = 1.0

    def __post_init__(self) -> None:
        _check_choice("action", self.action, get_args(Action))
        _check_choice("when", self.when, get_args(When))
        _check_number("times", self.times, int, 1, 10**9)
        _check_number("delay_s", self.delay_s, float, 0, DELAY_S_MAX)
        _check_number("interval_s", self.interval_s, float, 0, DELAY_S_MAX)
        _check_number("status", self.status, int, 200, 599)
        for name in ("path", "user_id", "event_type", "body"):
            if not isinstance(getattr(self, name), str | None):
                raise TypeError(f"{name} must be a string or null")
        if not isinstance(self.is_stored, bool):
            raise TypeError("is_stored must be true or false")
        _check_headers(self.headers)
        self._check_sense()

    def _check_sense(self) -> None:
        if self.action == "answer" and self.status is None:
            raise ValueError("status is required for action 'answer'")
        if self.action == "drip" and self.when == "before" and self.status is None:
            raise ValueError("status is required to drip before the rows are applied: there is no answer yet")
        if self.action == "refuse" and self.user_id is None:
            raise ValueError("user_id is required for action 'refuse'")
        if self.status in _BODILESS and self.body:
            raise ValueError(f"body must be empty with status {self.status}")
        if self.is_stored and (self.action != "answer" or self.when != "before"):
            raise ValueError(
                "is_stored is for action 'answer' with when 'before': else the true one is stored"
            )

    @classmethod
    def answering(cls, status: int, **fields: Any) -> Fault:
        """Answer with a status; `when="before"` keeps the rows from being applied."""
        return cls(action="answer", status=status, **fields)

    @classmethod
    def html(cls, status: int = 200, **fields: Any) -> Fault:
        """Answer with a page, as a captive portal or a proxy does."""
        page = "<!doctype html><title>Welcome</title><h1>Please sign in</h1>"
        return cls(action="answer", status=status, headers={"content-type": "text/html"}, body=page, **fields)

    @classmethod
    def redirect(cls, location: str, status: int = 307, **fields: Any) -> Fault:
        """Send the client elsewhere, without applying anything."""
        return cls(
            action="answer", status=status, when="before", headers={"location": location}, body="", **fields
        )

    @classmethod
    def delay(cls, delay_s: float, **fields: Any) -> Fault:
        """Let the request wait, then go on."""
        return cls(delay_s=delay_s, **fields)

    @classmethod
    def reset(cls, **fields: Any) -> Fault:
        """Reset the connection instead of answering."""
        return cls(action="reset", **fields)

    @classmethod
    def hold(cls, **fields: Any) -> Fault:
        """Keep requests waiting until they are released; every matching one, unless `times` is given."""
        return cls(action="hold", **{"times": None, **fields})

    @classmethod
    def drip(cls, interval_s: float = 1.0, **fields: Any) -> Fault:
        """Send the answer a byte at a time."""
        return cls(action="drip", interval_s=interval_s, **fields)

    @classmethod
    def refuse(cls, user_id: str, **fields: Any) -> Fault:
        """Refuse (400) every batch with rows of one user, naming them, until cleared."""
        return cls(action="refuse", user_id=user_id, **{"times": None, **fields})

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """Read a fault from a parsed JSON object.

        Raises:
            TypeError, ValueError: Naming the field, and what is allowed.
        """
        if not isinstance(value, dict):
            raise TypeError("a fault must be an object")
        known = [each.name for each in dataclasses.fields(cls)]
        unknown = sorted(value.keys() - set(known))
        if unknown:
            raise ValueError(f"{unknown[0]} is not a field of a fault; these are: {', '.join(known)}")
        return cls(**value)

    def to_json(self) -> dict[str, Any]:
        """Write it as the JSON object that `from_json` reads."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def matches(self, path: str, user_ids: Collection[str], event_types: Collection[str]) -> bool:
        """Whether a request with these rows meets it."""
        return (
            (self.path is None or self.path == path)
            and (self.user_id is None or self.user_id in user_ids)
            and (self.event_type is None or self.event_type in event_types)
        )

    def answer(self) -> Answer:
        """Make the answer it was told to give; it must have a status."""
        status = self.status or 200
        body = failure(status, f"The sandbox was told to answer {status}.").body
        if self.body is not None or status in _BODILESS:
            body = (self.body or "").encode()
        names = {name.lower() for name in self.headers}
        default = {} if "content-type" in names or not body else {"content-type": "application/json"}
        return Answer(status=status, body=body, headers={**default, **self.headers})


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")


def _check_number(name: str, value: Any, kind: type, low: float, high: float) -> None:
    if value is None and name in {"times", "status"}:
        return
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        kinds = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} must be {kinds} from {low:g} to {high:g}, not {value!r}")


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, Mapping) or not all(
        isinstance(part, str) and part.isascii() and part.isprintable()
        for pair in headers.items()
        for part in pair
    ):
        raise ValueError("headers must be an object of printable ASCII strings")
    framing = sorted(name for name in headers if name.lower() in _FRAMING)
    if framing:
        raise ValueError(f"headers must not hold {framing[0]}: the server writes it")
