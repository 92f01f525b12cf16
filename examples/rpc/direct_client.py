"""Asks for the square of each number, without a queue for the replies: python direct_client.py NUMBER..."""

import sys

import pika
from connect import connect

# Replies to this address go straight to the channel that consumes from it; there is no queue to declare or to clean up.
REPLIES = "amq.rabbitmq.reply-to"

with connect() as connection:
    channel = connection.channel()
    open_requests = set(sys.argv[1:])

    def on_reply(channel, method, properties, body):
        if properties.correlation_id in open_requests:
            open_requests.remove(properties.correlation_id)
            print(f"{properties.correlation_id} squared is {body.decode()}", flush=True)

    # Before the first request, on the same channel, and without acks.
    channel.basic_consume(REPLIES, on_reply, auto_ack=True)
    for number in sorted(open_requests):
        request = pika.BasicProperties(reply_to=REPLIES, correlation_id=number)
        channel.basic_publish("", "squares", number.encode(), request, mandatory=True)
    while open_requests:
        connection.process_data_events(time_limit=None)
