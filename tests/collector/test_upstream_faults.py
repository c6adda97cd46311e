"""Each fault of the upstream once, alone: what becomes of two events, and which line of the log says so.

Under load, from many processes and threads, the same faults are played by `tests/chaos/upstream.py`.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest

from settle_mp import config
from settle_mp.sandbox.faults import Fault
from settle_mp.upstream import Upstream as Client
from tests import rawserver
from tests.collectors import Bench, bench, make_journal
from tests.upstreams import DEADLINE_S, sandbox, upstream, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.upstreams import Upstream

__all__ = ["upstream"]

#: Seconds of a try, in the place of 30.
TRY_S = 0.5


@pytest.fixture(autouse=True)
def _short_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for 30 s here."""
    monkeypatch.setitem(Client.__init__.__kwdefaults__ or {}, "try_timeout_s", TRY_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A fault that one request meets, and what is seen of it."""

    fault: Callable[[], Fault]
    line: str
    doubts: int
    retry_after_s: float = 0.0


def in_doubt(fault: Fault) -> Case:
    """It may have been applied: sent again as it was."""
    return Case(fault=lambda: fault, line="batch_in_doubt", doubts=2)


def certain(fault: Callable[[], Fault], line: str, retry_after_s: float = 0.0) -> Case:
    """It was not applied."""
    return Case(fault=fault, line=line, doubts=0, retry_after_s=retry_after_s)


def date() -> str:
    """A moment soon."""
    return formatdate(time.time() + 2.0, usegmt=True)


CASES = {
    "read timeout after applying": in_doubt(Fault.delay(2 * TRY_S, when="after")),
    "read timeout before applying": in_doubt(Fault.reset(when="before", delay_s=2 * TRY_S)),
    "reset after applying": in_doubt(Fault.reset(when="after")),
    "reset before applying": in_doubt(Fault.reset(when="before")),
    "500 after applying": in_doubt(Fault.answering(500, when="after")),
    "500 before applying": in_doubt(Fault.answering(500, when="before")),
    "408": in_doubt(Fault.answering(408, when="before")),
    "HTML after applying": in_doubt(Fault.html(when="after")),
    "HTML before applying": in_doubt(Fault.html(when="before")),
    "drip": in_doubt(Fault.drip(1.0)),
    "503 for 1 s": in_doubt(Fault.answering(503, when="before", headers={"Retry-After": "1"})),
    "503": in_doubt(Fault.answering(503, when="after")),
    "429 for 1 s": certain(
        lambda: Fault.answering(429, when="before", headers={"Retry-After": "1"}), "upstream_down", 1.0
    ),
    "429 until a date": certain(
        lambda: Fault.answering(429, when="before", headers={"Retry-After": date()}), "upstream_down", 0.9
    ),
    "429": certain(lambda: Fault.answering(429, when="before"), "upstream_down"),
    "401": certain(lambda: Fault.answering(401, when="before"), "upstream_paused"),
    "402": certain(lambda: Fault.answering(402, when="before"), "upstream_paused"),
    "403": certain(lambda: Fault.answering(403, when="before"), "upstream_paused"),
    "404": certain(lambda: Fault.answering(404, when="before"), "upstream_paused"),
    "redirect": certain(lambda: Fault.redirect("http://127.0.0.1:9/"), "upstream_paused"),
    "413": certain(lambda: Fault.answering(413, when="before"), "batch_divided"),
    "400 once": certain(lambda: Fault.answering(400, when="before"), "batch_divided"),
}


def lines(caplog: pytest.LogCaptureFixture) -> dict[str, dict[str, object]]:
    """The lines that name a trouble, each with reason, bill and mend."""
    found = {
        each.message: vars(each) for each in caplog.records if each.name == "settle_mp" and each.levelno > 20
    }
    for name, fields in found.items():
        assert all(fields.get(field) for field in ("reason", "bill", "mend")), name
    return found


def take_in(made: Bench, *users: str) -> None:
    """Take in an event for each user."""
    make_journal(made.settings.state_dir, *users).close()
    made.take_in()


def books(made: Bench) -> dict[str, int]:
    """Events by bucket, where there are any; they balance."""
    assert made.faults() == []
    totals = made.parts.state.ledger.totals()
    return {name: total.events for name, total in totals.items() if total.events and name != "committed"}


@pytest.mark.parametrize("name", CASES)
def test_it_costs_nothing_and_is_told(
    name: str, state_dir: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Billed once, with no restart; in doubt is what may have been applied; one line says what it means."""
    case = CASES[name]
    with bench(state_dir, upstream) as made:
        take_in(made, "ann", "bob")
        upstream.fault(case.fault())
        began_s = time.monotonic()
        made.ship()
        assert time.monotonic() - began_s >= case.retry_after_s
        assert books(made) == {"confirmed": 2}
        assert made.parts.state.ledger.in_doubt_ever().events == case.doubts
    assert case.line in lines(caplog)
    assert upstream.quantity() == 2
    keys = [each["idempotencyKey"] for each in upstream.log()]
    # D2: in doubt, the same key; D3: certainly refused, another one; deferred, the same.
    assert (len(set(keys)) == 1) == (case.doubts > 0 or case.line == "upstream_down")


@contextlib.contextmanager
def _nowhere(name: str) -> Iterator[str]:
    """An address that leads nowhere in some way."""
    with contextlib.ExitStack() as stack:
        if name == "refused":
            yield f"http://127.0.0.1:{stack.enter_context(rawserver.refusing_port())}"
        elif name == "connect timeout":
            yield f"http://127.0.0.1:{stack.enter_context(rawserver.deaf_port())}"
        elif name == "TLS":
            raw = stack.enter_context(rawserver.raw_server(rawserver.knows_no_tls))
            yield f"https://127.0.0.1:{raw.port}"
        else:
            yield "http://nobody.invalid"


@pytest.mark.parametrize("name", ["refused", "name not found", "TLS", "connect timeout"])
def test_a_way_that_leads_nowhere_is_mended_without_a_restart(
    name: str, state_dir: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing was applied, for certain: nothing is in doubt, and what waited goes to the mended address."""
    with _nowhere(name) as url, bench(state_dir, upstream, base_url=url) as made:
        take_in(made, "ann", "bob")
        made.send_out()
        wait_until(lambda: made.parts.delivery._done, "the try has ended")
        made.send_out()
        assert books(made) == {"pending": 2}
        assert "upstream_down" in lines(caplog)
        right = config.load(state_dir=state_dir, api_key=upstream.api_key, base_url=upstream.base_url)
        made.parts.use(right)
        made.ship()
        assert books(made) == {"confirmed": 2}
        assert made.parts.state.ledger.in_doubt_ever().events == 0
    assert upstream.quantity() == 2


def test_one_bad_row_in_fifty(state_dir: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    """It is found and kept; the other 49 are billed once."""
    upstream.fault(Fault.refuse("user_17"))
    with bench(state_dir, upstream) as made:
        take_in(made, *(f"user_{number}" for number in range(50)))
        made.ship()
        assert books(made) == {"confirmed": 49, "dead_lettered": 1}
        assert made.parts.state.ledger.in_doubt_ever().events == 0
    assert "events_dead_lettered" in lines(caplog)
    assert upstream.quantity() == 49


def test_400_for_all_kills_nothing(
    state_dir: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Sending pauses, and goes on when rows are taken again."""
    upstream.fault(Fault.answering(400, when="before", times=None))
    with bench(state_dir, upstream) as made:
        take_in(made, *(f"user_{number}" for number in range(50)))
        deadline_s = time.monotonic() + DEADLINE_S
        while made.parts.shipping.health.state != "paused":
            made.send_out()
            assert time.monotonic() < deadline_s
            time.sleep(0.002)
        assert books(made) == {"pending": 50}
        upstream.clear_faults()
        made.parts.use(made.settings)
        made.ship()
        assert books(made) == {"confirmed": 50}
    assert "upstream_paused" in lines(caplog)


@pytest.mark.parametrize("status", [400, 413])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_refusal_after_a_doubt_is_held(
    status: int, when: str, state_dir: Path, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    """Applied or not, nobody here knows: a person decides, and it is billed once at most."""
    upstream.fault(Fault.reset(when=when), Fault.answering(status, when="before"))
    with bench(state_dir, upstream) as made:
        take_in(made, "ann", "bob")
        made.ship()
        assert books(made) == {"in_doubt": 2}
        assert made.parts.state.ledger.in_doubt_ever().events == 2
    assert "batch_held" in lines(caplog)
    assert upstream.quantity() == (2 if when == "after" else 0)


def test_a_server_that_ignores_keys_bills_twice_at_most_what_is_in_doubt(
    state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The line says so beforehand: the bill depends on what the upstream knows of keys."""
    with sandbox(ignores_idempotency_keys=True) as careless, bench(state_dir, careless) as made:
        take_in(made, "ann", "bob")
        careless.fault(Fault.reset(when="after"), Fault.answering(500, when="after"))
        made.ship()
        assert books(made) == {"confirmed": 2}
        twice = careless.quantity() - 2
        assert 0 < twice <= made.parts.state.ledger.in_doubt_ever().events == 4
    assert "may be billed twice where it does not" in str(lines(caplog)["batch_in_doubt"]["bill"])


def test_a_key_that_was_forgotten_bills_twice_at_most_what_is_in_doubt(
    state_dir: Path, upstream: Upstream
) -> None:
    """Earlier than it had promised."""
    with bench(state_dir, upstream) as made:
        take_in(made, "ann", "bob")
        upstream.fault(Fault.reset(when="after"))
        made.send_out()
        wait_until(lambda: made.parts.delivery._done, "the try has ended")
        upstream.forget_keys()
        made.ship()
        assert upstream.quantity() == 4
        assert made.parts.state.ledger.in_doubt_ever().events == 2
