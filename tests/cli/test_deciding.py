"""The commands by which a person decides: through the running collector and on the files alike.

What each decision does is in `tests/collector/test_desk.py`; here is what a person types and reads.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from settle_mp import config, control
from settle_mp.cli import deciding
from settle_mp.cli.main import main
from settle_mp.collector.status import read_status
from settle_mp.sandbox.faults import Fault
from tests.collectors import Ended, bench, bind, command, make_journal, segment_of, track, worker
from tests.hosts import host
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.hosts import Host

__all__ = ["host", "upstream"]

STRANGE_LEDGER = bytes(range(16))
EACH_WAY = pytest.mark.parametrize("is_up", [True, False], ids=["collector", "files"])


@pytest.fixture
def run(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run `settle-mp` in this process, as a process would on that host."""
    monkeypatch.setattr("settle_mp.cli.logs.configure", lambda _: None)
    for name, value in host.environ.items():
        if name.startswith("SETTLE"):
            monkeypatch.setenv(name, value)

    def run_main(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return Ended(caught.value.code, out + err)

    return run_main


def buckets(host: Host) -> dict[str, int]:
    """Events by what became of them, where there are any; the books balance."""
    report = read_status(config.load(state_dir=host.state_dir))
    assert report.is_balanced, report.faults
    return {name: count for name, count in report.json["events"].items() if count and name != "tracked"}


def wait_buckets(host: Host, **wanted: int) -> None:
    """Wait until the events are there."""
    wait_until(lambda: buckets(host) == wanted, f"{wanted}")


def fill(host: Host) -> None:
    """Have a batch of each of five users held, and a row of each of two refused for good, in this order."""
    with bench(host.state_dir, host.upstream, on_in_doubt="hold", batch_rows_max=1) as made:
        make_journal(host.state_dir, "ann", "bob", "cy", "dee", "eve").close()
        host.upstream.fault(Fault.answering(500, when="before", times=5))
        made.take_in()
        made.ship()
        make_journal(host.state_dir, "fay", "gus").close()
        host.upstream.fault(Fault.refuse("fay"), Fault.refuse("gus"))
        made.take_in()
        made.ship()
        host.upstream.clear_faults()
    assert buckets(host) == {"in_doubt": 5, "dead_lettered": 2}


def held_users(run: Callable[..., Ended]) -> dict[str, int]:
    """The held batches by user."""
    found = json.loads(run("indoubt", "list", "--json").said)
    shown = [json.loads(run("indoubt", "show", str(each["id"])).said) for each in found]
    return {row["userId"]: each["id"] for each in shown for row in each["rows"]}


@EACH_WAY
def test_everything_can_be_decided(host: Host, run: Callable[..., Ended], *, is_up: bool) -> None:
    """Each decision about one of five held batches and two dead letters; each does what it says."""
    fill(host)
    users = held_users(run)
    collector = host.collector(SETTLE_MP_ON_IN_DOUBT="hold") if is_up else None
    for action, user, words in (
        ("retry", "ann", "Ordered a retry of 1 held batches, 1 events (quantity 1): they are billed once"),
        ("renew", "bob", "Renewed 1 held batches"),
        ("confirm", "cy", "Confirmed 1 held batches, 1 events (quantity 1): the books count them as billed."),
        ("discard", "dee", "Discarded 1 held batches"),
    ):
        ended = run("indoubt", action, str(users[user]))
        assert (ended.code, words in ended.said) == (0, True), ended.said
    assert held_users(run) == {"eve": users["eve"]}
    done = json.loads(run("deadletter", "replay", "1", "--json").said)
    assert done == {"done": 1, "events": 1, "quantity": "1", "left": []}
    ended = run("deadletter", "discard", "--all")
    assert "Discarded 1 dead letters, 1 events (quantity 1): they are not billed" in ended.said
    if collector is None:
        collector = host.collector(SETTLE_MP_ON_IN_DOUBT="hold")
    wait_buckets(host, confirmed=4, in_doubt=1, dropped=2)
    status = run("status").lines
    assert "confirmed by a person: 1 events" in status
    assert "held: 1 batches, 1 events; `settle-mp indoubt list`" in status
    billed = {row.user_id for row in host.upstream.rows()}
    assert billed in ({"ann", "bob", "fay"}, {"ann", "bob", "gus"})
    assert collector.said.count(" decided ") == (6 if is_up else 0)


def test_what_can_not_be_decided_is_said(host: Host, run: Callable[..., Ended]) -> None:
    """Exit code 1 and the reason; what could be done is done, and said as well."""
    fill(host)
    ended = run("indoubt", "discard", "1", "99")
    assert (ended.code, len(ended.lines)) == (1, 2)
    assert ended.lines[0].startswith("Discarded 1 held batches")
    assert ended.lines[1] == "settle-mp: there is no batch 99"
    ended = run("deadletter", "replay", "99", "--json")
    assert ended.code == 1
    assert json.loads(ended.said)["left"] == ["there is no dead letter 99"]
    ended = run("indoubt", "show", "99")
    assert (ended.code, ended.said) == (
        1,
        "settle-mp: batch 99 is not held; `settle-mp indoubt list` has them\n",
    )


@pytest.mark.parametrize(
    "name", [("deadletter", "replay"), ("indoubt", "confirm"), ("residue", "acknowledge")]
)
def test_ids_or_all_of_them(run: Callable[..., Ended], name: tuple[str, str]) -> None:
    """One of both, or it is a wrong command line; where nothing is, all of them are none."""
    for arguments in ((), ("1", "--all"), ("0",)):
        assert run(*name, *arguments).code == 2
    ended = run(*name, "--all")
    assert (ended.code, " 0 " in ended.said) == (0, True)


def test_show_has_all_that_is_needed_to_look_for_it(host: Host, run: Callable[..., Ended]) -> None:
    """The key and the rows as they were sent, quantities exact."""
    with bench(host.state_dir, host.upstream, on_in_doubt="hold", annotate=False) as made:
        journal = make_journal(host.state_dir)
        track(journal, "ann", quantity=0.1)
        track(journal, "ann", quantity=0.2)
        journal.close()
        host.upstream.fault(Fault.answering(500, when="before"))
        made.take_in()
        made.ship()
    shown = json.loads(run("indoubt", "show", "1").said)
    assert shown["rows"] == [{"userId": "ann", "eventType": "AI_QUERY", "quantity": "0.3"}]
    assert shown["idempotency_key"] == host.upstream.log()[0]["idempotencyKey"]
    listed = run("indoubt", "list").said
    assert "2 events, quantity 0.3, 1 tries: the upstream answered 500" in listed


def test_what_is_in_doubt_and_not_held_is_mentioned(host: Host, run: Callable[..., Ended]) -> None:
    """Those are tried again by themselves: nobody has to decide."""
    with bench(host.state_dir, host.upstream) as made:
        make_journal(host.state_dir, "ann").close()
        host.upstream.fault(Fault.answering(500, when="before"))
        made.take_in()
        made.send_out()
        wait_until(lambda: made.parts.delivery._done, "an answer has come")
        made.parts.shipping.turn(is_urgent=False, is_ending=True)
        assert run("indoubt", "list").lines == [
            "No batch is held.",
            "1 more events are in doubt and tried again by the collector itself.",
        ]


def test_a_collector_that_does_not_answer_is_told(
    host: Host, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows then whether it was done, and that is said."""
    with bench(host.state_dir):
        monkeypatch.setattr(deciding, "ANSWER_S", 0.1)
        monkeypatch.setattr(deciding, "LOOK_AGAIN_S", 0.05)
        ended = run("indoubt", "confirm", "1")
    assert ended.code == 1
    assert "may or may not have done it: look again" in ended.said


def test_a_collector_that_ends_meanwhile_is_no_hindrance(
    host: Host, run: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command finds the lock free and does it itself."""
    fill(host)
    answers = iter([True, False])
    monkeypatch.setattr(control, "is_collector_up", lambda _: next(answers))
    monkeypatch.setattr(deciding, "LOOK_AGAIN_S", 0.05)
    assert run("indoubt", "confirm", "1").code == 0


# --- Residues ---


def damage(host: Host, folder: Path) -> str:
    """Leave the journal of a dead worker, with two events of which one can't be read. Returns its ID."""
    journal = make_journal(folder, "ann", "bob")
    with segment_of(folder, journal).open("r+b") as file:
        file.seek(12)
        file.write(bytes(12))
    journal.close()
    name = journal.producer.hex()
    (host.state_dir / "journals").mkdir(parents=True, exist_ok=True)
    # As a whole: a collector that runs must not read it before it is damaged.
    (folder / "journals" / name).rename(host.state_dir / "journals" / name)
    return name


def residues_of(host: Host) -> tuple[bool, int, int]:
    """Whether the books balance, and how many residues are open and acknowledged."""
    found = read_status(config.load(state_dir=host.state_dir)).json
    return found["balanced"], found["residues"]["open"], found["residues"]["acknowledged"]


@EACH_WAY
def test_what_was_destroyed_is_acknowledged(
    host: Host, run: Callable[..., Ended], tmp_path: Path, *, is_up: bool
) -> None:
    """It is a fault until then, and stays listed; what is destroyed later is a fault again."""

    def take_in() -> None:
        if not is_up:
            with bench(host.state_dir) as made:
                made.take_in()

    collector = host.collector() if is_up else None
    name = damage(host, tmp_path / "first")
    take_in()
    wait_until(lambda: residues_of(host) == (False, 1, 0), "the damage is named")
    assert run("status").code == 1
    unasked = command(host, "residue", "acknowledge", "--all")  # as a process: nobody answers its question
    assert unasked.code == 1
    assert f"journal {name}" in unasked.said
    assert "events that were destroyed are not billed" in unasked.said
    assert "say --yes" in unasked.said
    (listed,) = json.loads(run("residue", "list", "--json").said)
    ended = run("residue", "acknowledge", str(listed["id"]), "--yes")
    assert (ended.code, "Acknowledged 1 residues: the bill stays as it is" in ended.said) == (0, True)
    assert residues_of(host) == (True, 0, 1)
    ended = run("status")
    assert "residues: 0 open, 1 acknowledged; `settle-mp residue list`" in ended.lines
    assert (ended.code, ended.lines[-1]) == (0, "The books balance.")
    assert run("residue", "list").said == "No residue is open.\n"
    assert "(acknowledged 2" in run("residue", "list", "--all").said
    damage(host, tmp_path / "second")
    take_in()
    wait_until(lambda: residues_of(host) == (False, 1, 1), "the second damage is named")
    ended = run("residue", "acknowledge", "--all", "--yes")
    assert (ended.code, name in ended.said) == (0, False), "only what is open is shown"
    assert residues_of(host) == (True, 0, 2)
    assert collector is None or collector.said.count(" decided ") == 2


def test_a_residue_that_can_not_be_acknowledged_is_said(host: Host, run: Callable[..., Ended]) -> None:
    """No question is asked about what is not there."""
    with bench(host.state_dir):
        pass
    ended = run("residue", "acknowledge", "7")
    assert (ended.code, ended.said) == (1, "settle-mp: there is no residue 7\n")
    assert run("residue", "list", "--all").said == "There are no residues.\n"


def test_a_lost_ledger_is_acknowledged(host: Host, run: Callable[..., Ended]) -> None:
    """What it had taken and not shipped is a residue of the next one, by its own account."""
    with bench(host.state_dir) as made:
        make_journal(host.state_dir, "ann").close()
        made.take_in()
    for path in (host.state_dir / "ledger").glob("ledger.db*"):
        path.unlink()
    assert residues_of(host) == (False, 0, 0), "no ledger names it yet"
    with bench(host.state_dir):
        pass
    assert residues_of(host) == (False, 1, 0)
    assert "put aside" in run("residue", "acknowledge", "--all", "--yes", "--json").said
    assert residues_of(host) == (True, 0, 1)


# --- Journals ---


@EACH_WAY
def test_a_journal_of_an_unknown_ledger_is_adopted(
    host: Host, run: Callable[..., Ended], *, is_up: bool
) -> None:
    """Rule L3: from the position in its header on, after saying what that does to the bill."""
    journal = make_journal(host.state_dir, "ann", "bob")
    before = journal.tail
    track(journal, "cy")
    bind(host.state_dir, journal, STRANGE_LEDGER, before, events_count=2)
    name = journal.producer.hex()
    journal.close()
    if is_up:
        host.collector().wait_said("producer_refused")
    unasked = command(host, "adopt", name)  # as a process: nobody answers its question
    assert unasked.code == 1
    assert "the 1 events (quantity 1) behind that position are billed" in unasked.said
    assert "billed twice" in unasked.said
    assert "say --yes" in unasked.said
    ended = run("adopt", name, "--yes", "--json")
    assert ended.code == 0, ended.said
    if not is_up:
        assert "is known to this ledger already" in run("adopt", name, "--yes").said
        host.collector()
    host.settle(1)
    assert [row.user_id for row in host.upstream.rows()] == ["cy"]


def test_a_live_worker_of_an_unknown_ledger_is_adopted(host: Host, run: Callable[..., Ended]) -> None:
    """Its courier is welcome from then on; nothing is billed twice."""
    with worker(host) as ada:
        collector = host.collector()
        ada.track(3)
        assert ada.flush().is_ok
        collector.end()
        for path in (host.state_dir / "ledger").iterdir():
            path.unlink()
        host.collector().wait_said("producer_refused")
        ada.track(2)
        (name,) = host.journals()
        assert run("adopt", name, "--yes").code == 0
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 5
    assert buckets(host) == {"confirmed": 2}


def test_what_can_not_be_adopted_is_said(host: Host, run: Callable[..., Ended]) -> None:
    """A name that is none is a wrong command line; a journal that is not there, or of another mode, fails."""
    assert run("adopt", "nothing").code == 2
    ended = run("adopt", "00" * 16, "--yes")
    assert (ended.code, "there is no journal" in ended.said) == (1, True)
    journal = make_journal(host.state_dir, "ann", key_mode="live")
    bind(host.state_dir, journal, STRANGE_LEDGER, 0)
    ended = run("adopt", journal.producer.hex(), "--yes")
    assert (ended.code, "live key" in ended.said) == (1, True)
    journal.close()


def test_a_header_that_cant_be_read_is_explained(host: Host, run: Callable[..., Ended]) -> None:
    """Nobody knows what was taken; all that is there is billed, and that may be twice."""
    journal = make_journal(host.state_dir, "ann", "bob")
    (host.state_dir / "journals" / journal.producer.hex() / "header").write_bytes(bytes(4096))
    journal.close()
    ended = run("adopt", journal.producer.hex(), "--yes")
    assert ended.code == 0
    assert "The header of journal" in ended.said
    assert "all that is still in it, 2 events (quantity 2), is billed" in ended.said
