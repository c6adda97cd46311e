"""`settle-mp status`: what it prints, and what its exit code says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.collectors import bench, command, make_journal, segment_of
from tests.hosts import host
from tests.upstreams import upstream

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


def test_who_waits_is_named(host: Host) -> None:
    """A worker whose key is of another mode than the ledger's is a line, and no fault."""
    with bench(host.state_dir, api_key="ss_test_key") as parts:
        assert parts.parts.state.ledger.key_mode == "test"
    journal = make_journal(host.state_dir, "ada", key_mode="live")
    ended = command(host, "status")
    assert ended.code == 0
    assert any(line.startswith("waiting: ") and "live key" in line for line in ended.lines)
    journal.close()
