"""Asks for work and waits for the results."""

import time

from celery import group
from tasks import add, call

print(f"2 + 3 = {add.delay(2, 3).get(timeout=30)}", flush=True)

sums = group(add.s(number, number) for number in range(1, 6))()
print(f"doubles: {sums.get(timeout=30)}", flush=True)

asked = time.monotonic()
add.apply_async((1, 1), countdown=1).get(timeout=30)
print(f"a second later or more: {time.monotonic() - asked >= 1}", flush=True)

print(call.delay().get(timeout=30), flush=True)
