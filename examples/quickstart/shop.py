"""Publishes as the shop and prints what arrived in which queue."""

import os

import pika

HOST = os.environ.get("AMQP_HOST", "127.0.0.1")
PORT = int(os.environ.get("AMQP_PORT", "5672"))


def connect(user, password):
    credentials = pika.PlainCredentials(user, password)
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, PORT, credentials=credentials))


with connect("shop", os.environ.get("SHOP_PASSWORD", "shop")) as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    for key in ("order.eu.new", "order.us.rush"):
        channel.basic_publish("orders", key, b"an order", pika.BasicProperties(delivery_mode=2), mandatory=True)

with connect("guest", "guest") as connection:
    channel = connection.channel()
    channel.confirm_delivery()
    channel.basic_publish("tenants", "order.created", b"x", pika.BasicProperties(headers={"x-tenant": "acme"}))
    for queue in ("orders.eu", "orders.us", "orders.rush", "audit.all", "tenants.acme"):
        while True:
            method, properties, body = channel.basic_get(queue, auto_ack=True)
            if method is None:
                break
            print(f"{queue}: {method.routing_key}")
