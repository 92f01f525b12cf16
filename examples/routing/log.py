"""Logs a line: python log.py SEVERITY TEXT"""

import sys

import pika.exceptions
from connect import connect

severity, text = sys.argv[1:3]

with connect() as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    try:
        # mandatory: a severity that no queue is bound with comes back instead of vanishing.
        channel.basic_publish("logs", severity, text.encode(), mandatory=True)
    except pika.exceptions.UnroutableError:
        sys.exit(f"nobody wants lines of severity {severity}")
