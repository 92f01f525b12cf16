"""The tasks, and where the broker is. Workers and those who ask for work share this file."""

import os
import time

from celery import Celery

host = os.environ.get("AMQP_HOST", "127.0.0.1")
port = os.environ.get("AMQP_PORT", "5672")

# Results come back through the broker, to a queue of whoever asked.
app = Celery("tasks", broker=f"amqp://celery:celery@{host}:{port}/shop", backend="rpc://")
app.conf.update(
    # A task is acked when it is done: a worker that dies leaves its tasks to the others.
    task_acks_late=True,
    # One task at a time, so that nothing waits behind a slow one.
    worker_prefetch_multiplier=1,
    # Persistent results survive a restart of the broker.
    result_persistent=True,
    # For `celery events` and watch.py.
    worker_send_task_events=True,
    broker_connection_retry_on_startup=True,
)


@app.task
def add(x, y):
    return x + y


@app.task(bind=True)
def pack(self, seconds):
    """Takes a while, except where a worker died over it: then little is left to do."""
    if self.request.delivery_info["redelivered"]:
        return "packed what somebody else had begun"
    time.sleep(seconds)
    return "packed"


@app.task(bind=True, max_retries=3)
def call(self):
    """Succeeds at the third attempt."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return f"answered after {self.request.retries} retries"
