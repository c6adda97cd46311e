"""Celery's settings, named in shop.py. Messages are files here, so that no broker has to be installed."""

broker_url = "filesystem://localhost"
broker_transport_options = {
    "data_folder_in": "state/messages",
    "data_folder_out": "state/messages",
    "control_folder": "state/control",
}
broker_connection_retry_on_startup = True
task_ignore_result = True

# What other clients lose events with, and this one does not: a new process for each task.
worker_concurrency = 2
worker_max_tasks_per_child = 1
