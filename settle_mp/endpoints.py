"""Where the collector is: the two addresses that the `endpoint` setting stands for, and the keys for them."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from settle_mp import keys
from settle_mp.core.kinds import SOCKET_PATH_BYTES_MAX
from settle_mp.errors import SettingsError
from settle_mp.statedir import StateDir
from settle_mp.transport import AddressError

if TYPE_CHECKING:
    from collections.abc import Callable

    from settle_mp.config import Settings

#: The highest port; control messages take the one above that of the frames.
PORT_MAX: Final = 65535

_KEYS_WANTED: Final = (
    "make them with `settle-mp keys` on the collector's host, and copy collector.public and worker.secret to "
    "the keys folder (keys_dir) of each worker's host"
)
#: All addresses of a host, and one by which it reaches itself.
_EVERYWHERE: Final = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104  as users write it


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The two addresses of a collector, and the keys for them where CURVE is spoken."""

    frames: str
    control: str
    curve: keys.Curve | None = None

    @property
    def is_tcp(self) -> bool:
        """Whether the other side may be another host."""
        return self.frames.startswith("tcp://")


def parse(state: StateDir, endpoint: str | None, curve: keys.Curve | None = None) -> Endpoints:
    """The addresses for an `endpoint` setting; None means sockets in the state folder.

    Args:
        state: The state folder.
        endpoint: The setting.
        curve: The keys, where there are any; tcp is not spoken without them beyond loopback.

    Raises:
        AddressError: When the address can't be used.
    """
    if endpoint is None:
        return Endpoints(_ipc(state.frames_socket), _ipc(state.control_socket))
    if endpoint.startswith("ipc://"):
        path = endpoint.removeprefix("ipc://")
        return Endpoints(_ipc(Path(path)), _ipc(Path(path + ".control")))
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    is_port = port.isascii() and port.isdecimal() and 0 < int(port) < PORT_MAX
    if not endpoint.startswith("tcp://") or not is_port:
        msg = f"endpoint must be ipc://PATH or tcp://HOST:PORT with a port below {PORT_MAX}, not {endpoint!r}"
        raise AddressError(msg)
    if host == "localhost":
        host = "127.0.0.1"  # libzmq takes a name for a network interface where it listens
    if curve is None and not _is_loopback(host):
        msg = f"endpoint {endpoint!r} is not on loopback; that needs CURVE keys: {_KEYS_WANTED}"
        raise AddressError(msg)
    return Endpoints(f"tcp://{host}:{port}", f"tcp://{host}:{int(port) + 1}", curve)


def of_client(settings: Settings) -> Endpoints:
    """Where a worker or command finds the collector, with the keys for it.

    Raises:
        AddressError: When the address can't be used.
        KeysError: When the keys can't be used.
    """
    found = parse(StateDir(settings.state_dir), settings.endpoint, _curve(settings, keys.of_worker))
    return replace(found, frames=_reachable(found.frames), control=_reachable(found.control))


def remote(settings: Settings) -> Endpoints | None:
    """Where a collector over tcp is, with the keys for it; None where nobody goes over tcp.

    Raises:
        SettingsError: Nothing could ever get there.
    """
    if settings.disabled or not _is_tcp(settings):
        return None
    try:
        return of_client(settings)
    except AddressError as error:
        raise settings_error(settings, error) from None


def of_collector(settings: Settings) -> Endpoints:
    """Where the collector listens, with its keys.

    Raises:
        AddressError: When the address can't be used.
        KeysError: When the keys can't be used.
    """
    return parse(StateDir(settings.state_dir), settings.endpoint, _curve(settings, keys.of_collector))


def settings_error(settings: Settings, error: AddressError) -> SettingsError:
    """Say of an address that can't be used which setting is to be mended."""
    if isinstance(error, keys.KeysError):
        name, allowed = "keys_dir", "a folder of keys as `settle-mp keys` makes it"
    else:
        name = "state_dir" if settings.endpoint is None else "endpoint"
        allowed = "an address as the message says"
    return SettingsError(name, settings.source(name), str(error), allowed)


def _curve(settings: Settings, read: Callable[[Path], keys.Curve | None]) -> keys.Curve | None:
    return read(keys.folder_of(settings.state_dir, settings.keys_dir)) if _is_tcp(settings) else None


def _is_tcp(settings: Settings) -> bool:
    return settings.endpoint is not None and settings.endpoint.startswith("tcp://")


def _reachable(address: str) -> str:
    """One of all of this host's addresses, where the collector listens on all."""
    for everywhere, loopback in _EVERYWHERE.items():
        address = address.replace(f"tcp://{everywhere}:", f"tcp://{loopback}:")
    return address


def _ipc(path: Path) -> str:
    bytes_count = len(os.fsencode(path))
    if bytes_count > SOCKET_PATH_BYTES_MAX:
        msg = (
            f"the socket path {path} has {bytes_count} bytes; the system allows {SOCKET_PATH_BYTES_MAX}. "
            "Choose a shorter state_dir, or set endpoint to ipc:// with a short path"
        )
        raise AddressError(msg)
    return f"ipc://{path}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
