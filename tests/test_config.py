"""Settings: which source wins, what is refused, and what is said about it."""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from settle_mp import config
from settle_mp.arguments import SettingsArguments
from settle_mp.config import DEFAULT_BASE_URL, Settings, load
from settle_mp.core.rules import MetadataRule
from settle_mp.core.secret import Secret
from settle_mp.errors import SettingsError


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(path: Path, text: str) -> Path:
    """Write a file and the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(**given: object) -> SettingsError:
    """Load settings that must be refused, and return why."""
    with pytest.raises(SettingsError) as caught:
        load(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


# Which source wins.


def test_argument_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    """Each layer is used where those above it say nothing, and every source is recorded."""
    file = write(
        tmp_path / "settle-mp.toml", "flush_interval_s = 3\nbatch_rows_max = 30\non_in_doubt = 'hold'"
    )
    environ = {"SETTLE_MP_FLUSH_INTERVAL_S": "4", "SETTLE_MP_BATCH_ROWS_MAX": "40"}
    settings = load(environ=environ, flush_interval_s=5.0)
    assert (settings.flush_interval_s, settings.source("flush_interval_s")) == (5.0, "argument")
    assert (settings.batch_rows_max, settings.source("batch_rows_max")) == (
        40,
        "environment SETTLE_MP_BATCH_ROWS_MAX",
    )
    assert (settings.on_in_doubt, settings.source("on_in_doubt")) == ("hold", f"file {file}")
    assert (settings.annotate, settings.source("annotate")) == (True, "default")


def test_the_defaults_are_those_of_the_documentation() -> None:
    """A user who sets nothing gets what the table of settings promises."""
    settings = load(environ={"HOME": "/home/u"})
    expected: dict[str, object] = {
        "api_key": None,
        "base_url": DEFAULT_BASE_URL,
        "endpoint": None,
        "keys_dir": None,
        "flush_interval_s": 2.0,
        "batch_rows_max": 50,
        "journal_bytes_max": 64 * 1024**2,
        "journals_bytes_max": 4 * 1024**3,
        "ledger_bytes_max": 1024**3,
        "on_in_doubt": "retry",
        "idempotency_ttl_s": 86_400.0,
        "annotate": True,
        "group": None,
        "on_invalid": "raise",
        "disabled": False,
        "event_types": None,
        "strict_names": False,
        "rules": {},
    }
    assert {name: getattr(settings, name) for name in expected} == expected


def test_none_and_empty_count_as_not_set() -> None:
    """An option that was not given and an empty variable (as in a compose file) change nothing."""
    settings = load(
        environ={"HOME": "/h", "SETTLE_MP_GROUP": "", "SETTLESETTLE_API_KEY": ""}, flush_interval_s=None
    )
    assert (settings.group, settings.api_key, settings.flush_interval_s) == (None, None, 2.0)


def test_the_environment_is_read_at_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `environ` the process's own is read, as it is then."""
    monkeypatch.setenv("SETTLE_MP_FLUSH_INTERVAL_S", "7")
    assert load().flush_interval_s == 7.0
    monkeypatch.setenv("SETTLE_MP_FLUSH_INTERVAL_S", "8")
    assert load().flush_interval_s == 8.0


def test_every_setting_can_come_from_every_source(tmp_path: Path) -> None:
    """There is a field, a variable and a key in the file for each setting, and nothing else."""
    names = {field.name for field in dataclasses.fields(Settings)} - {"rules", "sources"}
    texts = {
        "state_dir": "/s", "api_key": "ss_test_1", "base_url": "http://u", "endpoint": "tcp://localhost:1",
        "flush_interval_s": "3", "batch_rows_max": "3", "journal_bytes_max": "1MiB",
        "journals_bytes_max": "2MiB", "ledger_bytes_max": "3MiB", "on_in_doubt": "hold",
        "idempotency_ttl_s": "60", "annotate": "false", "group": "g", "on_invalid": "count",
        "disabled": "true", "keys_dir": "/k",
        "event_types": "AI_QUERY, PDF_EXPORT", "strict_names": "true",
    }  # fmt: skip
    assert names == texts.keys() | {"api_key_file"}
    vendors = {"api_key", "base_url"}
    environ = {
        ("SETTLESETTLE_" if name in vendors else "SETTLE_MP_") + name.upper(): text
        for name, text in texts.items()
    }
    plain = re.compile(r"\d+|true|false")
    lines = [
        f"{name} = {text if plain.fullmatch(text) else text.split(', ') if ', ' in text else repr(text)}"
        for name, text in texts.items()
    ]
    file = write(tmp_path / "x.toml", "\n".join(lines))
    from_environment, from_file = load(environ=environ), load(config_path=file, environ={})
    assert from_environment == from_file
    defaults = load(environ={"HOME": "/h"})
    for name in texts:
        assert getattr(from_file, name) != getattr(defaults, name)
        assert from_environment.source(name).startswith("environment SETTLE")
        assert from_file.source(name) == f"file {file}"


