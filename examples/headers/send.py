"""Sends a document with headers: python send.py TEXT NAME=VALUE..."""

import json
import sys

import pika
from connect import connect


def value(text):
    """Numbers and truth values are sent as such, everything else as text: their types count when headers are compared."""
    try:
        return json.loads(text)
    except ValueError:
        return text


headers = {name: value(text) for name, text in (argument.split("=", 1) for argument in sys.argv[2:])}

with connect() as connection:
    connection.channel().basic_publish("documents", "", sys.argv[1].encode(), pika.BasicProperties(headers=headers))
