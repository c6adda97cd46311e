"""CURVE keys: how collector and workers know each other over tcp.

    keys/                       0700
        collector.secret        the collector's alone
        collector.public        by it each worker knows its collector
        worker.secret           each worker's
        workers/NAME.public     the collector's: who may talk to it

Each file holds one key of 40 characters (Z85, RFC 32 of the ZeroMQ project). A worker needs
`collector.public` and `worker.secret`, the collector all but `worker.secret`.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import zmq

from settle_mp.core.secret import Secret
from settle_mp.statedir import open_new
from settle_mp.transport import AddressError

if TYPE_CHECKING:
    from pathlib import Path

COLLECTOR_SECRET: Final = "collector.secret"  # noqa: S105  names of files
COLLECTOR_PUBLIC: Final = "collector.public"
WORKER_SECRET: Final = "worker.secret"  # noqa: S105
PUBLIC_SUFFIX: Final = ".public"
SECRET_SUFFIX: Final = ".secret"  # noqa: S105
#: What the first worker's key is called.
WORKER_NAME: Final = "worker"
#: Names of workers' keys.
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

_KEY: Final = re.compile(r"[0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_FILE_BYTES_MAX: Final = 1024
#: Workers that may talk to a collector at most: each is a file that is read at start.
_WORKERS_MAX: Final = 10_000


class KeysError(AddressError):
    """Keys that can't be used. The message says which, why, and what to do."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What a socket needs to speak CURVE: the keys of this side, and the collector's public one."""

    public: str
    secret: Secret
    collector: str


def folder_of(state_dir: Path, keys_dir: Path | None) -> Path:
    """Where the keys are: the setting `keys_dir`, or `keys` in the state folder."""
    return state_dir / "keys" if keys_dir is None else keys_dir


# --- Reading ---


def of_worker(folder: Path) -> Curve | None:
    """A worker's or command's keys; None when there are none.

    On the collector's host, where `worker.secret` may be missing, the collector's own pair takes its place.

    Raises:
        KeysError: They can't be used.
    """
    if not _is_there(folder / COLLECTOR_PUBLIC):
        return None
    if not _is_there(folder / WORKER_SECRET):
        return of_collector(folder)
    secret = _read_secret(folder / WORKER_SECRET)
    return Curve(_public_of(secret), secret, _read(folder / COLLECTOR_PUBLIC))


def of_collector(folder: Path) -> Curve | None:
    """The collector's keys; None when there are none.

    Raises:
        KeysError: They can't be used.
    """
    if not _is_there(folder / COLLECTOR_SECRET):
        return None
    secret = _read_secret(folder / COLLECTOR_SECRET)
    public = _public_of(secret)
    return Curve(public, secret, public)


def admitted(folder: Path) -> frozenset[str]:
    """The public keys of those who may talk to the collector of these keys.

    Raises:
        KeysError: They can't be read.
    """
    own = of_collector(folder)
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        try:
            names = sorted(os.listdir(folder / "workers"))  # noqa: PTH208  names are wanted
        except PermissionError as error:
            raise _unreadable(folder / "workers", error) from None
    paths = [folder / "workers" / name for name in names if name.endswith(PUBLIC_SUFFIX)]
    keys = {_read(path) for path in paths[:_WORKERS_MAX]}
    return frozenset(keys | ({own.public} if own else set()))


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from None
    return True


def _read_secret(path: Path) -> Secret:
    text = _read(path)
    if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO:
        msg = f"every user of this host can reach the secret key {path}; `chmod o= {path}`"
        raise KeysError(msg)
    return Secret(text)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX).decode("ascii", errors="replace").strip()
    except OSError as error:
        raise _unreadable(path, error) from None
    if not _KEY.fullmatch(text):
        msg = f"{path} holds no CURVE key; copy it again, or make new keys with `settle-mp keys`"
        raise KeysError(msg)
    return text


def _public_of(secret: Secret) -> str:
    try:
        return zmq.curve_public(secret.reveal().encode()).decode()
    except zmq.ZMQError as error:
        msg = f"this pyzmq was built without CURVE ({error}); install its wheel from PyPI"
        raise KeysError(msg) from None


def _unreadable(path: Path, error: OSError) -> KeysError:
    return KeysError(f"{path} can't be read ({error.strerror}); it must belong to the user that needs it")


# --- Making ---


def make(folder: Path, gid: int | None = None) -> None:
    """Make the keys of a collector and of its first worker, all or none.

    Args:
        folder: Where; must not exist, or be empty.
        gid: A group whose members may read the worker's.

    Raises:
        FileExistsError: There is something already.
        OSError: They can't be written.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(folder)
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unborn = folder.with_name(f".{folder.name}-{secrets.token_hex(8)}")
    try:
        for each in (unborn, unborn / "workers"):
            each.mkdir(mode=0o700)
        public, secret = zmq.curve_keypair()
        _write(unborn / COLLECTOR_SECRET, secret)
        _write(unborn / COLLECTOR_PUBLIC, public, gid)
        add_worker(unborn, WORKER_NAME, gid)
        if gid is not None:
            os.chown(unborn, -1, gid)
            unborn.chmod(0o750)
        unborn.rename(folder)
    except BaseException:
        shutil.rmtree(unborn, ignore_errors=True)
        raise


def add_worker(folder: Path, name: str, gid: int | None = None) -> None:
    """Make another worker's keys: `NAME.secret`, which it gets as `worker.secret`, and `workers/NAME.public`.

    Raises:
        FileExistsError: There is one of this name.
        OSError: They can't be written.
    """
    public, secret = zmq.curve_keypair()
    _write(folder / "workers" / f"{name}{PUBLIC_SUFFIX}", public)
    _write(folder / f"{name}{SECRET_SUFFIX}", secret, gid)


def _write(path: Path, key: bytes, gid: int | None = None) -> None:
    descriptor = open_new(path, 0o600)
    try:
        os.write(descriptor, key + b"\n")
        if gid is not None:
            os.fchown(descriptor, -1, gid)
            os.fchmod(descriptor, 0o640)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
