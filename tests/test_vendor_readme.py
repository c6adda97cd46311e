"""Every example of the vendor's README with ours: only the name in its import lines is another.

The README is read from the installed package, as its page on PyPI shows it.
"""

from __future__ import annotations

import importlib.metadata
import re
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

import settle_mp
from settle_mp.sandbox.faults import Fault
from tests.docs.blocks import blocks
from tests.hosts import host
from tests.upstreams import upstream
from tests.worker.conftest import end

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.hosts import Host
    from tests.upstreams import Upstream

__all__ = ["host", "upstream"]

pytestmark = pytest.mark.slow

USER = "user_123"


def examples() -> list[str]:
    """The README's Python, import lines changed."""
    readme = str(importlib.metadata.metadata("settlesettle").json["description"])
    shown = [block.text for block in blocks(readme) if block.language == "python"]
    assert all(text.count("from settlesettle import ") == 1 for text in shown)
    return [text.replace("from settlesettle import ", "from settle_mp import ") for text in shown]


INITIALIZE, SYNCHRONOUS, ASYNCHRONOUS, CONTEXT_MANAGER, ERRORS = examples()


@pytest.fixture
def user(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Set up a host with a collector, and this process as one of its workers; the user has 15 credits."""
    for name, value in host.environ.items():
        if name.startswith("SETTLE"):
            monkeypatch.setenv(name, value)
    host.upstream.seed({USER: 15})
    host.collector()
    yield host
    host.programs[0].end()


def ran(example: str, **names: Any) -> dict[str, Any]:
    """Run an example, with what it leaves to its reader."""
    exec(example, names)  # noqa: S102 - Our own dependency's documentation.
    return names


def test_the_client_is_made(user: Host) -> None:
    """With a key as an argument."""
    settle = ran(INITIALIZE)["settle"]
    assert isinstance(settle, settle_mp.Settle)
    assert (settle.is_live, settle.is_sandbox) == (True, False)
    del user


def test_the_synchronous_example(user: Host) -> None:
    """Debit, catch, track; and what it tracked is billed."""
    names = ran(SYNCHRONOUS, run_ai_query=str.upper)
    assert names["process_ai_query"](USER, "why?") == {"result": "WHY?"}
    short = {"error": "insufficient_credits", "current_balance": 5, "requested": 10}
    assert names["process_ai_query"](USER, "why?") == short
    assert names["settle"].events.flush(timeout=60)
    (row,) = user.upstream.rows("AI_QUERY")
    assert (row.user_id, int(row.quantity), (row.metadata or {})["prompt_length"]) == (USER, 1, 4)
    end(names["settle"])


def test_the_asynchronous_example(user: Host) -> None:
    """The FastAPI application, its lifespan included, over its own way of being called."""
    with warnings.catch_warnings():
        # Of how Starlette's client is installed.
        warnings.simplefilter("ignore")
        from fastapi.testclient import TestClient

    async def run_ai_query(prompt: str) -> str:
        return prompt.upper()

    names = ran(ASYNCHRONOUS, run_ai_query=run_ai_query)
    with TestClient(names["app"]) as client:
        asked = {"user_id": USER, "prompt": "why?"}
        assert client.post("/query", params=asked).json() == {"result": "WHY?"}
        refused = client.post("/query", params=asked)
    assert (refused.status_code, refused.json()) == (
        402,
        {"detail": {"error": "insufficient_credits", "current_balance": 5, "requested": 10}},
    )
    user.upstream.wait_quantity(1, "AI_QUERY", timeout_s=60)
    end(names["settle"]._client)


def test_the_context_manager_example(user: Host, capsys: pytest.CaptureFixture[str]) -> None:
    """Its comment promises that events are flushed; with ours they are safe already."""
    ran(CONTEXT_MANAGER)
    assert capsys.readouterr().out == "Credits remaining: 15\n"
    del user


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (None, "InsufficientCreditsError"),
        (400, "ValidationError"),
        (401, "AuthenticationError"),
        (429, "RateLimitError"),
        (403, "SettleSettleError"),
    ],
)
def test_the_errors_example(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, status: int | None, kind: str
) -> None:
    """Each of its clauses is there for an answer, and takes that one."""
    upstream.seed({USER: 15})
    if status is not None:
        upstream.fault(Fault.answering(status, when="before", times=100, path=f"/v1/wallet/{USER}/debit"))
    settle = settle_mp.SettleSettle(api_key=upstream.api_key, base_url=upstream.base_url)
    # The call as it stands there; only its time is less, for the answers after which it is tried again.
    monkeypatch.setattr(settle.wallet, "debit", partial(settle.wallet.debit, timeout=3.0))
    clause = re.compile(r"^except (\w+)(?: as e)?:$", re.MULTILINE)
    assert kind in clause.findall(ERRORS)
    reached: list[str] = []
    ran(clause.sub(r"except \1 as e:\n    reached.append('\1')", ERRORS), settle=settle, reached=reached)
    assert reached == [kind]
    settle.close()
