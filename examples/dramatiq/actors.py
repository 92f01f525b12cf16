"""What workers do, and where the broker is. Workers and those who ask for work share this file."""

import os
import time

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import CurrentMessage

host = os.environ.get("AMQP_HOST", "127.0.0.1")
port = os.environ.get("AMQP_PORT", "5672")

# With confirms, sending returns when the broker has taken responsibility.
broker = RabbitmqBroker(url=f"amqp://dramatiq:dramatiq@{host}:{port}/office", confirm_delivery=True)
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


@dramatiq.actor
def file(paper):
    print(f"filed {paper}", flush=True)


@dramatiq.actor
def remind(text, asked_at):
    # A delay waits in a queue of its own (default.DQ) until its time has come.
    print(f"{text}, a second later or more: {time.time() - asked_at >= 1}", flush=True)


@dramatiq.actor(max_retries=3, min_backoff=100, max_backoff=100)
def phone(whom):
    attempts = CurrentMessage.get_current_message().options.get("retries", 0) + 1
    if attempts < 3:
        raise RuntimeError("nobody answers")
    print(f"{whom} answered at attempt {attempts}", flush=True)


@dramatiq.actor(max_retries=0, throws=ValueError)
def shred(paper):
    # What fails for good is rejected, and the broker puts it where somebody can look at it (default.XQ).
    raise ValueError(f"{paper} is stapled")
