"""One client for a Django project, set up by the project's own settings.

    # settings.py
    INSTALLED_APPS = [..., "settle_mp.integrations.django"]
    SETTLE_MP = {"state_dir": BASE_DIR / "state", "on_invalid": "count"}

    # anywhere in the project
    from settle_mp.integrations.django import settle

    settle.events.track(str(request.user.pk), "AI_QUERY")

`async_settle` is the same for async views. `manage.py settle_mp collector` runs the collector, and so on for
every other command, with these settings. What SETTLE_MP does not name comes from the environment, from
`settle-mp.toml`, or is a default, as everywhere.

Nothing here is needed for events to be counted: `Settle()` is right in Django as it is anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from settle_mp.errors import SettingsError
from settle_mp.worker.aio import AsyncSettle
from settle_mp.worker.client import Settle

if TYPE_CHECKING:
    #: The client for views, tasks and commands.
    settle: Settle[str]
    #: The client for async views.
    async_settle: AsyncSettle[str]

__all__ = ["async_settle", "settle"]

_KINDS: Final = {"settle": Settle, "async_settle": AsyncSettle}
_clients: Final[dict[str, Any]] = {}


def __getattr__(name: str) -> Any:
    """Make a client when it is first asked for: by then Django's settings can be read."""
    if name not in _KINDS:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name not in _clients:
        _clients.setdefault(name, _make(_KINDS[name]))
    return _clients[name]


def read_settings() -> dict[str, Any]:
    """Return the dict SETTLE_MP of Django's settings.

    Raises:
        ImproperlyConfigured: If it is no dict of settings by name.
    """
    from django.conf import settings
    from django.core.exceptions import ImproperlyConfigured

    given = getattr(settings, "SETTLE_MP", {})
    if isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
        return dict(given)
    msg = f"SETTLE_MP must be a dict of settings by name, not {type(given).__name__}"
    raise ImproperlyConfigured(msg)


def _make(kind: Any) -> Any:
    from django.core.exceptions import ImproperlyConfigured

    try:
        return kind(**read_settings())
    except SettingsError as error:
        source = "SETTLE_MP in Django's settings" if error.source == "argument" else error.source
        said = SettingsError(error.key, source, error.problem, error.allowed)
        raise ImproperlyConfigured(str(said)) from None
