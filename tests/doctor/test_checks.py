"""What the doctor finds in a folder, in workers' headers and at the upstream, each broken on purpose."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from settle_mp import keys
from settle_mp.config import load
from settle_mp.core.record import Identity, encode_identity
from settle_mp.doctor import collector, filesystem, folder, upstream, workers
from settle_mp.doctor.finding import Finding, error, ok, warning, worst
from settle_mp.sandbox.faults import Fault
from settle_mp.version import __version__
from tests.collectors import folder_of, make_journal
from tests.upstreams import upstream as sandbox

if TYPE_CHECKING:
    from settle_mp.config import Settings
    from tests.upstreams import Upstream

__all__ = ["sandbox"]

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:24 / /run rw,nosuid - tmpfs tmpfs rw,size=1g
31 22 0:40 / /srv/nfs\\040share rw - nfs4 server:/x rw
32 22 0:41 / /var/lib rw - btrfs /dev/sdb rw
33 32 0:42 / /var/lib/settle-mp rw - xfs /dev/sdc rw
34 22 0:43 / /data rw - ext4 /dev/sdd rw
35 22 0:44 / /data rw - overlay overlay rw
no line of that kind
"""


def settings_of(state_dir: Path, **given: Any) -> Settings:
    """Settings of a test's own."""
    return load(state_dir=state_dir, environ={}, **given)


def wrong(found: Any) -> list[Finding]:
    """What is not all right."""
    return [each for each in found if each.severity != "ok"]


def only(found: Any) -> Finding:
    """The one thing that is wrong; it comes with a mend."""
    (finding,) = wrong(found)
    assert isinstance(finding, Finding)
    assert finding.mend
    return finding


# Findings.


def test_the_worst_decides() -> None:
    """Nothing found is all right."""
    fine, middling, bad = ok("a", ""), warning("b", "", "m"), error("c", "", "m")
    assert worst([]) == worst([fine]) == "ok"
    assert worst([fine, middling]) == worst([middling, fine]) == "warning"
    assert worst([bad, middling, fine]) == "error"


# The file system.


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/x", "ext4"),
        ("/runs/x", "ext4"),
        ("/run/x", "tmpfs"),
        ("/srv/nfs share/x", "nfs4"),
        ("/var/lib/other", "btrfs"),
        ("/var/lib/settle-mp", "xfs"),
        ("/data/x", "overlay"),
    ],
)
def test_the_mount_that_a_folder_is_on_is_found(path: str, kind: str) -> None:
    """The innermost one, and of two at one place the later."""
    assert filesystem.kind_of(path, MOUNTS) == kind


@pytest.mark.parametrize(
    ("kind", "severity", "words"),
    [
        ("ext4", "ok", "local"),
        ("xfs", "ok", "local"),
        ("nfs4", "error", "several hosts"),
        ("nfs", "error", "several hosts"),
        ("cifs", "error", "several hosts"),
        ("fuse.sshfs", "error", "several hosts"),
        ("overlay", "warning", "image layer"),
        ("tmpfs", "warning", "in memory"),
        ("btrfs", "warning", "SIGBUS"),
        ("zfs", "warning", "SIGBUS"),
    ],
)
def test_what_a_file_system_means_is_said(kind: str, severity: str, words: str) -> None:
    """Each that is not right comes with a mend."""
    finding = filesystem.judge(Path("/s"), kind)
    assert finding.severity == severity
    assert words in finding.text
    assert bool(finding.mend) == (severity != "ok")


def test_this_machines_file_system_is_known(state_dir: Path) -> None:
    """The text of the real mount table is understood."""
    if not Path("/proc/self/mountinfo").exists():
        pytest.skip("only Linux says what is mounted")
    assert "unknown" not in filesystem.look(state_dir).text


# The folder.


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """It names the source of the setting."""
    finding = only(folder.look(settings_of(tmp_path / "none")))
    assert (finding.severity, finding.check) == ("error", "state folder")
    assert "argument" in finding.text


