"""Every address is the same view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpResponse
from django.urls import re_path

from tests.apps.site import track
from tests.apps.tracking import start_thread

if TYPE_CHECKING:
    from django.http import HttpRequest


def work(_: HttpRequest) -> HttpResponse:
    """Track one event, and go on doing so in a thread."""
    start_thread(track)
    track("request")
    return HttpResponse(b"")


urlpatterns = [re_path("", work)]