# The file.


def test_the_file_in_the_working_directory_beats_the_one_in_the_state_folder(
    tmp_path: Path, state_dir: Path
) -> None:
    """One file is read, the nearer one."""
    write(state_dir / "settle-mp.toml", "batch_rows_max = 10\nflush_interval_s = 9")
    assert load(environ={}, state_dir=state_dir).batch_rows_max == 10
    write(tmp_path / "settle-mp.toml", "batch_rows_max = 20")
    settings = load(environ={}, state_dir=state_dir)
    assert (settings.batch_rows_max, settings.flush_interval_s) == (20, 2.0)


def test_a_named_file_is_the_only_one_read(tmp_path: Path) -> None:
    """`config_path` beats SETTLE_MP_CONFIG, which beats the file that lies around."""
    write(tmp_path / "settle-mp.toml", "batch_rows_max = 10")
    second = write(tmp_path / "b.toml", "batch_rows_max = 20")
    third = write(tmp_path / "c.toml", "batch_rows_max = 30")
    environ = {"HOME": "/h", "SETTLE_MP_CONFIG": str(second)}
    assert load(environ=environ).batch_rows_max == 20
    assert load(environ=environ, config_path=third).batch_rows_max == 30
    assert load(environ={"HOME": "/h"}, config_path="c.toml").source("batch_rows_max") == f"file {third}"


