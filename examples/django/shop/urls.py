"""The product: `POST /translate` with a user and a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from settle_mp.integrations.django import settle

if TYPE_CHECKING:
    from django.http import HttpRequest


@csrf_exempt  # so that curl can post
@require_POST
def translate(request: HttpRequest) -> JsonResponse:
    """Translate a text: as many CHARACTER as it has."""
    text = request.POST["text"]
    settle.events.track(request.POST["user"], "CHARACTER", quantity=len(text))
    return JsonResponse({"text": text[::-1]})


urlpatterns = [path("translate", translate)]
