"""The key and the upstream: is the address reached, and is the key taken there."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from settle_mp.core.answer import NoReply
from settle_mp.core.usage_calls import summary_call
from settle_mp.doctor.finding import Finding, error, ok, warning
from settle_mp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from settle_mp.config import Settings
    from settle_mp.core.secret import Secret

#: How long the upstream gets, in seconds.
ASK_S: Final = 10.0
#: Whose usage is asked for: nobody's.
NOBODY: Final = "settle-mp-doctor"

_UNAUTHORIZED: Final = (401, 403)
_NOT_FOUND: Final = (404, 405)
_OK: Final = range(200, 300)


def look(settings: Settings) -> Iterator[Finding]:
    """Ask the upstream for nobody's usage, which changes nothing there."""
    try:
        key = settings.read_api_key()
    except SettingsError as problem:
        yield error("key", str(problem), f"{problem.key}: {problem.allowed}")
        return
    if key is None:
        yield ok("key", "none in this environment; only the collector and the wallet need one")
        yield reach(settings.base_url)
        return
    if key.mode == "test":
        yield ok("key", f"{key}: the upstream's sandbox, nothing is billed")
    elif key.mode == "":
        yield warning(
            "key", "it begins with neither ss_live_ nor ss_test_", "copy it again from the vendor's page"
        )
    else:
        yield ok("key", f"{key}")
    yield ask(settings.base_url, key)


def reach(base_url: str) -> Finding:
    """Whether somebody listens there."""
    parts = urlsplit(base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=ASK_S).close()
    except OSError as problem:
        return _unreached(base_url, str(problem))
    return ok("upstream", f"{base_url} is reached; without a key it is not asked for anything")


def ask(base_url: str, key: Secret) -> Finding:
    """Whether it answers to the key."""
    from settle_mp.upstream import Upstream  # httpx takes a moment to import

    try:
        upstream = Upstream(base_url, key)
    except ValueError as problem:
        return error("upstream", str(problem), "set base_url (SETTLESETTLE_BASE_URL) to the API's address")
    try:
        heard = upstream.call(summary_call(NOBODY), timeout_s=ASK_S)
    finally:
        upstream.close()
    if isinstance(heard, NoReply):
        return _unreached(base_url, heard.detail)
    status, message = heard.reply.status, heard.reply.message
    if status in _OK:
        return ok("upstream", f"{base_url} answers, and takes the key")
    text = f"{base_url} answers {status}: {message}"
    if status in _UNAUTHORIZED:
        return error(
            "upstream",
            text,
            "the key is not taken there: check it, and base_url, then `kill -HUP` the collector",
        )
    if status in _NOT_FOUND:
        return error("upstream", text, "that is no such API: check base_url (SETTLESETTLE_BASE_URL)")
    return warning("upstream", text, "nothing here: the collector tries again by itself")


def _unreached(base_url: str, why: str) -> Finding:
    return error(
        "upstream",
        f"{base_url} is not reached: {why}",
        "check base_url, DNS, proxies (HTTPS_PROXY) and the firewall; until then events wait here",
    )
