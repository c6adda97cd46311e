"""A Django project of one app that tracks in every phase: a view and a command."""

from __future__ import annotations

import atexit

from tests.apps.tracking import connect, has_hooks

if has_hooks():
    from settle_mp.integrations.django import settle

    track = connect(settle)
else:
    track = connect()

track("import")
atexit.register(track, "shutdown")
