"""Rows: what a strict upstream takes as an event, and the list of everything wrong with a body.

Rule 1: a batch is taken whole or refused whole.
Rule 2: a refusal names each bad row by its index, like `events[3].quantity`.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, NamedTuple

from settle_mp.sandbox import exact

#: Levels of objects and arrays in metadata.
DEPTH_MAX: Final = 64
#: Faults named in one refusal at most.
FIELDS_MAX: Final = 100
# Tuples made once: a union is made anew at each use, for every row.
_NUMBERS: Final = (int, Decimal)
_NESTING: Final = (dict, list)
_NAMES: Final = ("userId", "eventType", "quantity", "metadata")
_KNOWN: Final = frozenset(_NAMES)

Fields = dict[str, list[str]]


class Row(NamedTuple):
    """What is counted of one event. Its metadata stay in the request's body (see `metadata_of`)."""

    user_id: str
    event_type: str
    #: A plain decimal.
    quantity: str


class BadBodyError(ValueError):
    """A body that is refused; `fields` says where and why."""

    def __init__(self, message: str, fields: Fields | None = None) -> None:
        super().__init__(message)
        self.fields: Fields = fields or {}


class TooManyRowsError(ValueError):
    """A batch of more rows than the server takes."""


def parse_event(body: bytes) -> Row:
    """Read the body of `POST /v1/events`.

    Raises:
        BadBodyError: When it is not one good event.
    """
    fields: Fields = {}
    row = _checked_row(parse_json(body), "", fields)
    if row is None:
        raise BadBodyError("The event is not valid.", fields)
    return row


def parse_batch(body: bytes, rows_max: int) -> list[Row]:
    """Read the body of `POST /v1/events/batch`.

    Raises:
        BadBodyError: When any row is bad, or it is no batch at all.
        TooManyRowsError: When it has more than `rows_max` rows.
    """
    events = _parse_events(body)
    if len(events) > rows_max:
        raise TooManyRowsError(f"A batch takes {rows_max} events at most, and this one has {len(events)}.")
    fields: Fields = {}
    rows = [_checked_row(event, f"events[{index}].", fields) for index, event in enumerate(events)]
    if fields:
        named = dict(list(fields.items())[:FIELDS_MAX])
        raise BadBodyError("The batch has events that are not valid; none of it was applied.", named)
    return [row for row in rows if row is not None]


def metadata_of(body: bytes) -> list[str]:
    """Give the metadata of each event of a body that was taken, as JSON text; "null" where there are none."""
    parsed = exact.loads(body)
    return [exact.dumps(event.get("metadata")) for event in parsed.get("events", [parsed])]


def parse_json(body: bytes) -> Any:
    """Read a body as JSON.

    Raises:
        BadBodyError: When it is none.
    """
    try:
        return exact.loads(body)
    except ValueError as error:
        raise BadBodyError(f"The body is not JSON: {error}.") from None


def _parse_events(body: bytes) -> list[Any]:
    parsed = parse_json(body)
    if not isinstance(parsed, dict) or set(parsed) != {"events"}:
        raise BadBodyError('The body must be an object with "events" alone.', {"events": ["is required"]})
    events = parsed["events"]
    if not isinstance(events, list) or not events:
        raise BadBodyError(
            "events must be an array of at least one event.", {"events": ["must not be empty"]}
        )
    return events


def _checked_row(event: Any, where: str, fields: Fields) -> Row | None:
    if not isinstance(event, dict):
        fields[where.rstrip(".") or "event"] = ["must be an object"]
        return None
    user_id, event_type = event.get("userId"), event.get("eventType")
    quantity = event.get("quantity", 1)
    faults = (
        name_fault(user_id),
        name_fault(event_type),
        _quantity_fault(quantity),
        metadata_fault(event.get("metadata")),
    )
    unknown = () if _KNOWN.issuperset(event) else sorted(event.keys() - _KNOWN)
    if unknown or any(faults):
        named = [*zip(_NAMES, faults, strict=True), *((name, "is not known") for name in unknown)]
        fields.update({where + name: [fault] for name, fault in named if fault is not None})
        return None
    return Row(user_id, event_type, exact.plain(quantity))  # type: ignore[arg-type]


def name_fault(value: Any) -> str | None:
    """Say what is wrong with a text that must be there, if anything."""
    if not isinstance(value, str) or not value:
        return "must be a non-empty string"
    # JSON can spell half a surrogate pair, which no text column can hold.
    return None if value.isascii() or _is_text(value) else "must be valid Unicode text"


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def metadata_fault(value: Any) -> str | None:
    """Say what is wrong with metadata, if anything."""
    # The vendor's SDK sends null where there are none.
    if value is None:
        return None
    if not isinstance(value, dict):
        return "must be an object"
    return f"must not be nested more than {DEPTH_MAX} levels deep" if _is_deep(value, DEPTH_MAX) else None


def _is_deep(value: Any, levels: int) -> bool:
    for each in value.values() if isinstance(value, dict) else value:
        if isinstance(each, _NESTING) and (levels == 0 or _is_deep(each, levels - 1)):
            return True
    return False


def _quantity_fault(value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, _NUMBERS):
        return "must be a number"
    if value <= 0:
        return "must be greater than 0"
    if not exact.is_within_digits(value):
        return f"must have at most {exact.QUANTITY_DIGITS_MAX} digits on either side of its point"
    return None
