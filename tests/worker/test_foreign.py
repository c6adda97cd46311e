"""Whose exception it is: the system's, for the worker to judge, or a signal handler's, which goes on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgpack
import pytest

from settle_mp.worker import foreign
from settle_mp.worker.foreign import is_foreign, suppressed
from tests.worker.faults import failing

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp import Settle


NOWHERE = Path("/nowhere/at/all")


@pytest.mark.parametrize(
    "call",
    [
        partial(os.close, 10**6),
        partial(os.rename, NOWHERE, NOWHERE),
        NOWHERE.unlink,
        NOWHERE.mkdir,
        partial(shutil.rmtree, NOWHERE),
        partial(int, "x"),
        partial(msgpack.packb, ["\ud800"]),
        failing(28),
    ],
)
def test_errors_of_the_system_are_ours(call: Callable[[], object]) -> None:
    """They have a message, and no frame that is not the library's between them and whoever caught them."""
    with pytest.raises((OSError, ValueError)) as caught:
        call()
    assert not is_foreign(caught.value)


def test_errors_of_a_handler_are_not() -> None:
    """A frame that is the application's gives it away, whatever the class."""

    def handler() -> None:
        raise TimeoutError(110, "the request took too long")

    with pytest.raises(TimeoutError) as caught:
        handler()
    assert is_foreign(caught.value)


def test_a_signal_handlers_error_is_not() -> None:
    """The same for a real signal."""

    def handler(*_: object) -> None:
        raise OSError(5, "Input/output error")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(OSError, match="Input/output") as caught:
            signal.raise_signal(signal.SIGUSR1)  # to this thread, and so at once
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert is_foreign(caught.value)


def test_an_error_thrown_into_a_thread_is_not() -> None:
    """It has no frame of its own, but no message either."""
    caught: list[BaseException] = []
    is_ready = threading.Event()

    def work() -> None:
        try:
            is_ready.set()
            while True:
                pass
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    is_ready.wait()
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    throw(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(ValueError))
    thread.join()
    (error,) = caught
    assert is_foreign(error)


def test_an_error_of_a_handler_that_tracks_is_not(quiet: Settle) -> None:
    """Its frames may all be ours: a handler may be nothing but a bad call of `track()`."""
    with pytest.raises(ValueError, match="user_id") as caught:
        quiet.events.track("", "AI_QUERY")
    assert is_foreign(caught.value)


def test_suppressing_lets_foreign_errors_pass() -> None:
    """Like contextlib.suppress, but only for what is ours."""

    def handler() -> None:
        raise FileNotFoundError(2, "handler")

    with pytest.raises(FileNotFoundError, match="handler"), suppressed(OSError):
        handler()
    with suppressed(OSError):
        os.close(10**6)
    with pytest.raises(ZeroDivisionError), suppressed(OSError):
        _ = 1 / 0


def test_the_library_is_named_by_its_packages() -> None:
    """Each package of the list exists, so that no name in it is a mistake."""
    for name in foreign._OURS:
        with contextlib.suppress(ModuleNotFoundError):
            __import__(name)
            continue
        pytest.fail(name)
