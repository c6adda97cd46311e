"""Events through bytes and back, what is refused on the way, and metadata of a given size."""

from __future__ import annotations

from typing import Any

import pytest

from settle_mp.core.event import Event, pack_event, unpack_event


def through_bytes(
    user_id: object = "u", event_type: object = "E", quantity: object = 1, metadata: object = None
) -> Event:
    """Pack an event and unpack it."""
    return unpack_event(pack_event(user_id, event_type, quantity, metadata))


def refusal(error: type[Exception], **arguments: object) -> str:
    """Track what must be refused, and return the message."""
    with pytest.raises(error) as caught:
        through_bytes(**arguments)
    # Not a subclass: a UnicodeEncodeError is a ValueError too, and names no argument.
    assert caught.type is error
    return str(caught.value)


def typed(value: Any) -> Any:
    """A value beside its type, all the way down: Python's == takes True for 1 and 1.0."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [typed(item) for item in value]
    return type(value), repr(value)


def nested(levels: int) -> dict[str, Any]:
    """Metadata of that many levels, a dict and lists in it."""
    inner: list[Any] = []
    for _ in range(levels - 2):
        inner = [inner]
    return {"a": inner}


def metadata_of(bytes_count: int) -> dict[str, str]:
    """Metadata whose encoding takes exactly that many bytes."""
    return {"a": "x" * (bytes_count - 6)}
