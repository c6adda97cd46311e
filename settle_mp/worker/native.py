"""Real threads and locks, also where gevent or eventlet has put its own in their place.

A patched thread is a greenlet: the courier's wait for ZeroMQ in one would stall every other greenlet.
"""

from __future__ import annotations

import importlib
import signal
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def is_patched() -> bool:
    """Whether the standard library's threads are somebody's greenlets by now."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    eventlet = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))


def original(module: str, name: str) -> Any:
    """A function of a standard module as it was before any patching. Ask at first use, not at import."""
    gevent = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched(module):
        return gevent.get_original(module, name)
    eventlet = sys.modules.get("eventlet.patcher")
    if eventlet is not None:
        return getattr(eventlet.original(module), name)
    return getattr(importlib.import_module(module), name)


def allocate_lock() -> Any:
    """A real lock."""
    return original("_thread", "allocate_lock")()


def allocate_rlock() -> Any:
    """A real lock that its holder may take again, as a signal handler in the middle does."""
    return original("_thread", "RLock")()


def start_thread(run: Callable[[], None]) -> None:
    """Run a function in a real thread that nothing waits for at exit and that takes no signals.

    Raises:
        RuntimeError: When the system allows no more threads.
    """

    def masked() -> None:
        # A signal taken by this thread would not interrupt what the main thread waits in.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        run()

    original("_thread", "start_new_thread")(masked, ())