def test_a_state_folder_that_may_not_be_looked_into_is_no_error(state_dir: Path) -> None:
    """A worker without rights still starts (and runs degraded); it only finds no file there."""
    write(state_dir / "settle-mp.toml", "batch_rows_max = 10")
    state_dir.chmod(0)
    code = (
        "import os; from settle_mp.config import load\n"
        "os.geteuid() or os.seteuid(65534)\n"  # for root no folder is closed
        f"print(load(state_dir={str(state_dir)!r}, environ={{}}).source('batch_rows_max'))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd="/")
    assert (run.stdout, run.returncode) == ("default\n", 0), run.stderr


def test_rules_are_read_from_the_file(tmp_path: Path) -> None:
    """Metadata rules come as checked values, and their source is the file."""
    file = write(tmp_path / "settle-mp.toml", '[events.AI_QUERY]\nkeep = ["model"]\nsum = ["tokens"]')
    settings = load(environ={"HOME": "/h"})
    assert settings.rules == {"AI_QUERY": MetadataRule(keep=frozenset({"model"}), sum=frozenset({"tokens"}))}
    assert settings.source("rules") == f"file {file}"


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("flush_intervall_s = 3", "flush_intervall_s", "flush_interval_s"),
        ("[event.A]\nsum = ['x']", "event", "events"),
        ("flush_interval_s = '3'", "flush_interval_s", "a number of seconds from 0.01 to 3,600"),
        ("batch_rows_max = 0", "batch_rows_max", "from 1 to 10,000"),
        ("annotate = 1", "annotate", "true or false"),
        ("on_in_doubt = 'drop'", "on_in_doubt", "retry or hold"),
        ("ledger_bytes_max = '1 giga'", "ledger_bytes_max", "64MiB"),
        ("[events.A]\ndrop = ['skipBilling']", "events.A.drop", "keep"),
        ("events = 3", "events", "[events.NAME]"),
        ("flush_interval_s = ", "the settings file", "TOML"),
        ("api_key = 'a'\napi_key_file = '/b'", "api_key_file", "one of the two"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, key: str, allowed: str) -> None:
    """The error has the key, the file as its source, and what is allowed."""
    file = write(tmp_path / "settle-mp.toml", text)
    error = refused(environ={"HOME": "/h"})
    assert (error.key, error.source) == (key, f"file {file}")
    assert allowed in error.allowed


def test_a_named_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Who names a file wants it read."""
    error = refused(environ={}, config_path=tmp_path / "missing.toml")
    assert error.source == f"file {tmp_path / 'missing.toml'}"
    assert "No such file" in error.problem


# What is refused from elsewhere.


@pytest.mark.parametrize(
    ("variable", "text", "key", "problem"),
    [
        ("SETTLE_MP_FLUSH_INTERVAL_S", "soon", "flush_interval_s", "'soon' is not a number"),
        ("SETTLE_MP_BATCH_ROWS_MAX", "2.5", "batch_rows_max", "float"),
        ("SETTLE_MP_ANNOTATE", "maybe", "annotate", "'maybe'"),
        ("SETTLE_MP_ON_INVALID", "ignore", "on_invalid", "'ignore'"),
        ("SETTLE_MP_ENDPOINT", "tcp://10.0.0.1:port", "endpoint", "'port'"),
        ("SETTLESETTLE_BASE_URL", "api.example.com", "base_url", "'api.example.com'"),
    ],
)
def test_what_is_wrong_in_the_environment_is_named(variable: str, text: str, key: str, problem: str) -> None:
    """The error has the key, the variable, what is wrong with it and what is allowed."""
    error = refused(environ={variable: text})
    assert (error.key, error.source) == (key, f"environment {variable}")
    assert problem in error.problem
    assert error.allowed in str(error)


def test_an_unknown_variable_is_an_error_with_the_name_that_was_meant() -> None:
    """A typing error must not silently leave the default; other programs' variables are theirs."""
    error = refused(environ={"SETTLE_MP_FLUSH_INTERVALL": "3"})
    assert (error.key, error.source) == ("SETTLE_MP_FLUSH_INTERVALL", "environment")
    assert "did you mean SETTLE_MP_FLUSH_INTERVAL_S?" in error.problem
    load(environ={"HOME": "/h", "SETTLE_OTHER": "1", "SETTLESETTLE_WEBHOOK": "x"})


def test_an_unknown_argument_is_an_error() -> None:
    """The error has the name that was meant and all that there are, but not what only a file may hold."""
    error = refused(environ={}, batch_row_max=3)
    assert (error.key, error.source) == ("batch_row_max", "argument")
    assert "did you mean batch_rows_max?" in error.problem
    assert "disabled" in error.allowed
    assert "events" not in error.allowed


def test_bounds_that_contradict_each_other_are_refused() -> None:
    """One process's journal cannot be allowed more than all together, whichever of the two was set."""
    error = refused(environ={"HOME": "/h"}, journal_bytes_max="8GiB")
    assert error.key == "journals_bytes_max"
    assert "journal_bytes_max" in error.problem
    assert refused(environ={"HOME": "/h"}, journals_bytes_max="1MiB").source == "argument"


# Paths.


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has its own place")
def test_declared_names_and_strict_names_must_agree() -> None:
    """A name that no event could have is found at start, whoever declared it."""
    error = refused(environ={"HOME": "/h", "SETTLE_MP_EVENT_TYPES": "AI_QUERY,aiQuery"}, strict_names=True)
    assert (error.key, error.source) == ("event_types", "environment SETTLE_MP_EVENT_TYPES")
    assert error.problem == "strict_names (argument) refuses aiQuery"
    settings = load(environ={"HOME": "/h"}, event_types=["aiQuery"])
    assert settings.event_types == frozenset({"aiQuery"})


def test_the_arguments_of_a_client_are_the_settings() -> None:
    """What editors complete is all there is."""
    settings = {field.name for field in dataclasses.fields(Settings)} - {"rules", "sources"}
    own = {"event_types", "config_path"}
    assert SettingsArguments.__annotations__.keys() | own == settings | own


def test_the_state_folder_follows_the_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root has one place; others have theirs by the XDG specification, which ignores relative paths."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert load(environ={}).state_dir == Path("/var/lib/settle-mp")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert load(environ={"HOME": "/home/u"}).state_dir == Path("/home/u/.local/state/settle-mp")
    environ = {"HOME": "/home/u", "XDG_STATE_HOME": "/x/state"}
    assert load(environ=environ).state_dir == Path("/x/state/settle-mp")
    environ = {"HOME": "/home/u", "XDG_STATE_HOME": "state"}
    assert load(environ=environ).state_dir == Path("/home/u/.local/state/settle-mp")


def test_on_macos_the_state_folder_is_in_application_support(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG is nobody's habit there."""
    monkeypatch.setattr(os, "geteuid", lambda: 501)
    monkeypatch.setattr(sys, "platform", "darwin")
    settings = load(environ={"HOME": "/Users/u", "XDG_STATE_HOME": "/x"})
    assert settings.state_dir == Path("/Users/u/Library/Application Support/settle-mp")


def test_paths_are_absolute_and_nothing_is_created(tmp_path: Path) -> None:
    """A relative path starts at the working directory, in a file at the file's folder; ~ is home."""
    assert load(environ={}, state_dir="state").state_dir == tmp_path / "state"
    assert load(environ={"SETTLE_MP_STATE_DIR": "../s"}).state_dir == tmp_path.parent / "s"
    assert load(environ={"HOME": "/home/u"}, state_dir="~/s").state_dir == Path("/home/u/s")
    file = write(tmp_path / "etc" / "x.toml", "state_dir = 'state'\napi_key_file = 'key'")
    settings = load(environ={}, config_path=file)
    assert settings.state_dir == tmp_path / "etc" / "state"
    assert settings.api_key_file == tmp_path / "etc" / "key"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["etc"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A link that is turned to another folder later is the user's way of moving it."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert load(environ={}, state_dir="link").state_dir == tmp_path / "link"


# The key.


def test_the_key_comes_from_argument_variable_or_file(tmp_path: Path) -> None:
    """Each of the three gives the same key; nothing given gives none."""
    file = write(tmp_path / "key", "ss_live_1\n")
    assert load(environ={"HOME": "/h"}, api_key="ss_live_1").read_api_key() == Secret("ss_live_1")
    assert load(environ={"HOME": "/h", "SETTLESETTLE_API_KEY": "ss_live_1"}).read_api_key() == Secret(
        "ss_live_1"
    )
    by_file = load(environ={"HOME": "/h", "SETTLESETTLE_API_KEY_FILE": str(file)})
    assert by_file.read_api_key() == Secret("ss_live_1")
    assert by_file.key_mode == "live"
    assert load(environ={"HOME": "/h"}).read_api_key() is None
    assert load(environ={"HOME": "/h"}).key_mode == ""


def test_a_key_file_is_read_each_time(tmp_path: Path) -> None:
    """A key that was changed in its file is the new one, without new settings."""
    file = write(tmp_path / "key", "ss_test_1")
    settings = load(environ={"HOME": "/h"}, api_key_file=file)
    assert settings.key_mode == "test"
    write(file, "ss_live_2")
    assert settings.read_api_key() == Secret("ss_live_2")


def test_the_upper_source_wins_between_key_and_key_file(tmp_path: Path) -> None:
    """An argument is not contradicted by what lies below it, and two ways in one source are an error."""
    environ = {"HOME": "/h", "SETTLESETTLE_API_KEY_FILE": "/nowhere"}
    settings = load(environ=environ, api_key="ss_test_1")
    assert (settings.api_key, settings.api_key_file) == (Secret("ss_test_1"), None)
    write(tmp_path / "settle-mp.toml", "api_key = 'ss_test_2'")
    assert load(environ=environ).api_key is None
    error = refused(environ=environ | {"SETTLESETTLE_API_KEY": "ss_test_3"})
    assert error.source == "environment SETTLESETTLE_API_KEY_FILE"


@pytest.mark.parametrize("content", [None, "", "two words", b"\xff\xfe"])
def test_a_key_file_without_a_key_is_an_error_that_shows_nothing_of_it(
    tmp_path: Path, content: str | bytes | None
) -> None:
    """A missing, empty or wrong file is named; its content is not; a worker goes on without a mode."""
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    settings = load(environ={"HOME": "/h"}, api_key_file=file)
    with pytest.raises(SettingsError) as caught:
        settings.read_api_key()
    assert (caught.value.key, caught.value.source) == ("api_key_file", "argument")
    assert str(file) in caught.value.problem
    assert "words" not in str(caught.value)
    assert settings.key_mode == ""


def test_settings_never_show_the_key() -> None:
    """Neither the repr, an unfolded copy nor an error about the key holds it."""
    settings = load(environ={"HOME": "/h"}, api_key="ss_live_4f9a")
    assert "4f9a" not in f"{settings} {settings!r} {dataclasses.asdict(settings)}"
    assert "4f9a" not in str(refused(environ={"SETTLESETTLE_API_KEY": "ss_live_4f9a two"}))


# What settings are.


def test_settings_are_frozen_and_can_be_pickled() -> None:
    """They go to forkserver children as they are, and nobody changes them on the way."""
    settings = load(environ={"HOME": "/h"}, flush_interval_s=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.disabled = True  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(settings))  # noqa: S301
    assert again == settings
    assert again.source("flush_interval_s") == "argument"


def test_loading_imports_nothing_slow() -> None:
    """Loading settings imports no third-party package, and the parser of files only for a file."""
    # The package's own __init__ imports the worker, so an empty package stands in for it.
    code = f"""
import sys, types
sys.modules["settle_mp"] = package = types.ModuleType("settle_mp")
package.__path__ = [{str(Path(config.__file__).parent)!r}]
from settle_mp import config
config.load(environ={{"HOME": "/nowhere"}})
slow = {{"msgpack", "zmq", "httpx", "click", "sqlite3", "tomllib", "tomli", "difflib", "email"}}
print(config.Settings.__module__, sorted(slow & set(sys.modules)))
"""
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, cwd="/"
    )
    assert run.stdout == "settle_mp.config []\n", run.stderr
