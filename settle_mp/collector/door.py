"""Where one socket listens, and whether new connections may come in.

libzmq's listener owns the connections that it has accepted, and unbinding ends them all: every courier would
come back at once. So an ipc socket's file goes out of reach instead, while the listener stays.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from settle_mp import transport

if TYPE_CHECKING:
    import zmq

#: Ends the name of a socket's file while nobody new may come in.
SHUT_SUFFIX: Final = ".shut"


class Door:
    """One address, and the socket that is bound to it."""

    def __init__(self, socket: zmq.Socket[bytes], address: str) -> None:
        """Bind nothing yet."""
        self._socket = socket
        self._address = address
        is_file = address.startswith("ipc://")
        self._path = Path(address.removeprefix("ipc://")) if is_file else None
        self.is_open: bool = False

    @property
    def _aside(self) -> Path | None:
        return self._path and self._path.with_name(self._path.name + SHUT_SUFFIX)

    def make(self) -> None:
        """Bind.

        Raises:
            AddressError: When the address is in use or can't be bound.
        """
        transport.bind(self._socket, self._address)
        self.is_open = True
        self._clear()

    def take_down(self) -> None:
        """Unbind; whoever is connected is not any more."""
        with contextlib.suppress(OSError):  # zmq.ZMQError: it was not bound
            self._socket.unbind(self._address)
        self.is_open = False

    def shut(self) -> None:
        """Let nobody new in; over tcp that ends standing connections as well."""
        if self._path is None or self._aside is None:
            self.take_down()
            return
        with contextlib.suppress(OSError):  # gone: nobody finds it anyway
            self._path.rename(self._aside)
        self.is_open = False

    def open(self) -> None:
        """Let them in again, if it was shut.

        Raises:
            AddressError: While somebody else listens there, or it can't be bound.
        """
        if self.is_open:
            return
        transport.refuse_taken(self._address)
        if self._path is not None and self._aside is not None:
            with contextlib.suppress(OSError):
                self._aside.rename(self._path)
                self.is_open = True
                return
        self.take_down()
        self.make()

    def close(self) -> None:
        """Remove the files, once the socket is closed."""
        if self.is_open:
            transport.remove_unused(self._address)
        self._clear()

    def _clear(self) -> None:
        """Also what an end in the middle of a shortage left."""
        if self._aside is not None:
            with contextlib.suppress(OSError):
                self._aside.unlink()
