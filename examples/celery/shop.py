"""A small product on Celery: thumbnails and transcripts, each billed by use."""

from __future__ import annotations

from celery import Celery

from settle_mp import Settle
from settle_mp.integrations import celery as settle_mp_celery

app = Celery("shop")
app.config_from_object("celeryconfig")

# A quicker end of processes, and names for operators. Events are counted without it, too.
settle_mp_celery.connect()
# The collector as the worker's child: started first, started again when it dies, ended last. Leave this out
# where systemd, a container of its own or another worker's host runs `settle-mp collector`.
settle_mp_celery.run_collector()

# Opens nothing and starts nothing: safe here, at import, before the pool forks.
settle = Settle()


@app.task
def thumbnail(user: str, size: str) -> str:
    """Make a thumbnail: one THUMBNAIL, which tells sizes apart."""
    settle.events.track(user, "THUMBNAIL", metadata={"size": size})
    return f"{size}.webp"


@app.task
def transcribe(user: str, minutes: float) -> str:
    """Transcribe a recording: as many AUDIO_MINUTE as it has minutes, fractions too."""
    settle.events.track(user, "AUDIO_MINUTE", quantity=minutes)
    return "Hello, and welcome to the show."
