"""What a process reports of itself, found out in processes that are as the facts say."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from dataclasses import replace

import pytest
import zmq

from settle_mp.config import load
from settle_mp.core.record import decode_identity, encode_identity
from settle_mp.version import __version__
from settle_mp.worker import facts
from tests.worker import children

ASK = "from settle_mp.worker.facts import identity; said = identity('', '').facts['gevent'];"
PATCH = "from gevent import monkey; monkey.patch_all();"


def test_a_process_says_what_it_is() -> None:
    """Versions, limits and where it journals; all of it survives the header."""
    settings = load(state_dir="/s", endpoint="tcp://127.0.0.1:4000", environ={})
    identity = facts.identity("live", "worker 3", settings)
    assert identity.facts == identity.facts | {
        "version": __version__,
        "pid": str(os.getpid()),
        "user": str(os.geteuid()),
        "descriptors": str(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        "state_dir": "/s",
        "endpoint": "tcp://127.0.0.1:4000",
    }
    read = decode_identity(encode_identity(replace(identity, producer=bytes(16))))
    assert read is not None
    assert read.facts == identity.facts


@pytest.mark.parametrize(
    ("code", "said"),
    [(ASK, ""), (PATCH + ASK, "patched"), (ASK + PATCH + ASK, "late")],
    ids=["not patched", "patched first", "patched after the first event"],
)
def test_when_gevent_patched_is_seen(code: str, said: str) -> None:
    """Late is after a journal was made, here or in a parent."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{code} print(said)"], capture_output=True, text=True, check=True
    )
    assert ended.stdout == f"{said}\n"


def test_a_context_of_the_parents_is_seen() -> None:
    """The application's shared one, in a child; not where it was made anew, nor where there is none."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    try:
        assert facts.identity("", "").facts["zmq"] == ""
        assert "before the fork" in children.run(lambda: facts.identity("", "").facts["zmq"])
        assert children.run(made_anew) == ""
    finally:
        context.term()


def made_anew() -> str:
    """What a child says that uses one of its own."""
    zmq.Context.instance()
    return facts.identity("", "").facts["zmq"]
