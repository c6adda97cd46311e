"""The settings as a client's arguments, for type checkers and editors; `config` has what each means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from os import PathLike
    from typing import TypeAlias

    from settle_mp.core.secret import Secret

_Path: TypeAlias = "str | PathLike[str] | None"


class NamedArguments(TypedDict, total=False):
    """Settings that clients take by name alone; None counts as not given."""

    config_path: _Path
    state_dir: _Path
    api_key_file: _Path
    endpoint: str | None
    keys_dir: _Path
    flush_interval_s: float | None
    batch_rows_max: int | None
    journal_bytes_max: int | str | None
    journals_bytes_max: int | str | None
    ledger_bytes_max: int | str | None
    on_in_doubt: Literal["retry", "hold"] | None
    idempotency_ttl_s: float | None
    annotate: bool | None
    group: str | None
    on_invalid: Literal["raise", "count"] | None
    disabled: bool | None
    strict_names: bool | None


class SettingsArguments(NamedArguments, total=False):
    """Every setting by name; None counts as not given. `event_types` is an argument of the clients."""

    api_key: str | Secret | None
    base_url: str | None
