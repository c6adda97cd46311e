"""The application's own line, which a warning points at."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def stack_level() -> int:
    """Count frames for `warnings.warn` from whoever asks here up to the line of the application."""
    level = 1
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - The way that `warnings` goes itself.
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("settle_mp."):
        frame = frame.f_back
        level += 1
    return level
