"""`settle-mp collector`: one a state folder, its endings and their exit codes, its signals."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from settle_mp.sandbox.faults import Fault
from tests.collectors import command, worker
from tests.hosts import CLI, DEADLINE_S, host
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from tests.hosts import Host

__all__ = ["host", "upstream"]


def said_lines(said: str) -> list[str]:
    """What was said that is no line of the log."""
    return [line for line in said.splitlines() if not line.startswith("20")]


# --- One a state folder ---


def test_a_second_one_ends_with_its_own_code(host: Host) -> None:
    """Rule L5: the second says in one line why it ends, with 75; the first goes on undisturbed."""
    first = host.collector()
    with worker(host) as ada:
        ada.track(2)
        second = command(host, "collector")
        assert second.code == 75
        (line,) = said_lines(second.said)
        assert str(host.state_dir) in line
        ada.track(2)
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 4
    assert first.end().count("ERROR") == 0


def test_a_second_one_past_the_lock_disturbs_nothing(host: Host) -> None:
    """Rule L5: with the lock's file replaced, requests under way at the first are not put in doubt."""
    first = host.collector()
    with worker(host) as ada:
        host.upstream.hold()
        ada.track(1)
        host.upstream.wait_held(1)
        (host.state_dir / "collector.lock").unlink()
        second = command(host, "collector")
        assert second.code == 75
        host.upstream.release()
        assert ada.flush().is_ok
    assert host.status()["in_doubt_ever"]["events"] == 0
    assert host.upstream.requests_count == 1
    first.end()


def test_a_file_at_the_sockets_path_is_left_alone(host: Host) -> None:
    """Rule L5: what is no socket stays, and the collector says so with exit code 1."""
    (host.state_dir / "frames").write_text("somebody's")
    ended = command(host, "collector")
    assert ended.code == 1
    assert "is left alone" in said_lines(ended.said)[0]
    assert (host.state_dir / "frames").read_text() == "somebody's"


def test_what_a_killed_one_left_is_no_hindrance(host: Host) -> None:
    """Sockets without a listener are taken over, and their workers find the new one."""
    with worker(host) as ada:
        host.collector().kill_group()
        assert (host.state_dir / "frames").is_socket()
        host.collector()
        ada.track(1)
        assert ada.flush().is_ok


# --- Settings ---


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"SETTLE_MP_FLUSH_INTERVAL_S": "soon"}, ["flush_interval_s", "environment"]),
        ({"SETTLE_MP_LEDGER_BYTES_MAX": "-1"}, ["ledger_bytes_max", "environment"]),
        ({"SETTLE_MP_ENDPOINT": "tcp://8.8.8.8:53"}, ["endpoint", "environment", "CURVE"]),
        ({"SETTLE_MP_GROUP": "no-such-group"}, ["group", "environment", "a group of this system"]),
        ({"SETTLESETTLE_API_KEY": "", "SETTLESETTLE_API_KEY_FILE": "/no/such/file"}, ["api_key_file"]),
        ({"SETTLESETTLE_API_KEY": "hush hush"}, ["api_key", "ss_test_"]),
    ],
)
def test_settings_that_can_not_be_used_end_it(host: Host, environ: dict[str, str], words: list[str]) -> None:
    """Exit code 78, and one line that names the key, its source and what is allowed; never the secret."""
    ended = command(host, "collector", **environ, SETTLE_MP_STATE_DIR=str(host.state_dir / "new"))
    assert ended.code == 78
    (line,) = said_lines(ended.said)
    assert all(word in line for word in [*words, "allowed"]), line
    assert "hush" not in line


@pytest.mark.parametrize("option", ["nan", "inf", "-1", "soon"])
def test_a_time_to_drain_must_be_one_that_ends(host: Host, option: str) -> None:
    """A time that is none is refused before anything is opened, with click's own code."""
    ended = command(host, "collector", f"--drain-timeout={option}")
    assert ended.code == 2
    assert not (host.state_dir / "ledger").exists()


# --- Signals ---


def test_a_reload_while_it_starts_is_no_end(host: Host) -> None:
    """SIGHUP is heard once it listens: whoever changed the settings need not know how far it is."""
    collector = host.run([*CLI, "collector"])
    status = Path(f"/proc/{collector.pid}/status")
    wait_until(
        lambda: (
            int(status.read_text().partition("SigBlk:")[2].split()[0], 16) & 1
            or "collector_started" in collector.said
        ),
        "it is starting",
        DEADLINE_S,
    )
    collector.send(signal.SIGHUP)
    collector.wait_said("settings_reloaded")
    collector.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_good_order(host: Host, number: signal.Signals) -> None:
    """Asked to end, it ends with 0; what it had taken is there for the next one."""
    collector = host.collector(SETTLE_MP_FLUSH_INTERVAL_S="600")
    with worker(host) as ada:
        ada.track(5)
        wait_until(lambda: ada.pending_count == 0, "the events are committed")
        said = collector.end(number)
        assert "collector_stopped" in said
        assert not (host.state_dir / "frames").exists()
        assert host.upstream.requests_count == 0
        host.collector()
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 5


def test_requests_under_way_are_waited_for(host: Host) -> None:
    """An end lets the upstream answer, so that what was sent is settled and nothing is in doubt."""
    collector = host.collector()
    with worker(host) as ada:
        host.upstream.hold()
        ada.track(1)
        host.upstream.wait_held(1)
        collector.send(signal.SIGTERM)
        collector.wait_said("collector_stopping")
        ada.track(1)  # nothing that is new is sent any more
        host.upstream.release()
        assert collector.process.wait(20) == 0
    books = host.status()["events"]
    assert (books["confirmed"], books["pending"], books["in_doubt"]) == (1, 1, 0)


