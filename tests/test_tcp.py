"""Over tcp with CURVE: real collectors, and workers whose state folder is another one."""

from __future__ import annotations

import json
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from settle_mp import SettingsError, Settle, keys
from settle_mp.journals import read_header
from tests.collectors import command, worker
from tests.hosts import host
from tests.remotes import remote
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host
    from tests.remotes import Elsewhere

__all__ = ["host", "upstream"]


def test_a_worker_elsewhere_is_billed_exactly_once(host: Host) -> None:
    """Promise 1, and flush() too, across a kill of the collector."""
    with remote(host) as elsewhere:
        collector = host.collector(**elsewhere.collectors)
        with worker(host, **elsewhere.workers) as ada:
            ada.track(1_000)
            collector.kill_group()
            ada.track(1_000)
            host.collector(**elsewhere.collectors)
            assert ada.flush().is_ok
        assert host.upstream.quantity() == 2_000
        assert command(host, "flush", **elsewhere.collectors).code == 0
        books = host.status()
        assert books["balanced"], books
        assert books["events"]["confirmed"] == 2_000
        assert books["durable"]


def test_a_worker_that_is_not_admitted_is_let_in_once_it_is(host: Host) -> None:
    """Its events wait in its journal; its public key and SIGHUP are all that is needed."""
    with remote(host) as elsewhere:
        public = host.state_dir / "keys" / "workers" / "worker.public"
        kept = public.read_text()
        public.unlink()
        collector = host.collector(**elsewhere.collectors)
        with worker(host, **elsewhere.workers) as ada:
            ada.track(3)
            collector.wait_said("stranger_turned_away")
            assert ada.pending_count == 3
            public.write_text(kept)
            collector.send(signal.SIGHUP)
            assert ada.flush().is_ok
        assert host.upstream.quantity() == 3


def test_without_keys_tcp_goes_no_further_than_loopback(host: Host, state_dir: Path) -> None:
    """Both sides refuse to start, and say which command makes the keys."""
    beyond = {"SETTLE_MP_ENDPOINT": "tcp://0.0.0.0:4747"}
    ended = command(host, "collector", **beyond)
    assert ended.code == 78
    assert "`settle-mp keys`" in ended.said
    with pytest.raises(SettingsError, match="`settle-mp keys`") as caught:
        Settle(state_dir=state_dir, endpoint="tcp://collector.internal:4747")
    assert caught.value.key == "endpoint"
    Settle(state_dir=state_dir, endpoint="tcp://collector.internal:4747", disabled=True)


def test_keys_that_can_not_be_used_are_an_error_at_start(host: Host) -> None:
    """It names the setting, and nothing of the key."""
    keys.make(host.state_dir / "keys")
    secret = host.state_dir / "keys" / keys.COLLECTOR_SECRET
    secret.chmod(0o644)
    ended = command(host, "collector", SETTLE_MP_ENDPOINT="tcp://127.0.0.1:4747")
    assert ended.code == 78
    assert "keys_dir" in ended.said
    assert "chmod o=" in ended.said
    assert secret.read_text().strip() not in ended.said


def test_a_reload_with_bad_keys_changes_nothing(host: Host) -> None:
    """SIGHUP keeps those in who are admitted, and says what is wrong."""
    with remote(host) as elsewhere:
        collector = host.collector(**elsewhere.collectors)
        (host.state_dir / "keys" / "workers" / "bad.public").write_text("nonsense")
        collector.send(signal.SIGHUP)
        collector.wait_said("settings_not_reloaded")
        with worker(host, **elsewhere.workers) as ada:
            ada.track(1)
            wait_until(lambda: ada.pending_count == 0, "it is taken")


# What the dead leave where the collector can't see it.


def settled(host: Host, elsewhere: Elsewhere, count: int) -> None:
    """Wait until the upstream has all of it once, nothing is left elsewhere, and the books say the same."""
    host.upstream.wait_quantity(count, timeout_s=60)
    wait_until(lambda: not elsewhere.journals(), "all journals are removed", 60)
    books = host.status()
    assert books["balanced"], books
    assert {name: n for name, n in books["events"].items() if n} == {"tracked": count, "confirmed": count}
    assert books["durable"]
    assert host.upstream.quantity() == count


def test_the_next_worker_ships_what_a_killed_one_left(host: Host) -> None:
    """Promise 1: what a worker without a thread left is shipped by a later one, to the last event."""
    with remote(host) as elsewhere:
        host.collector(**elsewhere.collectors)
        with worker(host, "--silent", **elsewhere.workers) as ada:
            ada.track(50_000)  # several segments, more than the credit
            ada.kill()
        assert len(elsewhere.journals()) == 1
        with worker(host, **elsewhere.workers) as bob:
            bob.track(1)
            wait_until(lambda: len(elsewhere.journals()) == 1, "the dead one's folder is gone", 60)
            assert bob.flush().is_ok
        heir_of_heirs(host, elsewhere)
        settled(host, elsewhere, 50_002)


