"""Idempotency keys: what the header must look like and what a request's fingerprint is made of.

Follows draft-ietf-httpapi-idempotency-key-header-07. Answering is the pipeline's business.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Characters of a key at most. The draft sets none; servers that publish one say 255 (Stripe's API docs).
KEY_CHARS_MAX: Final = 255

# sf-string (RFC 8941, section 3.3.3): printable ASCII in quotes, where only `"` and `\` are escaped.
_SF_STRING: Final = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"\Z')
_ESCAPED: Final = re.compile(r"\\(.)")


class BadKeyError(ValueError):
    """The header does not hold one quoted string."""


def parse_key(values: Sequence[str]) -> str | None:
    """Read the key from all `Idempotency-Key` lines of a request; None when there is none.

    Raises:
        BadKeyError: Saying what is wrong with it.
    """
    if not values:
        return None
    if len(values) > 1:
        raise BadKeyError("Idempotency-Key must be sent once.")
    match = _SF_STRING.match(values[0].strip(" "))
    if match is None:
        raise BadKeyError('Idempotency-Key must be a quoted string (RFC 8941, 3.3.3), like "8e03978e-40d5".')
    key = _ESCAPED.sub(r"\1", match[1])
    if not 0 < len(key) <= KEY_CHARS_MAX:
        raise BadKeyError(f"Idempotency-Key must have 1 to {KEY_CHARS_MAX} characters.")
    return key


def digest(body: bytes) -> bytes:
    """Digest a body's exact bytes (SHA-256)."""
    return hashlib.sha256(body).digest()


def fingerprint(path: str, body_digest: bytes) -> bytes:
    """Digest what a key stands for: the operation and the exact bytes of its body."""
    return hashlib.sha256(body_digest + path.encode()).digest()
