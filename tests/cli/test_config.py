"""`settle-mp config` shows what holds and why, and no secret."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from settle_mp.cli.config import config
from settle_mp.config import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Make a settings file with a key and a rule."""
    path = tmp_path / "x.toml"
    path.write_text(
        'api_key = "ss_live_4f9a"\nannotate = false\nbatch_rows_max = 7\n'
        'event_types = ["PDF_EXPORT", "AI_QUERY"]\n'
        '[events.AI_QUERY]\nsum = ["tokens"]\n',
        encoding="utf-8",
    )
    return path


def show(*arguments: str, **environ: str) -> str:
    """Run the command and return what it prints."""
    result = CliRunner(env=environ).invoke(config, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_json_has_every_setting_with_value_and_source(file: Path, state_dir: Path) -> None:
    """Numbers stay numbers, nothing is null, rules appear under their names in the file."""
    text = show("--json", "--config", str(file), "--state-dir", str(state_dir), SETTLE_MP_GROUP="www")
    shown: dict[str, Any] = json.loads(text)
    names = {field.name for field in dataclasses.fields(Settings)} - {"rules", "sources"}
    assert shown.keys() == names | {"events.AI_QUERY"}
    source = f"file {file}"
    assert shown["state_dir"] == {"value": str(state_dir), "source": "argument"}
    assert shown["group"] == {"value": "www", "source": "environment SETTLE_MP_GROUP"}
    assert shown["batch_rows_max"] == {"value": 7, "source": source}
    assert shown["annotate"] == {"value": False, "source": source}
    assert shown["event_types"] == {"value": ["AI_QUERY", "PDF_EXPORT"], "source": source}
    assert shown["endpoint"] == {"value": None, "source": "default"}
    assert shown["api_key"] == {"value": "ss_live_***", "source": source}
    rule = {"keep": [], "sum": ["tokens"], "drop": []}
    assert shown["events.AI_QUERY"] == {"value": rule, "source": source}


def test_the_table_has_a_line_for_each_setting(file: Path) -> None:
    """For people: name, value, source."""
    lines = {line.split()[0]: line.split() for line in show("--config", str(file)).splitlines()}
    assert lines["batch_rows_max"] == ["batch_rows_max", "7", "file", str(file)]
    assert lines["annotate"][1] == "false"
    assert lines["group"][1:] == ["-", "default"]
    assert '"tokens"' in " ".join(lines["events.AI_QUERY"])


def test_secrets_stay_hidden(file: Path) -> None:
    """Both forms show the key's mode only."""
    for text in (show("--config", str(file)), show("--json", "--config", str(file))):
        assert "4f9a" not in text
        assert "ss_live_***" in text


def test_help_has_examples_and_the_common_options() -> None:
    """Each command's help can be copied from."""
    text = show("--help")
    for part in ("Examples:", "settle-mp config --json", "--state-dir", "--config"):
        assert part in text
