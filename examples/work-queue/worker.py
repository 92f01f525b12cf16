"""Works on tasks one at a time: python worker.py [NUMBER OF TASKS]"""

import sys

from connect import connect

limit = int(sys.argv[1]) if len(sys.argv) > 1 else None
done = 0

with connect() as connection:
    channel = connection.channel()
    # One unacked task at a time: a busy worker gets nothing new while others are free.
    channel.basic_qos(prefetch_count=1)
    for method, properties, body in channel.consume("tasks"):
        print(f"working on {body.decode()}", flush=True)
        # Only now is the task done; a worker that dies before this leaves it to the next one.
        channel.basic_ack(method.delivery_tag)
        done += 1
        if done == limit:
            break
