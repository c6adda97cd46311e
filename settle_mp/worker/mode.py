"""The key's mode: whether a client works on the vendor's sandbox, and the one warning about that.

A test key in production bills nobody, and nothing else would show it. Whether this is production nobody can
know; where the address is of this machine (our own sandbox, a developer's proxy) it is not, and nothing is
said.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Final

from settle_mp.worker.caller import stack_level

if TYPE_CHECKING:
    from settle_mp.config import Settings
    from settle_mp.core.secret import KeyMode

_OWN_HOSTS: Final = ("localhost", "127.", "[::1]")

# Said once a process; its children inherit this.
_said: Final[list[int]] = []


def mode_of(settings: Settings) -> KeyMode:
    """Give the key's mode, and warn once of a test key."""
    mode = settings.key_mode
    host = settings.base_url.partition("://")[2]
    if mode == "test" and not (settings.disabled or host.startswith(_OWN_HOSTS) or _said):
        _said.append(1)
        warnings.warn(
            "The API key is a test key (ss_test_...): the upstream works in sandbox mode and bills nobody.",
            stacklevel=stack_level(),
        )
    return mode
