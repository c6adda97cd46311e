"""gunicorn reads this file by itself when it is started in this folder."""

# The hooks: a quicker shutdown and names for operators. Events are counted without them, too.
from settle_mp.integrations.gunicorn import *  # noqa: F403

# The collector as gunicorn's child: started first, started again when it dies, ended last. Leave this out
# where systemd or a container of its own runs `settle-mp collector`.
run_collector()  # noqa: F405

wsgi_app = "app:app"
bind = "127.0.0.1:8000"
workers = 4

# What other clients lose events with, and this one does not:
preload_app = True
max_requests = 1000
max_requests_jitter = 100
