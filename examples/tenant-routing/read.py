"""Prints what waits in a queue: python read.py QUEUE"""

import sys

from connect import connect

with connect() as connection:
    channel = connection.channel()
    while True:
        method, properties, body = channel.basic_get(sys.argv[1])
        if method is None:
            break
        print(f"{method.routing_key}: {body.decode()}", flush=True)
        channel.basic_ack(method.delivery_tag)
