"""gunicorn: whatever ends its workers, each answered request is billed exactly once."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.hosts import Gunicorn, Host

pytestmark = pytest.mark.slow

APP = "tests.integrations.tracking_app:app"
HOOKS = "from settle_mp.integrations.gunicorn import *"
REQUESTS = 1_030


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to run gunicorn and to end it."""

    options: tuple[str, ...] = ()
    conf: str = HOOKS
    imported: int = 0
    is_killed: bool = False
    is_collected_afterwards: bool = False

    def end(self, server: Gunicorn) -> None:
        """End gunicorn, at once after the last answer."""
        if self.is_killed:
            server.kill_group()
        else:
            server.end(signal.SIGTERM)


CASES = {
    "SIGTERM": Case(),
    "no-hooks": Case(conf=""),
    "preload": Case(options=("--preload",), imported=7),
    "preload-no-hooks": Case(options=("--preload",), imported=7, conf=""),
    "max-requests": Case(options=("--max-requests=100",)),
    "max-requests-no-hooks": Case(options=("--max-requests=100", "--preload"), conf=""),
    "gthread": Case(options=("--worker-class=gthread", "--threads=4")),
    "gevent": Case(options=("--worker-class=gevent",)),
    "SIGKILL": Case(is_killed=True),
    "collector-afterwards": Case(is_collected_afterwards=True),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_answered_request_is_billed_once(host: Host, case: Case) -> None:
    """1,030 requests, an end at once after the last answer: 1,030 units upstream, and nothing left here."""
    if not case.is_collected_afterwards:
        host.collector()
    server = host.gunicorn(APP, *case.options, conf=case.conf, TRACK_AT_IMPORT=str(case.imported))
    assert server.post(REQUESTS) == REQUESTS
    case.end(server)
    if case.is_collected_afterwards:
        host.collector()
    host.settle(REQUESTS + case.imported)
    assert host.upstream.quantity("REQUEST") == REQUESTS
