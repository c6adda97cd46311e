"""Faults of the system: errors as `os` raises them, with no function of the test's in their traceback.

The worker tells an error of the system from one that a signal handler raised by where it came from.
"""

from __future__ import annotations

import os
from types import FunctionType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def system(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function pass for one of the system's."""
    assert isinstance(function, FunctionType)
    inside = {**function.__globals__, "__name__": "os"}
    return FunctionType(function.__code__, inside, function.__name__, None, function.__closure__)


def failing(number: int) -> Callable[..., Any]:
    """Make a system's function that always fails with an error number."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return system(fail)
