"""`settle-mp keys`: what it makes, what it says of it, and what it never says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from settle_mp.cli.main import cli

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def run(state_dir: Path, *arguments: str) -> Result:
    """Run the command; its exit code is what it returned."""
    return CliRunner().invoke(cli, ["keys", f"--state-dir={state_dir}", *arguments], standalone_mode=False)


def secrets_in(folder: Path) -> list[str]:
    """Read all secret keys of a folder."""
    return [path.read_text().strip() for path in folder.glob("*.secret")]


def test_it_makes_keys_and_says_where_each_goes(state_dir: Path) -> None:
    """Every file is named with its place; no secret is shown."""
    made = run(state_dir)
    assert made.return_value == 0
    folder = state_dir / "keys"
    assert sorted(path.name for path in folder.iterdir()) == [
        "collector.public", "collector.secret", "worker.secret", "workers",
    ]  # fmt: skip
    for words in ("collector.secret ", "workers/worker.public", f"scp {folder}/worker.secret", "tcp://"):
        assert words in made.output
    assert len(secrets_in(folder)) == 2
    assert not any(secret in made.output for secret in secrets_in(folder))


def test_a_second_time_changes_nothing(state_dir: Path) -> None:
    """It ends with 1, and says what else can be done."""
    run(state_dir)
    before = secrets_in(state_dir / "keys")
    again = run(state_dir)
    assert again.return_value == 1
    assert "nothing was changed" in again.output
    assert "--worker NAME" in again.output
    assert secrets_in(state_dir / "keys") == before


def test_another_worker_gets_keys_of_its_own(state_dir: Path) -> None:
    """Its secret is a file of its own, and the collector's stays what it was."""
    run(state_dir)
    collectors = (state_dir / "keys" / "collector.secret").read_text()
    added = run(state_dir, "--worker", "web-2")
    assert added.return_value == 0
    assert "web-2.secret" in added.output
    assert "SIGHUP" in added.output
    assert (state_dir / "keys" / "workers" / "web-2.public").exists()
    assert (state_dir / "keys" / "collector.secret").read_text() == collectors
    assert run(state_dir, "--worker", "web-2").return_value == 1


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".hidden", "a b"])
def test_a_workers_name_is_a_files_name(state_dir: Path, name: str) -> None:
    """Nothing is written anywhere else."""
    run(state_dir)
    refused = run(state_dir, "--worker", name)
    assert "letters, digits" in str(refused.exception)
    assert len(list((state_dir / "keys" / "workers").iterdir())) == 1


def test_out_is_where_they_go(state_dir: Path, tmp_path: Path) -> None:
    """For a machine that is neither the collector's nor a worker's."""
    assert run(state_dir, f"--out={tmp_path / 'new' / 'keys'}").return_value == 0
    assert (tmp_path / "new" / "keys" / "collector.secret").exists()
    assert not (state_dir / "keys").exists()
