"""`manage.py bill_storage`: what a nightly run does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand

from settle_mp.integrations.django import settle

#: What each user keeps, in gigabytes; yours comes from the database.
KEPT_GB = {"ada": Decimal("1.5"), "bob": Decimal("0.25")}


class Command(BaseCommand):
    """Track what each user keeps today."""

    def handle(self, *_: Any, **__: Any) -> None:
        """Track one event for each user. The process may end at once."""
        for user, quantity in KEPT_GB.items():
            settle.events.track(user, "GIGABYTE_DAY", quantity=quantity)
