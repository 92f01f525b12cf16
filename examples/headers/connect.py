"""How the programs of this example reach the broker."""

import os

import pika


def connect():
    host = os.environ.get("AMQP_HOST", "127.0.0.1")
    port = int(os.environ.get("AMQP_PORT", "5672"))
    return pika.BlockingConnection(pika.ConnectionParameters(host, port))
