"""pika over TLS, once with a password and once with SASL EXTERNAL: PORT CA CERTIFICATE KEY."""

import ssl
import sys

import pika
from pika.credentials import ExternalCredentials

port, authority, certificate, key = sys.argv[1:]


def say_hello(name, context, credentials):
    parameters = pika.ConnectionParameters(
        "127.0.0.1",
        int(port),
        credentials=credentials,
        ssl_options=pika.SSLOptions(context, "broker.test"),
        socket_timeout=20,
        blocked_connection_timeout=20,
    )
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"hello", mandatory=True)
        _, _, body = channel.basic_get(queue, auto_ack=True)
        print(f"{name}: {body.decode()}")


say_hello("password", ssl.create_default_context(cafile=authority), pika.PlainCredentials("guest", "guest"))
with_certificate = ssl.create_default_context(cafile=authority)
with_certificate.load_cert_chain(certificate, key)
say_hello("certificate", with_certificate, ExternalCredentials())
