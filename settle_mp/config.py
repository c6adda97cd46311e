"""Settings: the only place that reads the environment or a settings file.

A value comes from the first of these that gives it: argument, environment, `settle-mp.toml`, default. One
file is read: the one named (`config_path=`, `--config`, `SETTLE_MP_CONFIG`), else `settle-mp.toml` in the
working directory, else `settle-mp.toml` in the state folder, where workers and collector find the same one.
An empty environment variable counts as not set, and so does an argument of None.

Imported by every worker, so it imports nothing slow and no third-party package.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from settle_mp.core import kinds
from settle_mp.core.naming import is_well_named
from settle_mp.core.rules import MetadataRule, RuleError, read_rules
from settle_mp.errors import SettingsError
from settle_mp.places import absolute, default_state_dir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from settle_mp.core.secret import KeyMode, Secret

#: Where the vendor's documentation says that the API is. Its SDK has another address for the same API.
DEFAULT_BASE_URL: Final = "https://api.settlesettle.uno"

#: The name of a settings file where none was named.
FILE_NAME: Final = "settle-mp.toml"

#: Names the settings file; not a setting itself.
CONFIG_VARIABLE: Final = "SETTLE_MP_CONFIG"

#: Bytes read from a key file: far above any key, so that a wrong path (a disk, a log) cannot fill the memory.
_KEY_FILE_BYTES_MAX: Final = 4096

_MIB: Final = 1024 * 1024
_GIB: Final = 1024 * _MIB
_PREFIX: Final = "SETTLE_MP_"

OnInDoubt = Literal["retry", "hold"]
OnInvalid = Literal["raise", "count"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, checked. Made by `load`; nothing is opened or created by it.

    Attributes:
        state_dir: The state folder, absolute. Default: `/var/lib/settle-mp` for root; else `settle-mp` in
            `~/Library/Application Support` (macOS), in `$XDG_STATE_HOME`, or in `~/.local/state`.
        api_key: The upstream's key, or None. Only the collector and the wallet need one; see `read_api_key`.
        api_key_file: A file that holds the key, or None; never set together with `api_key`.
        base_url: The upstream's address without `/v1`.
        endpoint: Where the collector listens (`ipc://` or `tcp://`); None is a socket in the state folder.
        keys_dir: The folder of the CURVE keys for tcp; None is `keys` in the state folder.
        flush_interval_s: Age at which the open window is shipped, in seconds. Default 2.
        batch_rows_max: Rows in one request upstream. Default 50, as the vendor's SDKs send.
        journal_bytes_max: Unshipped events of one process, in bytes. Default 64 MiB.
        journals_bytes_max: The same of all processes of a state folder, in bytes. Default 4 GiB.
        ledger_bytes_max: The collector's ledger, in bytes. Default 1 GiB.
        on_in_doubt: What to do with a batch that may have been applied: "retry" (the same key and bytes, the
            default) or "hold" (until a person decides).
        idempotency_ttl_s: How long the upstream remembers an idempotency key, in seconds. Default 86,400.
        annotate: Whether rows carry `metadata.settle_mp`. Default true.
        group: The group whose members may share the state folder, or None.
        on_invalid: What `track()` does with bad arguments: "raise" (the default) or "count".
        disabled: Whether events are no-ops. Default false.
        event_types: The only event types that `track()` takes, or None for any.
        strict_names: Whether `track()` refuses an event type that is not SCREAMING_SNAKE_CASE, of which it
            otherwise warns once. Default false.
        rules: Metadata rules by event type, from the file's `[events.NAME]` tables. Default none.
        sources: Where each value came from; see `source`.
    """

    state_dir: Path
    api_key: Secret | None = None
    api_key_file: Path | None = None
    base_url: str = DEFAULT_BASE_URL
    endpoint: str | None = None
    keys_dir: Path | None = None
    flush_interval_s: float = 2.0
    batch_rows_max: int = 50
    journal_bytes_max: int = 64 * _MIB
    journals_bytes_max: int = 4 * _GIB
    ledger_bytes_max: int = _GIB
    on_in_doubt: OnInDoubt = "retry"
    idempotency_ttl_s: float = 86_400.0
    annotate: bool = True
    group: str | None = None
    on_invalid: OnInvalid = "raise"
    disabled: bool = False
    event_types: frozenset[str] | None = None
    strict_names: bool = False
    rules: Mapping[str, MetadataRule] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def source(self, name: str) -> str:
        """Return where a setting came from, such as "environment SETTLE_MP_FLUSH_INTERVAL_S" or "default"."""
        return self.sources.get(name, "default")

    def read_api_key(self) -> Secret | None:
        """Return the API key, reading the key file anew where there is one; None when no key was set.

        Raises:
            SettingsError: If the key file cannot be read or holds no key.
        """
        if self.api_key_file is None:
            return self.api_key
        kind, source = kinds.key(), self.source("api_key_file")
        try:
            with self.api_key_file.open(encoding="utf-8") as file:
                key: Secret = kind.check(file.read(_KEY_FILE_BYTES_MAX))
        except OSError as error:
            problem = f"{self.api_key_file} cannot be read ({error.strerror})"
            raise SettingsError("api_key_file", source, problem, "a file that this user can read") from None
        except ValueError:
            problem = f"{self.api_key_file} does not hold an API key"
            raise SettingsError("api_key_file", source, problem, f"a file with {kind.allowed}") from None
        return key

    @property
    def key_mode(self) -> KeyMode:
        """The key's mode: "test", "live", or "" where there is no key, or a worker may not read its file."""
        try:
            key = self.read_api_key()
        except SettingsError:
            return ""
        return "" if key is None else key.mode


