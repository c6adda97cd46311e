"""How gunicorn is set up for the demo: with what loses other clients' events, and with none of our hooks."""

from __future__ import annotations

workers = 4
worker_class = "gthread"
threads = 4
# Loaded once in the arbiter and forked: threads that a client started there do not come along.
preload_app = True
# max_requests comes with the command line: workers are recycled all the time.

# Hooks make a shutdown quicker; what is shown here holds without them.

# The log says what happened to workers. Answers are counted by the clients.
loglevel = "info"
accesslog = None
# gunicorn 25 and later would open a socket in the user's home; earlier ones ignore the name.
control_socket_disable = True
