"""A plugin of pytest: amqpstorm's own tests connect to the port that the library takes when none is named, so this is where it becomes ours."""

import os

import amqpstorm

amqpstorm.Connection.__init__.__defaults__ = (int(os.environ["AMQP_PORT"]),)
