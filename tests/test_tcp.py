"""Over tcp with CURVE: real collectors, and workers whose state folder is another one."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from settle_mp import SettingsError, Settle, keys
from tests.collectors import command, worker
from tests.hosts import host
from tests.remotes import remote
from tests.upstreams import upstream, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hosts import Host

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
