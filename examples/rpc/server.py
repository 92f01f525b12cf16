"""Squares numbers for whoever asks: python server.py [NUMBER OF REQUESTS]"""

import sys

import pika
from connect import connect

limit = int(sys.argv[1]) if len(sys.argv) > 1 else None
served = 0

with connect() as connection:
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    for method, properties, body in channel.consume("squares"):
        # The correlation id lets the client tell which request this answers.
        answer = pika.BasicProperties(correlation_id=properties.correlation_id)
        channel.basic_publish("", properties.reply_to, str(int(body) ** 2).encode(), answer)
        channel.basic_ack(method.delivery_tag)
        served += 1
        if served == limit:
            break
