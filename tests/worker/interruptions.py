"""Signal handlers at chosen points: what a handler does, done at the n-th point where one may run.

Python runs handlers after calls, at the start of functions and at the ends of loops' rounds, in the thread
that it interrupts. A trace function can stand at each of these points, one after the other, so that a test
tries them all instead of hoping for a signal at the right moment.

    for point in points(lambda: track("user", "AI_QUERY")):     # as many as the call has
        interrupt(lambda: track("user", "AI_QUERY"), point, handler)
"""

from __future__ import annotations

import dis
import inspect
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

_LOOPS = {"JUMP_BACKWARD", "JUMP_ABSOLUTE"}
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

    def enter(self, frame: FrameType, event: str, _: Any) -> Any:
        module = str(frame.f_globals.get("__name__"))
        is_ours = module.startswith("settle_mp.")
        if event != "call" or not (is_ours or (self._is_deep and frame.f_back in self._before)):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        self._before[frame] = ""
        # A generator is entered for its end as well, and no handler runs then.
        if not frame.f_code.co_flags & inspect.CO_GENERATOR:
            self._point()
        return self._step

    def _step(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "return":
            self._before.pop(frame, None)
        if event == "opcode":
            before, now = self._before.get(frame, ""), _opname(frame)
            self._before[frame] = now
            if now in _LOOPS or (_is_call(before) and not _is_call(now)):
                self._point()
        return self._step

    def _point(self) -> None:
        self.passed += 1
        if self.passed == self._wanted:
            sys.settrace(None)
            self._handler()


def _run(
    call: Callable[[], Any], wanted: int, handler: Callable[[], object], *, is_deep: bool
) -> tuple[int, Any]:
    points = _Points(wanted, handler, is_deep=is_deep)
    before = sys.gettrace()
    sys.settrace(points.enter)
    try:
        result = call()
    finally:
        sys.settrace(before)
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
