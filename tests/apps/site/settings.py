"""The project's settings."""

from __future__ import annotations

from typing import Any

from tests.apps.tracking import has_hooks

SECRET_KEY = "none"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.apps.site.urls"
USE_TZ = True
INSTALLED_APPS = ["tests.apps.site"]
SETTLE_MP: dict[str, Any] = {}

if has_hooks():
    INSTALLED_APPS += ["settle_mp.integrations.django"]
    SETTLE_MP["journal_bytes_max"] = "8 MiB"