def test_a_folder_that_others_reach_is_an_error(state_dir: Path) -> None:
    """The mend is the command."""
    assert wrong(folder.rights(settings_of(state_dir))) == []
    state_dir.chmod(0o755)
    finding = only(folder.rights(settings_of(state_dir)))
    assert finding.severity == "error"
    assert finding.mend == f"chmod o= {state_dir}"


@pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user takes root")
def test_another_users_journal_is_a_warning(state_dir: Path) -> None:
    """Unless the folder is a group's."""
    journal = make_journal(state_dir, "ada")
    os.chown(folder_of(state_dir, journal), 65534, -1)
    os.chown(state_dir, 65533, -1)
    finding = only(folder.rights(settings_of(state_dir)))
    assert "tracks into a folder of" in finding.text
    assert wrong(folder.rights(settings_of(state_dir, group="users"))) == []
    journal.close()


def test_a_path_that_is_too_long_is_an_error(state_dir: Path) -> None:
    """The system's bound, as the collector would say it."""
    finding = folder.address(settings_of(state_dir / ("x" * 100)))
    assert finding.severity == "error"
    assert "the system allows" in finding.text


def test_tcp_without_keys_is_an_error(state_dir: Path) -> None:
    """With the command that makes them; with them, it says that CURVE is spoken."""
    far = settings_of(state_dir, endpoint="tcp://collector:4747")
    assert "settle-mp keys" in folder.address(far).text
    keys.make(state_dir / "keys")
    assert folder.address(far) == ok("address", "tcp://collector:4747 with CURVE")


@pytest.mark.parametrize(
    ("free_mib", "inodes", "severity"),
    [(10, 5, "error"), (100, 5, "warning"), (9000, 5, "ok"), (9000, 0, "error")],
)
def test_room_is_judged(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, inodes: int, severity: str
) -> None:
    """Before workers drop, and when they do; inodes count, too."""
    real = os.statvfs(state_dir)
    told = list(real)
    told[1], told[4], told[5], told[7] = 1024 * 1024, free_mib, 100, inodes
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([*told, 0]))
    assert folder.room(state_dir).severity == severity


# The collector.


def test_an_absent_collector_is_an_error(state_dir: Path) -> None:
    """Nobody holds the folder; over tcp nobody answers."""
    finding = only(collector.look(settings_of(state_dir), None))
    assert "none runs" in finding.text
    far = only(collector.look(settings_of(state_dir, endpoint="tcp://127.0.0.1:1"), None))
    assert "stranger_turned_away" in far.mend


@pytest.mark.parametrize(
    ("said", "check", "words"),
    [
        ({"version": "0.0.1"}, "version", "0.0.1"),
        ({"trouble": "the disk is full"}, "ledger", "disk is full"),
        ({"state": "no_key"}, "collector's key", "no API key"),
        ({"refusals": ["a journal of another ledger"]}, "refused", "another ledger"),
        ({"descriptors": [900, 1024]}, "descriptors", "900 of 1024"),
        (
            {"unseen": [{"name": "w", "host": socket.gethostname(), "state_dir": "/else"}]},
            "another state folder",
            "/else",
        ),
    ],
)
def test_what_the_collector_says_is_judged(
    state_dir: Path, said: dict[str, Any], check: str, words: str
) -> None:
    """Each trouble of its own is a finding of its own."""
    well = {"version": __version__, "pid": 7, "state": "ok", "descriptors": [30, 1024], "refusals": []}
    settings = settings_of(state_dir)
    assert wrong(collector.look(settings, well)) == []
    finding = only(collector.look(settings, {**well, **said}))
    assert finding.check == check
    assert words in finding.text


def test_workers_of_other_hosts_have_folders_of_their_own(state_dir: Path) -> None:
    """That is no fault."""
    said = {"version": __version__, "unseen": [{"name": "w", "host": "web-9", "state_dir": "/else"}]}
    assert wrong(collector.look(settings_of(state_dir), said)) == []


# The workers.


