"""Puts tasks into the queue: python new_task.py TASK..."""

import sys

from connect import connect, persistent

with connect() as connection:
    channel = connection.channel()
    # With confirms, publishing returns when the broker has taken responsibility.
    channel.confirm_delivery()
    for task in sys.argv[1:] or ["hello"]:
        channel.basic_publish("", "tasks", task.encode(), persistent, mandatory=True)
        print(f"sent {task}", flush=True)
