"""What the running collector says of itself to commands: how it does, and what only it can know."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import resource
from typing import TYPE_CHECKING, Any, Final

from settle_mp.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

    from settle_mp.collector.shipping import Shipping
    from settle_mp.core.record import Identity

#: Characters of the report; a control message's text is cut at 4,096, and half JSON is none.
REPORT_CHARS_MAX: Final = 4000
#: Refusals, and producers that are not seen, that it names.
NAMED_MAX: Final = 5
#: Kinds of metadata that defeat folding, that it names.
UNFOLDED_MAX: Final = 5
#: What is left out first where all of it is too long.
_SPARED: Final = ("unfolded", "unseen", "refusals", "last_error")


def report(shipping: Shipping, waiting: list[str], trouble: str, unseen: Iterable[Identity]) -> str:
    """All of it as JSON.

    Args:
        shipping: How the upstream does.
        waiting: Which journals wait, and why.
        trouble: Why nothing is taken in.
        unseen: Producers that speak to us and whose journals are not in our state folder.
    """
    health = shipping.health
    said: dict[str, Any] = {
        "version": __version__,
        "pid": os.getpid(),
        "descriptors": [_open_count(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]],
        "state": health.state,
        "last_error": health.last_error[:500] if health.last_error else None,
        "trouble": trouble[:500] or None,
        "refusals": [reason[:300] for reason in waiting[:NAMED_MAX]],
        "unseen": [
            {"name": each.name, "host": each.host, "state_dir": each.facts.get("state_dir", "")}
            for each in itertools.islice(unseen, NAMED_MAX)
        ],
        "unfolded": [dataclasses.asdict(each) for each in shipping.unfolded()[:UNFOLDED_MAX]],
    }
    text = json.dumps(said, ensure_ascii=False)
    for name in _SPARED:
        if len(text) > REPORT_CHARS_MAX:
            said[name] = None
            text = json.dumps(said, ensure_ascii=False)
    return text


def _open_count() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return len(os.listdir(folder))  # noqa: PTH208  each entry is a descriptor, none is looked at
    return 0
