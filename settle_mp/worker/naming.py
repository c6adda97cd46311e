"""Names of event types as `track()` meets them: what is refused, and what is warned of once.

A warning and not a log, since it is the application that can mend it. In a program that makes warnings errors
it is logged: a name that bills correctly must not end a request.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Final

from settle_mp.core.naming import ill_named_text, is_well_named, undeclared_text
from settle_mp.notices import notice
from settle_mp.worker.caller import stack_level

if TYPE_CHECKING:
    from settle_mp.config import Settings

log: Final = logging.getLogger("settle_mp")

#: Names that are warned of in one process; an application that makes up names has been told by then.
WARNED_MAX: Final = 1000

# Children of a fork inherit what was said.
_warned: Final[set[str]] = set()


class Naming:
    """The names that a client takes.

    Args:
        settings: Those declared, and whether the convention is a rule.
    """

    def __init__(self, settings: Settings) -> None:
        self._declared = settings.event_types
        self._is_strict = settings.strict_names

    def check(self, name: str) -> None:
        """Refuse a name that was not declared or breaks a rule; warn once of one that breaks the convention.

        Raises:
            ValueError: Naming what was given and what was probably meant.
        """
        if self._declared is not None and name not in self._declared:
            raise ValueError(undeclared_text(name, self._declared))
        if is_well_named(name):
            return
        if self._is_strict:
            raise ValueError(f"{ill_named_text(name)} (strict_names is on)")
        _warn(name)


def _warn(name: str) -> None:
    if name in _warned or len(_warned) >= WARNED_MAX:
        return
    _warned.add(name)
    try:
        warnings.warn(ill_named_text(name), stacklevel=stack_level())
    except UserWarning as warning:
        log.warning(
            "event_type_ill_named", extra=notice("event_type_ill_named", str(warning), event_type=name)
        )