def heir_of_heirs(host: Host, elsewhere: Elsewhere) -> None:
    """Have everything taken over, and remove the journal of the one that did."""
    with worker(host, **elsewhere.workers) as last:
        last.track(1)
        wait_until(lambda: len(elsewhere.journals()) == 1, "all others are gone", 60)
        assert last.flush().is_ok
    # Its own is acked to the end; the next worker would remove it, and nothing comes of it.
    for name in elsewhere.journals():
        shutil.rmtree(elsewhere.state_dir / "journals" / name)


def test_heirs_and_collectors_are_killed_on_the_way(host: Host) -> None:
    """Promise 1: whoever takes over from a killed heir, and from a killed collector, counts nothing twice."""
    with remote(host) as elsewhere:
        collector = host.collector(**elsewhere.collectors)
        with worker(host, "--silent", **elsewhere.workers) as dead:
            dead.track(100_000)
            dead.kill()
        (name,) = elsewhere.journals()
        folder, committed = elsewhere.state_dir / "journals" / name, 0
        for number in range(4):
            with worker(host, **elsewhere.workers) as heir:
                heir.track(100)
                wait_until(partial(is_carried_beyond, folder, committed), "some of it is carried", 60)
                if number % 2:
                    collector.kill_group()
                    collector = host.collector(**elsewhere.collectors)
                heir.kill()
            committed = committed_in(folder)
        heir_of_heirs(host, elsewhere)
        settled(host, elsewhere, 100_401)


def committed_in(folder: Path) -> int:
    """How far a journal's header says that it is committed; far, when it is gone."""
    try:
        return read_header(folder).courier.position
    except FileNotFoundError:
        return 2**63


def is_carried_beyond(folder: Path, position: int) -> bool:
    """Whether a journal was carried some way, or is gone."""
    return not folder.exists() or committed_in(folder) > position


def test_what_can_not_be_read_is_named_and_the_rest_is_shipped(host: Host) -> None:
    """Rule J3 from afar: a damaged record costs itself, the books say so, and the segment is kept there."""
    with remote(host) as elsewhere:
        host.collector(**elsewhere.collectors)
        with worker(host, "--silent", **elsewhere.workers) as ada:
            ada.spread(100, "a")
            ada.kill()
        (folder,) = elsewhere.journals()
        segment = min((elsewhere.state_dir / "journals" / folder).glob("*.seg"))
        data = bytearray(segment.read_bytes())
        data[1_000] ^= 0xFF
        segment.write_bytes(data)
        with worker(host, **elsewhere.workers) as bob:
            bob.track(1)
            wait_until(lambda: folder not in elsewhere.journals(), "the dead one's folder is gone", 60)
            assert bob.flush().is_ok
        host.upstream.wait_quantity(100)  # what was the dead one's may go in another batch than bob's own
        books = host.status()
        assert not books["balanced"]
        (fault,) = books["faults"]
        assert folder in fault
        assert "can't be read" in fault
        assert len(list((elsewhere.state_dir / "quarantine").iterdir())) == 1
        assert host.upstream.quantity() == 100


def test_drops_are_known_from_afar(host: Host) -> None:
    """Promise 3: what a journal's bound refused is in the books, though its header is on another host."""
    with remote(host) as elsewhere:
        host.collector(**elsewhere.collectors)
        small = {**elsewhere.workers, "SETTLE_MP_JOURNAL_BYTES_MAX": "65536"}
        with worker(host, "--silent", **small) as ada:
            ada.track(10_000)
            ada.kill()
        heir_of_heirs(host, elsewhere)
        books = host.status()
        assert books["balanced"], books
        assert books["events"]["dropped"] > 0
        assert books["events"]["dropped"] + books["events"]["confirmed"] == 10_001


def test_commands_work_on_the_workers_host(host: Host) -> None:
    """They ask the collector over tcp; status shows what lies in this host's journals, and no false alarm."""
    with remote(host) as elsewhere:
        there = elsewhere.workers
        collector = host.collector(**elsewhere.collectors)
        with worker(host, **there) as ada:
            ada.track(3)
            assert command(host, "flush", **there).code == 0
            collector.end()
            ada.track(2)
            down = command(host, "status", "--json", **there)
            books = json.loads(down.said)
            assert down.code == 0
            assert (books["collector"]["state"], books["events"]["pending"]) == ("down", 2)
            assert books["waiting"] == []
            host.collector(**elsewhere.collectors)
            assert ada.flush().is_ok
            up = json.loads(command(host, "status", "--json", **there).said)
            assert (up["collector"]["state"], up["upstream"]["state"]) == ("up", "ok")