@pytest.mark.parametrize(
    ("facts", "check", "words"),
    [
        ({"version": "0.0.1"}, "version", "0.0.1"),
        ({"uwsgi": "2.0.31, no threads"}, "uWSGI", "no threads"),
        ({"gevent": "late"}, "gevent", "patched"),
        ({"zmq": "context made before the fork"}, "ZeroMQ", "zmq.Context"),
        ({"descriptors": "64"}, "descriptors", "256"),
    ],
)
def test_what_a_live_worker_reported_is_judged(
    state_dir: Path, facts: dict[str, str], check: str, words: str
) -> None:
    """It is named, and the mend is the exact line."""
    journal = make_journal(state_dir, "ada")
    settings = settings_of(state_dir)
    well = {
        "version": __version__,
        "gevent": "",
        "uwsgi": "2.0.31, threads",
        "zmq": "",
        "descriptors": "1024",
    }
    write_facts(state_dir, journal.producer, well)
    assert wrong(workers.look(settings)) == []
    write_facts(state_dir, journal.producer, {**well, **facts})
    finding = only(workers.look(settings))
    assert (finding.check, finding.severity) == (check, "warning")
    assert words in finding.text
    if check != "version":
        assert "worker 3 on web-1" in finding.text
    journal.close()
    assert wrong(workers.look(settings)) == []


def test_another_key_mode_is_an_error(state_dir: Path) -> None:
    """The collector would refuse all of it (rule C2)."""
    journal = make_journal(state_dir, "ada")
    write_facts(state_dir, journal.producer, {"version": __version__}, key_mode="live")
    finding = only(workers.look(settings_of(state_dir, api_key="ss_test_x")))
    assert (finding.check, finding.severity) == ("key mode", "error")
    assert wrong(workers.look(settings_of(state_dir, api_key="ss_live_x"))) == []
    journal.close()


def write_facts(state_dir: Path, producer: bytes, facts: dict[str, str], key_mode: str = "") -> None:
    """Have a worker report something else."""
    identity = Identity(
        producer=producer, key_mode=key_mode, name="worker 3", host="web-1", born_s=1.0, facts=facts
    )
    with (state_dir / "journals" / producer.hex() / "header").open("r+b") as file:
        file.write(encode_identity(identity))


# Key and upstream.


def test_a_key_that_is_taken_is_all_right(sandbox: Upstream, state_dir: Path) -> None:
    """It asks for nobody's usage, and shows nothing of the key."""
    settings = settings_of(state_dir, api_key=sandbox.api_key, base_url=sandbox.base_url)
    found = list(upstream.look(settings))
    assert wrong(found) == []
    assert not any(sandbox.api_key in f"{each}" for each in found)


@pytest.mark.parametrize(
    ("status", "severity", "words"),
    [(401, "error", "key"), (403, "error", "key"), (404, "error", "base_url"), (503, "warning", "by itself")],
)
def test_what_the_upstream_answers_is_judged(
    sandbox: Upstream, state_dir: Path, status: int, severity: str, words: str
) -> None:
    """The mend depends on the answer."""
    sandbox.fault(Fault.answering(status, when="before", times=None))
    settings = settings_of(state_dir, api_key=sandbox.api_key, base_url=sandbox.base_url)
    finding = only(upstream.look(settings))
    assert finding.severity == severity
    assert str(status) in finding.text
    assert words in finding.mend


@pytest.mark.parametrize("key", ["ss_test_x", None])
def test_an_upstream_that_is_not_reached_is_an_error(
    sandbox: Upstream, state_dir: Path, key: str | None
) -> None:
    """With and without a key."""
    settings = settings_of(state_dir, api_key=key, base_url=sandbox.base_url)
    sandbox.stop()
    finding = only(upstream.look(settings))
    assert (finding.check, finding.severity) == ("upstream", "error")
    assert "is not reached" in finding.text


def test_a_key_file_that_can_not_be_read_is_an_error(state_dir: Path) -> None:
    """It names the setting."""
    finding = only(upstream.look(settings_of(state_dir, api_key_file=state_dir / "none")))
    assert "api_key_file" in finding.text


def test_a_key_of_another_form_is_a_warning(sandbox: Upstream, state_dir: Path) -> None:
    """It may be a typing error."""
    settings = settings_of(state_dir, api_key=sandbox.api_key, base_url=sandbox.base_url)
    odd = replace(settings, api_key=settings_of(state_dir, api_key="other").api_key)
    assert "ss_live_" in wrong(upstream.look(odd))[0].text
