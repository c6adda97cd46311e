"""What Django is told of this app: check its settings at the start, and name commands for operators."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from settle_mp.worker.producer import label_process

if TYPE_CHECKING:
    AppConfig = object  # Django has no types, and its users' checkers shall not guess
else:
    from django.apps import AppConfig

#: What a command of Django's is started with.
_PROGRAMS: Final = ("manage.py", "django-admin")


class SettleConfig(AppConfig):
    """The app `settle_mp`. It has no models."""

    name = "settle_mp.integrations.django"
    label = "settle_mp"
    verbose_name = "Usage events"

    def ready(self) -> None:
        """Stop the start for a setting that can't be. Nothing is opened here, so servers may fork later.

        Raises:
            ImproperlyConfigured: For a wrong setting, naming it, its source and what is allowed.
        """
        from settle_mp.integrations import django

        _ = django.settle
        program, *arguments = sys.argv or [""]
        if Path(program).name in _PROGRAMS and arguments:
            # Others have better names: servers and their workers are named by their own hooks.
            label_process(f"django:{arguments[0]}")
