"""Kinds of setting values: what is allowed, in words, and the check that holds it.

Rule 1: a check raises TypeError or ValueError with what is wrong; who asks adds the name and the source.
Rule 2: a value from code or TOML has its type already ("2" is no number); only text of an environment
variable is read as what it looks like.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from settle_mp.core.naming import read_names
from settle_mp.core.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of a unix socket's path: `sockaddr_un` has room for 108 with the closing NUL (unix(7)), on macOS 104.
SOCKET_PATH_BYTES_MAX: Final = 107 if sys.platform == "linux" else 103

#: A name, an IPv4 address, an IPv6 address in brackets, or "*" for all of this host's addresses.
_HOST: Final = re.compile(r"\*|[A-Za-z0-9][A-Za-z0-9._-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\]")
_SIZE: Final = re.compile(r"(\d+)\s*([KMGT]i?)?B?", re.IGNORECASE)
_SIZE_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_FLAGS: Final = {"true": True, "1": True, "yes": True, "on": True} | {
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of value.

    Attributes:
        allowed: What may stand there, for people.
        check: From a typed value to the setting's value; raises TypeError or ValueError with what is wrong.
        read: From the text of an environment variable to a typed value; raises ValueError likewise.
    """

    allowed: str
    check: Callable[[object], Any]
    read: Callable[[str], object] = str


def number(low: float, high: float, unit: str) -> Kind:
    """A number between two bounds, fractions included."""

    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(_wrong_type(value))
        if not (math.isfinite(value) and low <= value <= high):
            raise ValueError(f"{value!r} is out of range")
        return float(value)

    return Kind(allowed=f"a number of {unit} from {low:,} to {high:,}", check=check, read=_read_number)


def whole(low: int, high: int, unit: str) -> Kind:
    """A whole number between two bounds."""
    return Kind(
        allowed=f"a whole number of {unit} from {low:,} to {high:,}",
        check=lambda value: _whole_between(value, low, high),
        read=_read_number,
    )


def size(low: int, high: int) -> Kind:
    """A number of bytes, plain or with a unit: 67108864, "64MiB", "64 MB"."""

    def check(value: object) -> int:
        return _whole_between(_read_size(value) if isinstance(value, str) else value, low, high)

    return Kind(allowed=f'bytes from {low:,} to {high:,}, plain or like "64MiB"', check=check)


def choice(*names: str) -> Kind:
    """One of a few words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"{value!r} is none of them")
        return value

    return Kind(allowed=" or ".join(names), check=check)


def flag() -> Kind:
    """Yes or no."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise TypeError(_wrong_type(value))
        return value

    def read(text: str) -> bool:
        if text.lower() not in _FLAGS:
            raise ValueError(f"{text!r} is neither")
        return _FLAGS[text.lower()]

    return Kind(
        allowed="true or false (in the environment 1, yes, on and 0, no, off too)", check=check, read=read
    )


def path() -> Kind:
    """A path, not yet absolute: only who reads the setting knows what it is relative to."""

    def check(value: object) -> str:
        text = _text(str(value) if isinstance(value, PurePath) else value)
        if "\0" in text:
            raise ValueError("there is a NUL in it")
        return text

    return Kind(allowed="a path", check=check)


def name_of_group() -> Kind:
    """The name of a group of users; whether it exists is for the system to say."""

    def check(value: object) -> str:
        text = _text(value)
        if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*", text):
            raise ValueError(f"{text!r} cannot be a group's name")
        return text

    return Kind(allowed="the name of a group on this host", check=check)


def names() -> Kind:
    """Event types that an application declares; in the environment with commas between them."""

    def check(value: object) -> frozenset[str]:
        from settle_mp.core.event import checked_event_type  # few applications declare any

        return frozenset(checked_event_type(name) for name in read_names(value))

    def read(text: str) -> object:
        return [name.strip() for name in text.split(",") if name.strip()]

    allowed = "an Enum class, or names in a list, set or tuple (in the environment with commas between them)"
    return Kind(allowed=allowed, check=check, read=read)


def key() -> Kind:
    """An API key. What was given is never repeated in a problem."""

    def check(value: object) -> Secret:
        if isinstance(value, Secret):
            value = value.reveal()
        text = _text(value).strip()
        if not re.fullmatch(r"[!-~]+", text):
            raise ValueError("the key is empty or has spaces, line ends or letters outside ASCII in it")
        return Secret(text)

    return Kind(allowed='the API key in one line ("ss_live_..." or "ss_test_...")', check=check)


def base_url() -> Kind:
    """The upstream's address, kept without a trailing slash and without /v1."""

    def check(value: object) -> str:
        from urllib.parse import urlsplit  # costs more than the rest of this module; few users set a base_url

        text = _text(value).strip()
        parts = urlsplit(text)
        if parts.username is not None or parts.password is not None:
            raise ValueError("there is a user name or password in it")
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"{text!r} is not such an address")
        _ = parts.port  # raises ValueError for a port that is none
        return text.rstrip("/").removesuffix("/v1").rstrip("/")

    return Kind(allowed="http:// or https:// with a host, with or without /v1 at its end", check=check)


def endpoint() -> Kind:
    """Where the collector listens: a unix socket or tcp. Whether that needs keys is `endpoints` to say."""

    def check(value: object) -> str:
        text = _text(value)
        if text.startswith("ipc://"):
            _check_socket_path(text.removeprefix("ipc://"))
        elif text.startswith("tcp://"):
            _check_host_and_port(text.removeprefix("tcp://"))
        else:
            raise ValueError(f"{text!r} is not such an address")
        return text

    allowed = f"ipc:// and an absolute path of up to {SOCKET_PATH_BYTES_MAX} bytes, or tcp://HOST:PORT"
    return Kind(allowed=allowed, check=check)


def _check_socket_path(path: str) -> None:
    # Relative ones would mean another place in each process; abstract ones ("@…") let any user in.
    if not path.startswith("/"):
        raise ValueError(f"the path {path!r} is not absolute")
    length = len(path.encode())
    if length > SOCKET_PATH_BYTES_MAX:
        raise ValueError(f"the path has {length} bytes")


def _check_host_and_port(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):  # noqa: PLR2004 - ports are 16 bits
        raise ValueError(f"{port!r} is not a port")
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not a host (an IPv6 address stands in brackets)")


def _whole_between(value: object, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(_wrong_type(value))
    if not low <= value <= high:
        raise ValueError(f"{value:,} is out of range")
    return value


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number") from None


def _read_size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    unit = (match[2] or "").lower()
    return int(match[1]) * int((1024 if unit.endswith("i") else 1000) ** _SIZE_POWERS[unit.removesuffix("i")])


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("nothing was given") if isinstance(value, str) else TypeError(_wrong_type(value))
    return value


def _wrong_type(value: object) -> str:
    return f"a value of type {type(value).__name__} was given"
