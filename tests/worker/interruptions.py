"""Signal handlers at chosen points: what a handler does, done at the n-th point where one may run.

Python runs handlers after calls, at the start of functions and at the ends of loops' rounds, in the thread
that it interrupts. Whoever is told of each instruction can stand at each of these points, one after the
other, so that a test tries them all instead of hoping for a signal at the right moment.

    for point in points(lambda: track("user", "AI_QUERY")):     # as many as the call has
        interrupt(lambda: track("user", "AI_QUERY"), point, handler)
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

_LOOPS = ("JUMP_BACKWARD", "JUMP_ABSOLUTE", "POP_JUMP_BACKWARD")
_opnames: dict[CodeType, dict[int, str]] = {}


def _opname(frame: FrameType) -> str:
    code = frame.f_code
    names = _opnames.get(code)
    if names is None:
        names = _opnames[code] = {each.offset: each.opname for each in dis.get_instructions(code)}
    return names.get(frame.f_lasti, "")


def _is_call(opname: str) -> bool:
    return opname.startswith("CALL") and not opname.startswith("CALL_INTRINSIC")


class _Points:
    """Counts points, and runs the handler at one of them, once."""

    def __init__(self, wanted: int, handler: Callable[[], object], *, is_deep: bool) -> None:
        self.passed = 0
        self._wanted = wanted
        self._handler = handler
        self._is_deep = is_deep
        self._before: dict[FrameType, str] = {}

    def enter(self, frame: FrameType) -> bool:
        """A function begins. Returns whether its steps are of interest."""
        is_ours = str(frame.f_globals.get("__name__")).startswith("settle_mp.")
        if not (is_ours or (self._is_deep and frame.f_back in self._before)):
            return False
        self._before[frame] = ""
        # A generator is entered for its end as well, and no handler runs then.
        if not frame.f_code.co_flags & inspect.CO_GENERATOR:
            self._point()
        return True

    def step(self, frame: FrameType) -> None:
        """An instruction is about to be carried out."""
        before = self._before.get(frame)
        if before is None:
            return
        now = self._before[frame] = _opname(frame)
        if now.startswith(_LOOPS) or (_is_call(before) and not _is_call(now)):
            self._point()

    def leave(self, frame: FrameType) -> None:
        """A function ends."""
        self._before.pop(frame, None)

    def _point(self) -> None:
        self.passed += 1
        if self.passed == self._wanted:
            _unwatch()
            self._handler()


if sys.version_info >= (3, 12):
    # A trace function is not told of all instructions there when their function runs for the first time.
    _EVENTS = sys.monitoring.events
    _TOOL = 4

    @contextlib.contextmanager
    def _watched(points: _Points) -> Iterator[None]:
        """Tell the points of each step of this thread."""
        here = threading.get_ident()

        def tell(event: int, tell_points: Callable[[FrameType], object]) -> None:
            def hear(*_: object) -> None:
                if threading.get_ident() == here:
                    tell_points(sys._getframe(1))

            sys.monitoring.register_callback(_TOOL, event, hear)

        sys.monitoring.use_tool_id(_TOOL, "points")
        told = {
            _EVENTS.PY_START: points.enter,
            _EVENTS.PY_RESUME: points.enter,
            _EVENTS.INSTRUCTION: points.step,
            _EVENTS.PY_RETURN: points.leave,
            _EVENTS.PY_YIELD: points.leave,
            _EVENTS.PY_UNWIND: points.leave,
        }
        for event, tell_points in told.items():
            tell(event, tell_points)
        sys.monitoring.set_events(_TOOL, sum(told))
        try:
            yield
        finally:
            _unwatch()
            sys.monitoring.free_tool_id(_TOOL)

    def _unwatch() -> None:
        sys.monitoring.set_events(_TOOL, 0)

else:

    @contextlib.contextmanager
    def _watched(points: _Points) -> Iterator[None]:
        """Tell the points of each step of this thread."""

        def enter(frame: FrameType, event: str, _: Any) -> Any:
            if event != "call" or not points.enter(frame):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return step

        def step(frame: FrameType, event: str, _: Any) -> Any:
            if event == "opcode":
                points.step(frame)
            elif event == "return":
                points.leave(frame)
            return step

        before = sys.gettrace()
        sys.settrace(enter)
        try:
            yield
        finally:
            sys.settrace(before)

    def _unwatch() -> None:
        sys.settrace(None)


def _run(
    call: Callable[[], Any], wanted: int, handler: Callable[[], object], *, is_deep: bool
) -> tuple[int, Any]:
    points = _Points(wanted, handler, is_deep=is_deep)
    with _watched(points):
        result = call()
    return points.passed, result


def points(call: Callable[[], Any], *, is_deep: bool = False) -> int:
    """Count the points of a call by doing it. Deep ones are those in the standard library as well."""
    passed, _ = _run(call, 0, lambda: None, is_deep=is_deep)
    return passed


def interrupt(
    call: Callable[[], Any], at: int, handler: Callable[[], object], *, is_deep: bool = False
) -> Any:
    """Do a call with a handler at its `at`-th point, counted from 1, and return what the call returned."""
    passed, result = _run(call, at, handler, is_deep=is_deep)
    assert passed >= at, f"the call has {passed} points, and {at} is none of them"
    return result