def test_a_second_signal_hurries(host: Host) -> None:
    """Whoever asks twice does not want to wait: what is under way is in doubt, and the next settles it."""
    collector = host.collector("--drain-timeout=600")
    with worker(host) as ada:
        host.upstream.hold()
        ada.track(1)
        host.upstream.wait_held(1)
        collector.send(signal.SIGTERM)
        collector.wait_said("collector_stopping")
        collector.end(signal.SIGTERM)
        host.upstream.release()
        assert host.status()["events"]["in_doubt"] == 1
        host.collector()
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 1


def test_an_upstream_that_never_answers_holds_it_no_longer_than_bounded(host: Host) -> None:
    """Without an answer, the end comes after some seconds all the same."""
    collector = host.collector()
    with worker(host) as ada:
        host.upstream.hold()
        ada.track(1)
        host.upstream.wait_held(1)
        collector.end()
        host.upstream.release()
    assert host.status()["events"]["in_doubt"] == 1


def test_draining_ships_what_workers_left(host: Host) -> None:
    """With time to drain, open windows and the journals of workers that died unseen are shipped first."""
    collector = host.collector("--drain-timeout=60", SETTLE_MP_FLUSH_INTERVAL_S="600")
    with worker(host) as ada, worker(host, "--silent") as bob:
        ada.track(3)
        wait_until(lambda: ada.pending_count == 0, "the events are committed")
        bob.track(4)
        bob.kill()
        collector.end()
    assert host.upstream.quantity() == 7


def test_draining_is_given_up_at_its_time(host: Host) -> None:
    """With the upstream down, the end comes when the time to drain is over; the events are kept."""
    collector = host.collector("--drain-timeout=0.5")
    host.upstream.stop()
    with worker(host) as ada:
        ada.track(3)
        started_s = time.monotonic()
        collector.end()
        assert time.monotonic() - started_s >= 0.5
        assert host.status()["events"]["pending"] == 3


def test_a_mended_key_ends_a_pause(host: Host) -> None:
    """401 stops the sending and loses nothing; at SIGHUP the key is read again and what waited goes."""
    key_file = host.folder / "key"
    key_file.write_text("ss_test_wrong")
    environ = {"SETTLESETTLE_API_KEY": "", "SETTLESETTLE_API_KEY_FILE": str(key_file)}
    host.upstream.fault(Fault.answering(401, when="before", times=None))
    collector = host.collector(**environ)
    with worker(host) as ada:
        ada.track(2)
        collector.wait_said("upstream_paused")
        # So long a pause that only the mend can end it in time.
        wait_until(lambda: host.upstream.requests_count >= 4, "some tries were made", 60)
        flushed = ada.flush_in_vain(3.0)
        assert not flushed.is_ok
        assert "paused" in str(flushed.reason)
        assert "api_key" in str(flushed.reason)
        host.upstream.clear_faults()
        key_file.write_text(host.upstream.api_key)
        collector.send(signal.SIGHUP)
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 2
    assert "settings_reloaded" in collector.end()


def test_settings_that_can_not_be_used_are_not_taken_over(host: Host) -> None:
    """A SIGHUP with a key of the other kind is said and changes nothing."""
    key_file = host.folder / "key"
    key_file.write_text(host.upstream.api_key)
    collector = host.collector(SETTLESETTLE_API_KEY="", SETTLESETTLE_API_KEY_FILE=str(key_file))
    with worker(host) as ada:
        key_file.write_text("ss_live_" + "x" * 20)
        collector.send(signal.SIGHUP)
        collector.wait_said("settings_not_reloaded")
        ada.track(1)
        assert ada.flush().is_ok
    assert "ss_live_x" not in collector.end()


def test_without_a_key_it_collects_and_ships_once_it_has_one(host: Host) -> None:
    """No key: it says so, takes events in, tells flushes why; a key file and SIGHUP, and it ships."""
    key_file = host.folder / "key"
    config = host.folder / "settle-mp.toml"
    config.write_text("")
    collector = host.collector(f"--config={config}", SETTLESETTLE_API_KEY="")
    assert "no_api_key" in collector.said
    with worker(host) as ada:
        ada.track(2)
        flushed = ada.flush_in_vain(0.5)
        assert (flushed.is_ok, flushed.unconfirmed_count) == (False, 2)
        assert "no api_key" in str(flushed.reason)
        assert host.status()["events"]["pending"] == 2
        key_file.write_text(host.upstream.api_key)
        config.write_text(f'api_key_file = "{key_file}"\n')
        collector.send(signal.SIGHUP)
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 2
    collector.end()


def test_a_ledger_taken_away_ends_it(host: Host) -> None:
    """A collector whose ledger's file is gone acks nothing more and ends; the next start names the loss."""
    collector = host.collector()
    with worker(host) as ada:
        ada.track(1)
        assert ada.flush().is_ok
        for path in (host.state_dir / "ledger").glob("ledger.db*"):
            path.unlink()
        ada.track(2)
        assert collector.process.wait(30) == 1
        assert "the ledger can't be used" in collector.said
        host.collector()
        assert ada.flush().is_ok
    assert host.upstream.quantity() == 3
    books = host.status()
    assert not books["balanced"]
    assert "put aside" in books["faults"][0]


def test_help_is_there(host: Host) -> None:
    """Exit codes and signals are what operators look for."""
    ended = command(host, "collector", "--help")
    assert ended.code == 0
    assert "75" in ended.said
