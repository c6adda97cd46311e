"""Workers on other hosts, as far as one machine can have them: their own state folder, and tcp with CURVE.

with remote(host) as elsewhere:                 # keys are made, and copied as `settle-mp keys` says
collector = host.collector(**elsewhere.collectors)
with worker(host, **elsewhere.workers) as ada:
...
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from settle_mp import keys
from tests.sockets import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host


class Elsewhere:
    """Another host: its state folder, and the settings of both sides."""

    def __init__(self, host: Host, state_dir: Path, address: str = "127.0.0.1", port: int = 0) -> None:
        self.state_dir = state_dir
        port = port or free_ports()
        #: The environment of the collector's side.
        self.collectors = {"SETTLE_MP_ENDPOINT": f"tcp://{address}:{port}"}
        #: The environment of the workers' side.
        self.workers = {**self.collectors, "SETTLE_MP_STATE_DIR": str(state_dir)}
        theirs, ours = host.state_dir / "keys", state_dir / "keys"
        if not theirs.exists():
            keys.make(theirs)
        ours.mkdir()
        for name in (keys.COLLECTOR_PUBLIC, keys.WORKER_SECRET):
            shutil.copy2(theirs / name, ours / name)

    def journals(self) -> list[str]:
        """The folders of its producers."""
        with contextlib.suppress(FileNotFoundError):
            return sorted(path.name for path in (self.state_dir / "journals").iterdir())
        return []


@contextlib.contextmanager
def remote(host: Host) -> Iterator[Elsewhere]:
    """Another host, removed afterwards."""
    state_dir = Path(tempfile.mkdtemp(prefix="smp-", dir="/tmp"))
    try:
        yield Elsewhere(host, state_dir)
    finally:
        shutil.rmtree(state_dir, ignore_errors=True)