#: What each setting may be. Names are those of Settings.
_KINDS: Final[Mapping[str, kinds.Kind]] = {
    "state_dir": kinds.path(),
    "api_key": kinds.key(),
    "api_key_file": kinds.path(),
    "base_url": kinds.base_url(),
    "endpoint": kinds.endpoint(),
    "keys_dir": kinds.path(),
    "flush_interval_s": kinds.number(0.01, 3600, "seconds"),
    "batch_rows_max": kinds.whole(1, 10_000, "rows"),
    "journal_bytes_max": kinds.size(64 * 1024, 1024 * _GIB),
    "journals_bytes_max": kinds.size(64 * 1024, 1024 * _GIB),
    "ledger_bytes_max": kinds.size(_MIB, 1024 * _GIB),
    "on_in_doubt": kinds.choice("retry", "hold"),
    "idempotency_ttl_s": kinds.number(0.1, 30 * 86_400, "seconds"),
    "annotate": kinds.flag(),
    "group": kinds.name_of_group(),
    "on_invalid": kinds.choice("raise", "count"),
    "disabled": kinds.flag(),
    "event_types": kinds.names(),
    "strict_names": kinds.flag(),
}

#: Settings that the vendor's users have in their environment already keep the vendor's names.
_VARIABLES: Final[Mapping[str, str]] = {
    name: f"SETTLESETTLE_{name.upper()}"
    if name in {"api_key", "api_key_file", "base_url"}
    else f"{_PREFIX}{name.upper()}"
    for name in _KINDS
}

_PATHS: Final = ("state_dir", "api_key_file", "keys_dir")

#: Arguments of the vendor's clients that are no settings here, and what there is instead.
_VENDORS: Final[Mapping[str, str]] = {
    "timeout": "timeout= of each call",
    "max_batch_size": "batch_rows_max, a setting of the collector",
    "flush_interval_ms": "flush_interval_s, a setting of the collector",
    "event_buffering": "nothing to set: every event is journaled",
    "max_retries": "timeout= of each call, within which it is tried again",
    "backoff_factor": "timeout= of each call, within which it is tried again",
}

#: Checked values of one layer by name, each with its source.
_Layer = dict[str, tuple[Any, str]]


def load(
    *,
    config_path: str | os.PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    **arguments: object,
) -> Settings:
    """Merge and check all settings.

    Args:
        config_path: A settings file that must exist; None looks for one (see the module).
        environ: The environment; None is `os.environ` as it is now.
        arguments: Settings by name; None counts as not given.

    Raises:
        SettingsError: For an unknown key, a wrong type or an impossible value, naming the key, its source and
            what is allowed.
    """
    environ = os.environ if environ is None else environ
    given = _merge(_from_environment(environ), _from_arguments(arguments, environ))
    file_path = _find_file(config_path, given, environ)
    file, rules = _from_file(file_path, environ) if file_path else ({}, {})
    merged = _merge(file, given)
    values: dict[str, Any] = {name: value for name, (value, _) in merged.items()}
    sources = {name: source for name, (_, source) in merged.items()}
    if "state_dir" not in values:
        values["state_dir"] = default_state_dir(environ)
    if rules:
        sources["rules"] = f"file {file_path}"
    settings = Settings(**values, rules=rules, sources=sources)
    _refuse_contradictions(settings)
    return settings


def as_variables(settings: Settings) -> dict[str, str]:
    """Say in variables what was said in arguments: for a program that is started with the same settings."""
    given = [name for name, source in settings.sources.items() if source == "argument"]
    return {_VARIABLES[name]: _as_text(getattr(settings, name)) for name in given}


def _as_text(value: Any) -> str:
    if isinstance(value, frozenset):
        return ",".join(sorted(value))
    return value.reveal() if hasattr(value, "reveal") else str(value)


