"""Exceptions that are not ours: a signal handler or finalizer raised them in the middle of our code.

Python runs those between any two steps, so an `except` of ours may catch what was meant for the
application, such as a request's time limit. Those go on to the caller, whatever their class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

#: Packages whose functions run between a `try` of the worker's and what fails there. Compiled ones may have
#: frames as well: Cython adds them to its tracebacks.
_OURS: Final = frozenset(
    {
        "settle_mp",
        "msgpack",
        "contextlib",
        "genericpath",
        "importlib",
        "os",
        "pathlib",
        "posixpath",
        "secrets",
        "shutil",
    }
)
#: Nothing that the worker calls leads back into this module; only a handler that tracks does.
_ENTRY: Final = "settle_mp.worker.track"


def is_foreign(error: BaseException) -> bool:
    """Whether an error came from a signal handler or finalizer. Ask where it was caught.

    Errors of ours, and those of the system and of C functions that we call, have a message.
    Those that `PyThreadState_SetAsyncExc` throws into a thread have neither message nor frame.
    """
    trace = error.__traceback__
    while trace is not None and (trace := trace.tb_next) is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if module == _ENTRY or module.partition(".")[0] not in _OURS:
            return True
    return not error.args


class suppressed:  # noqa: N801  named like contextlib.suppress, whose place it takes
    """Suppress errors of these kinds, except foreign ones."""

    __slots__ = ("_kinds",)

    def __init__(self, *kinds: type[Exception]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return isinstance(error, self._kinds) and not is_foreign(error)
