"""Asks for the square of each number: python client.py NUMBER..."""

import sys

import pika
from connect import connect

with connect() as connection:
    channel = connection.channel()
    replies = channel.queue_declare("", exclusive=True).method.queue
    open_requests = set()
    for number in sys.argv[1:]:
        request = pika.BasicProperties(reply_to=replies, correlation_id=number)
        channel.basic_publish("", "squares", number.encode(), request)
        open_requests.add(number)
    for method, properties, body in channel.consume(replies, auto_ack=True):
        if properties.correlation_id in open_requests:
            open_requests.remove(properties.correlation_id)
            print(f"{properties.correlation_id} squared is {body.decode()}", flush=True)
        if not open_requests:
            break
