"""Access: whose requests are taken.

Rule 1: the upstream's calls need an API key, as there.
Rule 2: the sandbox's own calls need none from this machine, and the same key from any other.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from typing import TYPE_CHECKING, Final

from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations of a dependency when it runs.

from settle_mp.sandbox.answers import Answer, RefusedError, failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TEST_PREFIX: Final = "ss_test_"
LIVE_PREFIX: Final = "ss_live_"


def api_key_check(pinned: str | None) -> Callable[[Request], Awaitable[None]]:
    """Make the dependency that lets only requests with a good `X-API-Key` pass."""

    async def check(request: Request) -> None:
        fault = _key_fault(request.headers.get("x-api-key", ""), pinned)
        if fault is not None:
            raise RefusedError(failure(401, fault))

    return check


def control_check(pinned: str | None) -> Callable[[Request], Awaitable[None]]:
    """Make the dependency that guards the sandbox's own calls."""

    async def check(request: Request) -> None:
        if request.client is not None and is_loopback(request.client.host):
            return
        given = request.headers.get("x-api-key") or _basic_password(request.headers.get("authorization", ""))
        if _key_fault(given, pinned) is not None:
            said = failure(401, "From another machine the sandbox's own pages need its API key.")
            # Browsers then ask; the key goes where the password does.
            basic = {"www-authenticate": 'Basic realm="settle-mp sandbox"', **said.headers}
            raise RefusedError(Answer(status=401, body=said.body, headers=basic))

    return check


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, and no other's."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _key_fault(given: str, pinned: str | None) -> str | None:
    if not given:
        return "The header X-API-Key is missing."
    if pinned is not None:
        # As bytes: compare_digest takes no other text than ASCII.
        return None if hmac.compare_digest(given.encode(), pinned.encode()) else "This API key is not valid."
    if given.startswith(LIVE_PREFIX):
        return "This is a sandbox, and the API key is a live one (ss_live_…): use a test key (ss_test_…)."
    if not given.startswith(TEST_PREFIX) or given == TEST_PREFIX:
        return "This API key is not valid: the sandbox takes any key that begins with ss_test_."
    return None


def _basic_password(header: str) -> str:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
