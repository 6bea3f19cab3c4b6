"""Settings of the Celery workers; dagster_celery.app reads this file where it is on PYTHONPATH.

In place of `dagster-celery worker start -y …`, which writes the broker's password into a file at each start and
is a process before Celery's own that dies at SIGTERM and takes the running runs with it.
"""

import os

broker_url = os.environ["OCR_CELERY_BROKER"]
result_backend = os.environ["OCR_CELERY_BACKEND"]
broker_connection_retry_on_startup = True
# A task is taken from the queue only when a place is free. Fetched ahead, it would be lost with a dead worker until the
# broker's visibility timeout, and would wait here while another worker is idle.
worker_disable_prefetch = True
worker_prefetch_multiplier = 1
broker_transport_options = {"visibility_timeout": 43200}
worker_cancel_long_running_tasks_on_connection_loss = False  # a broker that restarts costs no run
worker_max_tasks_per_child = 100  # memory of PDF and OCR libraries goes back to the system
result_expires = 604800  # as in dagster.yaml: where a task runs is looked up there as long as it runs
del os