def _from_arguments(arguments: Mapping[str, object], environ: Mapping[str, str]) -> _Layer:
    given = {name: value for name, value in arguments.items() if value is not None}
    return _layer(given, source=lambda _: "argument", base=".", environ=environ)


def _from_environment(environ: Mapping[str, str]) -> _Layer:
    known = {*_VARIABLES.values(), CONFIG_VARIABLE}
    for variable in environ:
        if variable.startswith(_PREFIX) and variable not in known:
            raise _unknown(variable, "environment", known)
    given = {name: environ[variable] for name, variable in _VARIABLES.items() if environ.get(variable)}
    return _layer(
        given, source=lambda name: f"environment {_VARIABLES[name]}", base=".", environ=environ, is_text=True
    )


def _from_file(path: Path, environ: Mapping[str, str]) -> tuple[_Layer, dict[str, MetadataRule]]:
    source = f"file {path}"
    table = _parse(path)
    try:
        rules = read_rules(table.pop("events", {}))
    except RuleError as error:
        raise SettingsError(error.key, source, error.problem, error.allowed) from None
    layer = _layer(
        table,
        source=lambda _: source,
        base=str(path.parent),
        environ=environ,
        other_names=frozenset({"events"}),
    )
    return layer, rules


def _parse(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        with path.open("rb") as file:
            table: dict[str, Any] = tomllib.load(file)
    except OSError as error:
        problem = f"it cannot be read ({error.strerror})"
        raise SettingsError("the settings file", f"file {path}", problem, "a readable file") from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise SettingsError("the settings file", f"file {path}", str(error), "TOML in UTF-8") from None
    return table


def _find_file(
    named: str | os.PathLike[str] | None, given: _Layer, environ: Mapping[str, str]
) -> Path | None:
    named = named or environ.get(CONFIG_VARIABLE)
    if named:
        return absolute(os.fspath(named), ".", environ)
    # Not Path.is_file(): before Python 3.14 it raises for a folder that this user may not look into.
    if os.path.isfile(FILE_NAME):  # noqa: PTH113
        return Path(FILE_NAME).absolute()
    state_dir: Path = given["state_dir"][0] if "state_dir" in given else default_state_dir(environ)
    path = state_dir / FILE_NAME
    return path if os.path.isfile(path) else None  # noqa: PTH113


def _layer(
    given: Mapping[str, object],
    *,
    source: Callable[[str], str],
    base: str,
    environ: Mapping[str, str],
    is_text: bool = False,
    other_names: frozenset[str] = frozenset(),
) -> _Layer:
    """Check what one source gives; other_names may stand there too and are read elsewhere."""
    layer: _Layer = {}
    for name, value in given.items():
        if name not in _KINDS:
            raise _unknown(name, source(name), _KINDS.keys() | other_names)
        kind = _KINDS[name]
        try:
            checked = kind.check(kind.read(value) if is_text and isinstance(value, str) else value)
        except (TypeError, ValueError) as problem:
            raise SettingsError(name, source(name), str(problem), kind.allowed) from None
        layer[name] = (absolute(checked, base, environ) if name in _PATHS else checked, source(name))
    if {"api_key", "api_key_file"} <= layer.keys():
        raise SettingsError(
            "api_key_file", layer["api_key_file"][1], "api_key is set there too", "one of the two"
        )
    return layer


def _merge(below: _Layer, above: _Layer) -> _Layer:
    """Lay one source over another; a key and a key file are two ways to say one thing."""
    keys = {"api_key", "api_key_file"}
    kept = {name: value for name, value in below.items() if not (name in keys and keys & above.keys())}
    return kept | above


def _refuse_contradictions(settings: Settings) -> None:
    one, all_of_them = settings.journal_bytes_max, settings.journals_bytes_max
    if one > all_of_them:
        source = settings.source("journal_bytes_max")
        raise SettingsError(
            "journals_bytes_max",
            settings.source("journals_bytes_max"),
            f"{all_of_them:,} is less than journal_bytes_max ({one:,}, {source})",
            "at least journal_bytes_max",
        )
    ill_named = [name for name in sorted(settings.event_types or ()) if not is_well_named(name)]
    if settings.strict_names and ill_named:
        source = settings.source("event_types")
        problem = f"strict_names ({settings.source('strict_names')}) refuses {', '.join(ill_named)}"
        raise SettingsError("event_types", source, problem, "names in SCREAMING_SNAKE_CASE")


def _unknown(name: str, source: str, known: Iterable[str]) -> SettingsError:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    hint = f"; the vendor's SDK has it, and here there is {_VENDORS[name]}" if name in _VENDORS else hint
    return SettingsError(name, source, f"there is no such setting{hint}", ", ".join(sorted(known)))
