"""Says how many messages wait, are delayed, and have failed for good."""

from actors import broker

waiting, delayed, failed = broker.get_queue_message_counts("default")
print(f"{waiting} waiting, {delayed} delayed, {failed} failed", flush=True)
