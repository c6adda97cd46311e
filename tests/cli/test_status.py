"""`settle-mp status`: what it prints, and what its exit code says."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from settle_mp import Settle
from tests.collectors import bench, command, make_journal, segment_of
from tests.hosts import host
from tests.upstreams import upstream, wait_until
from tests.worker.conftest import end

if TYPE_CHECKING:
    from tests.hosts import Host

__all__ = ["host", "upstream"]


def test_it_works_with_no_collector_and_says_so(host: Host) -> None:
    """The books come from the files; that nobody collects is one of the lines."""
    journal = make_journal(host.state_dir, "ada", "bob")
    ended = command(host, "status")
    assert ended.code == 0
    assert "collector: down" in ended.lines
    assert "The books balance." in ended.lines
    assert ["pending", "2", "2"] in [line.split() for line in ended.lines]
    journal.close()


def test_it_names_the_state_folder_and_says_when_nobody_has_used_it(host: Host) -> None:
    """Who asks about another folder than the workers' sees zeros, and why."""
    assert f"state dir: {host.state_dir}" in command(host, "status").lines
    elsewhere = host.state_dir / "elsewhere"
    said = command(host, "status", "--state-dir", str(elsewhere)).lines
    assert f"state dir: {elsewhere} (not there: neither worker nor collector has used it)" in said


def test_json_is_one_object(host: Host) -> None:
    """What scripts read is nothing but JSON."""
    found = json.loads(command(host, "status", "--json").said)
    assert found["collector"] == {"state": "down"}


def test_it_says_how_the_upstream_does(host: Host) -> None:
    """With a collector running it knows more than the files."""
    host.collector(SETTLESETTLE_API_KEY="")
    ended = command(host, "status")
    assert "collector: up" in ended.lines
    assert any(line.startswith("upstream:  no_key") for line in ended.lines)


def test_books_that_do_not_balance_fail_and_are_named(host: Host) -> None:
    """Exit code 1, and a line for each fault."""
    with bench(host.state_dir):
        pass
    journal = make_journal(host.state_dir, "ada", "bob")
    with segment_of(host.state_dir, journal).open("r+b") as file:
        file.seek(12)
        file.write(bytes(12))
    ended = command(host, "status")
    assert ended.code == 1
    at = ended.lines.index("THE BOOKS DO NOT BALANCE:")
    assert journal.producer.hex() in ended.lines[at + 1]
    journal.close()


@pytest.mark.parametrize("key", [None, ""], ids=["sealed", "open"])
def test_metadata_that_defeat_folding_are_named_and_the_rule_proposed(host: Host, key: str | None) -> None:
    """Once it is in the settings, nothing is named any more; without a key too, where nothing is sealed."""
    collector = host.collector(**({} if key is None else {"SETTLESETTLE_API_KEY": key}))
    client = Settle(state_dir=host.state_dir)
    for number in range(120):
        metadata = {"model": "gpt-4", "request_id": f"r{number}", "tokens": number}
        client.events.track("ada", "AI_QUERY", metadata=metadata)
    client.events.flush(timeout=30 if key is None else 0)
    wait_until(lambda: client.events.pending_count == 0, "the events are committed")
    (found,) = json.loads(command(host, "status", "--json").said)["unfolded"]
    assert found == {
        "event_type": "AI_QUERY",
        "metadata": [{"name": "request_id", "share": 1.0}, {"name": "tokens", "share": 1.0}],
        "rule": '[events.AI_QUERY]\nsum = ["tokens"]\ndrop = ["request_id"]',
    }
    lines = [line.strip() for line in command(host, "status").lines]
    at = lines.index("[events.AI_QUERY]")
    assert lines[at : at + 3] == found["rule"].splitlines()
    assert any("request_id (100%), tokens (100%)" in line for line in lines)
    if key is None:
        assert "metadata_defeat_folding" in collector.said
        (host.state_dir / "settle-mp.toml").write_text(found["rule"])
        collector.send(signal.SIGHUP)
        wait_until(
            lambda: json.loads(command(host, "status", "--json").said)["unfolded"] == [], "it is mended"
        )
    end(client)


def test_who_waits_is_named(host: Host) -> None:
    """A worker whose key is of another mode than the ledger's is a line, and no fault."""
    with bench(host.state_dir, api_key="ss_test_key") as parts:
        assert parts.parts.state.ledger.key_mode == "test"
    journal = make_journal(host.state_dir, "ada", key_mode="live")
    ended = command(host, "status")
    assert ended.code == 0
    assert any(line.startswith("waiting: ") and "live key" in line for line in ended.lines)
    journal.close()
