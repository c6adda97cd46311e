"""What `track()` says of names: a warning once a name, or a refusal where the application wants one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import SettingsError
from settle_mp.worker import naming
from tests.worker import reading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from settle_mp import Settle


class AppEvent(Enum):
    """What an application declares."""

    AI_QUERY = "AI_QUERY"
    PDF_EXPORT = "PDF_EXPORT"


class Kind(str, Enum):
    """The same as text."""

    AI_QUERY = "AI_QUERY"


@pytest.fixture(autouse=True)
def _unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "_warned", set())


def types(state_dir: Path) -> list[str]:
    """The event types that were journaled."""
    return [event.event_type for event in reading.events(reading.only_journal(state_dir))]


def test_a_bad_name_warns_once_and_counts(quiet: Settle, state_dir: Path) -> None:
    """At the line of the application, with the name that was meant; the events are tracked all the same."""
    with pytest.warns(UserWarning, match=r"not 'aiQuery'; did you mean 'AI_QUERY'") as caught:
        quiet.events.track("u", "aiQuery")
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quiet.events.track("u", "aiQuery")
        quiet.events.track("u", "AI_QUERY")
    with pytest.warns(UserWarning, match="not 'pdf-export'"):
        quiet.events.track("u", "pdf-export")
    assert types(state_dir) == ["aiQuery", "aiQuery", "AI_QUERY", "pdf-export"]


def test_an_event_that_is_refused_anyway_warns_of_no_name(quiet: Settle) -> None:
    """One thing at a time."""
    with pytest.raises(ValueError, match="quantity"):
        quiet.events.track("u", "aiQuery", 0)
    with pytest.warns(UserWarning, match="aiQuery"):
        quiet.events.track("u", "aiQuery", 1)


def test_where_warnings_are_errors_it_is_logged(
    quiet: Settle, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that bills correctly must not end a request; said once as well."""
    with caplog.at_level(logging.WARNING, "settle_mp"):
        for _ in range(3):
            quiet.events.track("u", "aiQuery")
    assert [record.message for record in caplog.records] == ["event_type_ill_named"]
    assert vars(caplog.records[0])["event_type"] == "aiQuery"
    assert types(state_dir) == ["aiQuery"] * 3


def test_a_program_that_makes_warnings_errors_runs_on(state_dir: Path) -> None:
    """As `python -W error` runs it."""
    program = (
        "from settle_mp import Settle\n"
        "settle = Settle()\n"
        "settle.events.track('u', 'aiQuery')\n"
        "print(settle.events.pending_count)\n"
    )
    environ = {**os.environ, "SETTLE_MP_STATE_DIR": str(state_dir)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=environ,
    )
    assert done.stdout == "1\n"


def test_made_up_names_are_warned_of_to_an_end(quiet: Settle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that were warned of are bounded, and so is what they fill."""
    monkeypatch.setattr(naming, "WARNED_MAX", 3)

    def track_all() -> None:
        for number in range(10):
            quiet.events.track("u", f"name{number}")

    with pytest.warns(UserWarning, match="name[012]") as caught:
        track_all()
    assert len(caught) == 3
    assert len(naming._warned) == 3


def test_strict_names_refuse(make_client: Callable[..., Settle], state_dir: Path) -> None:
    """By the call, with what was meant; a good name is taken."""
    client = make_client(strict_names=True)
    client.close(timeout=0)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"not 'aiQuery'; did you mean 'AI_QUERY'.*strict_names is on"):
            client.events.track("u", "aiQuery")
        client.events.track("u", "AI_QUERY")
    assert types(state_dir) == ["AI_QUERY"] * 2


@pytest.mark.parametrize(
    "declared", [AppEvent, ["AI_QUERY", "PDF_EXPORT"], {Kind.AI_QUERY, AppEvent.PDF_EXPORT}]
)
def test_undeclared_names_are_refused(
    make_client: Callable[..., Settle], state_dir: Path, declared: Any
) -> None:
    """With "did you mean"; declared ones are taken as text and as members, each time."""
    client = make_client(event_types=declared)
    client.close(timeout=0)
    taken: tuple[Any, ...] = ("AI_QUERY", Kind.AI_QUERY, AppEvent.AI_QUERY, "PDF_EXPORT")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"one of event_types .*'AI_QUERRY'; did you mean 'AI_QUERY'"):
            client.events.track("u", "AI_QUERRY")
        for event_type in taken:
            client.events.track("u", event_type)
    assert types(state_dir) == ["AI_QUERY", "AI_QUERY", "AI_QUERY", "PDF_EXPORT"] * 2


@pytest.mark.parametrize("event_type", ["AI_QUERY", Kind.AI_QUERY, AppEvent.AI_QUERY])
def test_a_name_is_looked_at_once(
    make_client: Callable[..., Settle], monkeypatch: pytest.MonkeyPatch, event_type: Any
) -> None:
    """Then the hot path knows it by heart, members of an Enum as well."""
    checked: list[str] = []
    monkeypatch.setattr(naming.Naming, "check", lambda _, name: checked.append(name))
    client = make_client(event_types=AppEvent)
    client.close(timeout=0)
    for _ in range(3):
        client.events.track("u", event_type)
    assert checked == ["AI_QUERY"]
    assert client.events.pending_count == 3


def test_what_is_refused_for_its_name_is_counted_where_nothing_is_raised(
    make_client: Callable[..., Settle], state_dir: Path
) -> None:
    """With on_invalid="count" as any other bad argument."""
    client = make_client(event_types=AppEvent, strict_names=True, on_invalid="count")
    client.close(timeout=0)
    client.events.track("u", "AI_QUERRY")
    client.events.track("u", "AI_QUERY")
    assert reading.slot(reading.only_journal(state_dir), "drops").dropped_count == 1
    assert types(state_dir) == ["AI_QUERY"]


@pytest.mark.parametrize("declared", ["AI_QUERY", [], [5], [""], ["A" * 129], 5, {"A": "A"}])
def test_declared_names_that_can_not_be_are_an_error_at_start(
    make_client: Callable[..., Settle], declared: Any
) -> None:
    """Naming the setting."""
    with pytest.raises(SettingsError) as caught:
        make_client(event_types=declared)
    assert caught.value.key == "event_types"


def test_a_client_is_the_same_whatever_it_is_called_by(make_client: Callable[..., Settle]) -> None:
    """The method of the class does what the instance's own function does, for subclasses and mocks."""
    client = make_client()
    client.close(timeout=0)
    type(client.events).track(client.events, "u", "AI_QUERY")
    assert client.events.pending_count == 1
