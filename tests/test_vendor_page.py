"""The vendor's page "Track an Event", point by point, in Python with ours, with a real collector."""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import AsyncSettle, InsufficientCreditsError, Settle
from tests.hosts import host
from tests.upstreams import upstream, wait_until
from tests.worker.conftest import end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.hosts import Host

__all__ = ["host", "upstream"]

pytestmark = pytest.mark.slow

USER = "user_123"


@pytest.fixture
def make(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Settle]]:
    """Make clients of a host, with settings by name."""
    for name, value in host.environ.items():
        if name.startswith("SETTLE"):
            monkeypatch.setenv(name, value)
    made: list[Settle] = []

    def make(**settings: Any) -> Settle:
        made.append(Settle(**settings))
        return made[-1]

    yield make
    for client in made:
        end(client)


def test_track(host: Host, make: Callable[..., Settle]) -> None:
    """It returns None at once, quantity and metadata are optional, and it is sent in the background."""
    collector = host.collector()
    track: Any = make().events.track
    # Nothing is answered: whoever waited for the network would wait for ever.
    host.upstream.hold()
    metadata = {"model": "gpt-4", "tokens": 1240}
    for _ in range(1_000):
        assert track(user_id=USER, event_type="AI_QUERY", quantity=1, metadata=metadata) is None
        assert track(user_id=USER, event_type="AI_QUERY") is None
    host.upstream.wait_held(1)
    host.upstream.release()
    host.upstream.wait_quantity(2_000, "AI_QUERY", timeout_s=60)
    assert host.upstream.requests_count < 100  # in batches
    collector.end()


def test_track_is_never_awaited(host: Host, make: Callable[..., Settle]) -> None:
    """It is no coroutine, in an event loop neither: to await it is an error."""
    del host

    async def main() -> None:
        settle = AsyncSettle()
        settle.events.track(USER, "AI_QUERY")
        assert settle.events.pending_count == 1
        with pytest.raises(TypeError, match="await"):
            await settle.events.track(USER, "AI_QUERY")  # type: ignore[func-returns-value, misc]

    assert not inspect.iscoroutinefunction(make().events.track)
    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "is_good"),
    [
        *((name, True) for name in ("AI_QUERY", "PDF_EXPORT", "API_CALL", "VIDEO_MINUTE")),
        *((name, False) for name in ("aiQuery", "pdf-export", "event1", "userDidSomething")),
    ],
)
def test_naming(
    make: Callable[..., Settle], caplog: pytest.LogCaptureFixture, name: str, *, is_good: bool
) -> None:
    """Good names pass without a word; bad ones are counted with a warning once, or refused if one wants."""
    settle, strict = make(), make(strict_names=True)
    with caplog.at_level(logging.WARNING, "settle_mp"):
        for _ in range(3):
            settle.events.track(USER, name)
    warned = [record for record in caplog.records if "name" in record.getMessage()]
    assert len(warned) == (0 if is_good else 1)
    assert settle.events.pending_count == 3
    if is_good:
        strict.events.track(USER, name)
    else:
        with pytest.raises(ValueError, match=f"SCREAMING_SNAKE_CASE.*{name}"):
            strict.events.track(USER, name)


def test_type_safe_names(make: Callable[..., Settle], tmp_path: Path) -> None:
    """The page's three steps are one here, an enum: checkers take no other name, nor does the client."""

    class AppEvent(str, enum.Enum):
        AI_QUERY = "AI_QUERY"
        IMAGE_GEN = "IMAGE_GEN"
        PDF_EXPORT = "PDF_EXPORT"

    settle = make(event_types=AppEvent)
    settle.events.track(USER, AppEvent.AI_QUERY)
    with pytest.raises(ValueError, match="did you mean 'IMAGE_GEN'"):
        settle.events.track(USER, "IMAGE_GENN")

    program = tmp_path / "app.py"
    program.write_text(
        "from typing import Literal\nfrom settle_mp import Settle\n"
        'AppEvent = Literal["AI_QUERY", "IMAGE_GEN", "PDF_EXPORT"]\n'
        "settle = Settle[AppEvent]()\n\n\n"
        "def track_app_event(user_id: str, type: AppEvent) -> None:\n"
        "    settle.events.track(user_id=user_id, event_type=type)\n\n\n"
        'track_app_event("user_123", "AI_QUERY")\n'
        'track_app_event("user_123", "AI_QUERRY")\n'
    )
    root = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(root / ".mypy_cache"),
        str(program),
    ]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout
    # The path may be that of an earlier run: mypy's cache has the same text under the same name.
    assert re.findall(r"app\.py:(\d+): error", said) == ["12"], said


def test_flush(host: Host, make: Callable[..., Settle]) -> None:
    """What a graceful shutdown waits for: afterwards the upstream has it."""
    collector = host.collector(SETTLE_MP_FLUSH_INTERVAL_S="600")
    settle = make()
    settle.events.track(USER, "AI_QUERY", quantity=7)
    assert host.upstream.quantity("AI_QUERY") == 0
    report = settle.events.flush(timeout=60)
    assert report
    assert host.upstream.quantity("AI_QUERY") == 7
    collector.end()


def test_the_pending_count(host: Host, make: Callable[..., Settle]) -> None:
    """How many events are waiting: 12, as on the page, and none once a collector has them."""
    settle = make()
    assert settle.events.pending_count == 0
    for _ in range(12):
        settle.events.track(USER, "AI_QUERY")
    assert settle.events.pending_count == 12
    collector = host.collector()
    wait_until(lambda: settle.events.pending_count == 0, "the collector has taken them", 60)
    collector.end()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_debit_with_insufficient_credits(host: Host, make: Callable[..., Settle], kind: str) -> None:
    """It waits for the API's answer, which is a transaction or an error: awaited, in an event loop."""
    host.upstream.seed({USER: 10})

    async def main() -> tuple[int, InsufficientCreditsError]:
        async with AsyncSettle() as settle:
            assert inspect.iscoroutinefunction(settle.wallet.debit)
            debit = await settle.wallet.debit(USER, amount=10)
            with pytest.raises(InsufficientCreditsError) as short:
                await settle.wallet.debit(USER, amount=10)
            return debit.balance_after, short.value

    if kind == "async":
        balance_after, error = asyncio.run(main())
    else:
        settle = make()
        balance_after = settle.wallet.debit(USER, amount=10).balance_after
        with pytest.raises(InsufficientCreditsError) as short:
            settle.wallet.debit(USER, amount=10)
        error = short.value
        settle.close()
    assert balance_after == 0
    assert (error.user_id, error.current_balance, error.requested_amount) == (USER, 0, 10)
    assert host.upstream.balance(USER) == 0
