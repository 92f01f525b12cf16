"""Publishes an event: python publish.py ROUTING_KEY TEXT [--tenant TENANT] [--user USER PASSWORD]"""

import argparse
import os
import sys

import pika
import pika.exceptions

arguments = argparse.ArgumentParser()
arguments.add_argument("routing_key")
arguments.add_argument("text")
arguments.add_argument("--tenant")
arguments.add_argument("--user", nargs=2, default=("guest", "guest"))
given = arguments.parse_args()

host = os.environ.get("AMQP_HOST", "127.0.0.1")
port = int(os.environ.get("AMQP_PORT", "5672"))
parameters = pika.ConnectionParameters(host, port, credentials=pika.PlainCredentials(*given.user))
headers = {"x-tenant": given.tenant} if given.tenant else None

with pika.BlockingConnection(parameters) as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        channel.basic_publish("events", given.routing_key, given.text.encode(), pika.BasicProperties(headers=headers))
    except pika.exceptions.NackError:
        # The hook rejected the message; the broker's log says why.
        sys.exit("rejected")
