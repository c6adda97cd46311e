"""The project's settings; SETTLE_MP has settle-mp's."""

from __future__ import annotations

import os
from pathlib import Path

BASE_DIR = Path(__file__).parent.parent

SECRET_KEY = os.environ.get("SECRET_KEY", "for this example only")
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "shop.urls"
USE_TZ = True
INSTALLED_APPS = ["shop", "settle_mp.integrations.django"]

SETTLE_MP = {
    "state_dir": BASE_DIR / "state",  # in production leave it out, or name a folder on a local disk
    "base_url": "http://127.0.0.1:8790",  # the sandbox; leave it out for the real API
}
